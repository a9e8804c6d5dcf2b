"""Detectors: how suspicious each class of a model is."""
