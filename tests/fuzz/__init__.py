"""Random and mutated messages, and hostile HTTP/2, against a server: see `python -m fuzz --help`."""
