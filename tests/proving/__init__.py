"""The whole proof, part after part: `make prove`."""
