"""Random and mutated messages, and hostile HTTP/2: see `python -m fuzz --help`."""
