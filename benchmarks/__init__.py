"""Benchmarks: what the service does a second beside what a server that does nothing does."""
