"""bezoar: find, measure and undo data poisoning of image classifiers."""

__version__ = "0.1.0"
