"""Loops in the background. They have no rules of their own: they submit operations."""
