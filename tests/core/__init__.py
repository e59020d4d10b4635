"""The tests of the pure core: tables that read as the specification, and laws that always hold."""
