"""Certifiers: what proves that no small change of an image alters the answer."""
