"""docs/guarantees.md names tests that exist, for promises that are numbered."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GUARANTEES = (ROOT / "docs" / "guarantees.md").read_text()
ROWS = re.findall(r"^\| (\d+) \| (.+) \| (.+) \|$", GUARANTEES, re.MULTILINE)


def test_promises_are_numbered_and_have_a_test() -> None:
    assert [int(number) for number, _, _ in ROWS] == list(range(1, len(ROWS) + 1))
    assert all("Simulation" in tests or "](../tests/" in tests for _, _, tests in ROWS)


@pytest.mark.parametrize(("name", "target"), re.findall(r"\[([^]]+)]\(([^)#]+)\)", GUARANTEES))
def test_what_it_names_exists(name: str, target: str) -> None:
    path = (ROOT / "docs" / target).resolve()
    assert path.exists()
    assert name in (path.stem, path.name, f"tests/{path.name}")
