"""Lanes: operations that wait are gathered, decided together and committed once."""
