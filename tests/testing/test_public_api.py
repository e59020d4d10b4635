"""What the package exports, and that the twins in memory have all that they stand for."""

from __future__ import annotations

import inspect

import meterhold.testing
from meterhold_server.storage import pages
from meterhold_server.testing.reader import MemoryReader


def test_all_is_sorted_and_complete() -> None:
    public = {name for name, value in vars(meterhold.testing).items() if _is_public(name, value)}
    assert meterhold.testing.__all__ == sorted(public)
    assert all(getattr(meterhold.testing, name).__doc__ for name in public)


def _is_public(name: str, value: object) -> bool:
    made_here = getattr(value, "__module__", "").startswith("meterhold.testing.")
    return made_here and not name.startswith("_")


def test_every_read_has_its_namesake() -> None:
    """With the same arguments, but for the connection."""
    for name, read in inspect.getmembers(pages, inspect.isfunction):
        if read.__module__ == pages.__name__ and not name.startswith("_"):
            _, *expected = inspect.signature(read).parameters.values()
            _, *found = inspect.signature(getattr(MemoryReader, name)).parameters.values()
            assert found == expected, name
