"""Repairers: iterators over progressively repaired models."""
