"""The benchmarks do what they say, in runs too short to measure anything."""
