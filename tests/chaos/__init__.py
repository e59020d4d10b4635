"""Real servers on a real PostgreSQL, while a seed decides what is killed, cut and frozen."""
