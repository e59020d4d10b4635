"""The rules: pure functions over plain state, with no I/O, clock, logging or randomness."""
