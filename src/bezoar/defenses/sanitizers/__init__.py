"""Sanitizers: which rows of a data set are suspicious."""
