"""The library as the type checkers of its users see it, each in its strictest mode."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

PROGRAM = Path(__file__).parent / "program.py"
ROOT = Path(__file__).parents[2]
MISTAKES = """
import meterhold

with meterhold.Client() as client:
    client.reserve("alice", "5", reservation_id="job")
    client.hold("alice", 5, on_error="charge")
    client.settle("alice", 5).charged
"""


def _pyright(folder: Path, program: Path) -> tuple[int, list[str]]:
    """How many files were checked, and what is wrong with them."""
    config = folder / "pyrightconfig.json"
    config.write_text(
        json.dumps(
            {
                "typeCheckingMode": "strict",
                "include": [str(program)],
                "extraPaths": [str(ROOT / "client")],
            }
        )
    )
    command = [sys.executable, "-m", "basedpyright", "--outputjson", "-p", str(config)]
    run = subprocess.run(
        [*command, "--pythonpath", sys.executable], capture_output=True, text=True, check=False
    )
    report = json.loads(run.stdout)
    diagnostics = [found["message"] for found in report["generalDiagnostics"]]
    return report["summary"]["filesAnalyzed"], diagnostics


def _mypy(folder: Path, program: Path) -> str:
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--no-error-summary"]
    run = subprocess.run(
        [*command, f"--cache-dir={folder / 'cache'}", str(program)],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env={"MYPYPATH": str(ROOT / "client"), "PATH": ""},
    )
    return run.stdout + run.stderr


def test_program_is_clean_for_pyright(tmp_path: Path) -> None:
    assert _pyright(tmp_path, PROGRAM) == (1, [])


def test_program_is_clean_for_mypy(tmp_path: Path) -> None:
    assert _mypy(tmp_path, PROGRAM) == ""


def test_mistakes_are_found(tmp_path: Path) -> None:
    """Or the tests above could not fail."""
    program = tmp_path / "mistakes.py"
    program.write_text(MISTAKES)
    assert len(_pyright(tmp_path, program)[1]) >= 3
    assert _mypy(tmp_path, program).count("error:") >= 3
