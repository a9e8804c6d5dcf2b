"""Interval and linear bounds of what a network answers within a ball around an image."""
