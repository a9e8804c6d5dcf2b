"""Marks in pixel space, shared by attacks."""
