"""The examples of docs/testing.md are tests, and pass as they stand in any project."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from .test_fixtures import run_pytest

DOCUMENT = (Path(__file__).parents[2] / "docs" / "testing.md").read_text()


@pytest.mark.slow
async def test_the_examples_pass(tmp_path: Path, address: str) -> None:
    examples = re.findall(r"^```python\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)
    for number, example in enumerate(examples):
        name = re.match(r"# (conftest\.py)\n", example)
        (tmp_path / (name[1] if name else f"test_{number}.py")).write_text(example)
    code, printed = await run_pytest(tmp_path, METERHOLD_TEST_ADDRESS=address)
    tests = len(re.findall(r"^def test_", DOCUMENT, re.MULTILINE))
    assert code == 0, printed
    assert f"{tests} passed" in printed
