"""The real engine, sweeper and core over a model of the database, under one seeded scheduler."""
