"""docs/semantics.md names the acceptance test of each feature, and there are no others."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "tests" / "acceptance"
SEMANTICS = (ROOT / "docs" / "semantics.md").read_text()
ROWS = [
    (int(number), name, target)
    for number, name, target in re.findall(
        r"^\| (\d+) \| .+ \| \[(.+)\]\((.+)\) \|$", SEMANTICS, re.MULTILINE
    )
]
DUE = 18


def test_every_feature_has_a_row() -> None:
    assert [number for number, _, _ in ROWS] == list(range(1, DUE + 1))


def test_the_table_names_the_tests_that_exist() -> None:
    named = [(ROOT / "docs" / target).resolve() for _, _, target in ROWS]
    assert named == sorted(FOLDER.glob("test_*.py"))


@pytest.mark.parametrize(("number", "name", "target"), ROWS, ids=[name for _, name, _ in ROWS])
def test_a_test_is_that_of_its_row(number: int, name: str, target: str) -> None:
    text = (ROOT / "docs" / target).resolve().read_text()
    assert re.fullmatch(rf"test_{number:02}_\w+", name)
    assert Path(target).stem == name
    assert text.startswith(f'"""Row {number}: ')
    assert re.search(r"^(?:async )?def test_", text, re.MULTILINE)
