"""What `make examples` says, with toolchains that are missing, old, or print something else."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from pathlib import Path
from subprocess import PIPE
from typing import NamedTuple

import pytest

RUNNER = Path(__file__).parents[2] / "examples" / "run.py"
NOBODY = "127.0.0.1:1"
NEW_GO = "echo go version go1.99.0 linux/amd64"
NEW_BUF = "echo 1.99.0"


class Done(NamedTuple):
    code: int | None
    out: str


async def run_examples(*arguments: str, **environment: str) -> Done:
    process = await asyncio.create_subprocess_exec(
        sys.executable, RUNNER, *arguments, stdout=PIPE, env=os.environ | environment
    )
    out, _ = await process.communicate()
    return Done(process.returncode, out.decode())


def path_with(folder: Path, commands: dict[str, str]) -> str:
    """A PATH that has only these commands, each with its lines of shell."""
    for name, lines in commands.items():
        (folder / name).write_text(f"#!/bin/sh\n{lines}\n")
        (folder / name).chmod(0o755)
    return str(folder)


async def test_the_python_example_prints_what_is_expected_of_all(address: str) -> None:
    done = await run_examples("--only", "python", "--address", address)
    assert re.fullmatch(r"ok python in \d+\.\d s\n", done.out)
    assert done.code == 0


@pytest.mark.parametrize(
    ("commands", "told"),
    [
        ({}, "no go command found"),
        ({"go": "echo go version go1.21.3 linux/amd64"}, "go 1.21.3 is older than 1.26"),
        ({"go": "echo what?"}, "go unknown is older than 1.26"),
        ({"go": "exit 3"}, "go version ended with exit code 3"),
        ({"go": NEW_GO}, "no buf command found"),
    ],
    ids=["missing", "old", "without_version", "broken", "missing_generator"],
)
async def test_what_cannot_be_built_here_is_skipped_and_named(
    tmp_path: Path, commands: dict[str, str], told: str
) -> None:
    done = await run_examples("--only", "go", PATH=path_with(tmp_path, commands))
    assert done == (0, f"skipped go: {told}\n")


async def test_an_example_can_be_left_out() -> None:
    done = await run_examples("--only", "java", "--skip", "java")
    assert done == (0, "skipped java: as asked\n")


@pytest.mark.parametrize(
    ("does", "told"),
    [
        (
            "case $1 in run) echo 'grant order-1001: 3 granted';; *) %s;; esac",
            [
                "failed go: it prints something else\n",
                "\n-grant order-1001: 10000000 granted, 10000000 available\n",
                "\n+grant order-1001: 3 granted\n",
            ],
        ),
        (
            "case $1 in run) echo 'unknown: no server' >&2; exit 1;; *) %s;; esac",
            ["failed go: go run . go-", " ended with exit code 1\nunknown: no server\n"],
        ),
        (
            "case $1 in vet) echo 'no such module' >&2; exit 1;; *) %s;; esac",
            ["failed go: go vet . ended with exit code 1\nno such module\n"],
        ),
    ],
    ids=["prints_something_else", "fails", "is_not_built"],
)
async def test_a_failure_is_told_with_the_output(
    tmp_path: Path, does: str, told: list[str]
) -> None:
    path = path_with(tmp_path, {"go": does % NEW_GO, "buf": NEW_BUF})
    done = await run_examples("--only", "go", "--address", NOBODY, PATH=path)
    assert done.code == 1
    for part in told:
        assert part in done.out
