"""What is told of an account that is not as it must be."""

from __future__ import annotations

from typing import NamedTuple


class Difference(NamedTuple):
    """One thing that is not as it must be.

    `stored` and `expected` are micro-units where `what` is an amount; else a count, a `seq`, or a
    time in microseconds since 1970. 0 stands for nothing at all. `sentence` is plain English.
    """

    what: str
    stored: int
    expected: int
    sentence: str


def unequal(what: str, stored: int, source: str, expected: int) -> Difference:
    """`what` is stored as one number, and `source` says another."""
    return Difference(what, stored, expected, f"{what} {stored} ≠ {source} {expected}")
