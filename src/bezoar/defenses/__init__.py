"""Defences, one file each: repairers and detectors."""
