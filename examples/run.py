"""Build the examples, run each against one fresh server, and compare what they print.

All have to print expected_output.txt. One whose toolchain is missing or too old is skipped, and
that is said. Exit code 1 if one cannot be built, fails, or prints something else.
"""

from __future__ import annotations

import argparse
import difflib
import os
import re
import secrets
import shlex
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

from meterhold.testing import embedded_service

EXAMPLES = Path(__file__).parent
SECONDS_MAX = 300


class Tool(NamedTuple):
    """A command that has to be there, and the oldest version of it that will do."""

    command: str
    version_argument: str
    oldest: tuple[int, ...]


class Example(NamedTuple):
    """A folder, what has to be there to build it, and the commands. The account is added to run."""

    name: str
    tools: tuple[Tool, ...]
    build: tuple[tuple[str, ...], ...]
    run: tuple[str, ...]


ALL = (
    Example("python", (), (), (sys.executable, "example.py")),
    Example(
        "go",
        (Tool("go", "version", (1, 26)), Tool("buf", "--version", (1, 32))),
        (("go", "generate"), ("go", "vet", ".")),
        ("go", "run", "."),
    ),
    Example(
        "typescript",
        (Tool("node", "--version", (20,)), Tool("npm", "--version", (10,))),
        (("npm", "ci"), ("npm", "run", "build")),
        ("node", "dist/src/example.js"),
    ),
    Example(
        "java",
        (Tool("javac", "--version", (17,)), Tool("mvn", "--version", (3, 8, 2))),
        (("mvn", "--quiet", "compile"),),
        ("java", "-cp", "target/classes:target/dependency/*", "example.Example"),
    ),
)


class Failed(Exception):
    """An example that does not do what it should, and the output that tells why."""


def main() -> int:
    options = _options()
    chosen = [example for example in ALL if example.name in (options.only or _names())]
    here = [example for example in chosen if not _skipped(example, options.skip)]
    with ThreadPoolExecutor() as pool:
        built = [e for e, done in zip(here, pool.map(_builds, here), strict=True) if done]
    passed: list[Example] = []
    if built:
        with nullcontext(options.address) if options.address else embedded_service() as address:
            passed = [example for example in built if _prints_the_same(example, address)]
    return 0 if passed == here else 1


def _names() -> list[str]:
    return [example.name for example in ALL]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    for flag, told in (("--only", "run this one"), ("--skip", "leave this one out")):
        parser.add_argument(
            flag, action="append", default=[], choices=_names(), help=f"{told}; may be repeated"
        )
    parser.add_argument("--address", help="host:port of a server to use instead of a fresh one")
    return parser.parse_args()


def _skipped(example: Example, unwanted: list[str]) -> bool:
    reason = "as asked" if example.name in unwanted else _missing(example)
    if reason:
        _say(f"skipped {example.name}: {reason}")
    return bool(reason)


def _missing(example: Example) -> str:
    """What the example lacks to be built here; empty if nothing."""
    for tool in example.tools:
        if shutil.which(tool.command) is None:
            return f"no {tool.command} command found"
        try:
            told = _output(example, tool.command, tool.version_argument)
        except Failed as failure:
            return str(failure).splitlines()[0]
        # Maven colours its version.
        digits = re.search(r"\d+(\.\d+)*", re.sub(r"\x1b\[[0-9;]*m", "", told))
        version = tuple(map(int, digits[0].split("."))) if digits else ()
        if version < tool.oldest:
            oldest = ".".join(map(str, tool.oldest))
            found = digits[0] if digits else "unknown"
            return f"{tool.command} {found} is older than {oldest}"
    return ""


def _builds(example: Example) -> bool:
    start = time.monotonic()
    try:
        for command in example.build:
            _output(example, *command)
    except Failed as failure:
        _say(f"failed {example.name}: {failure}")
        return False
    if example.build:
        _say(f"built {example.name} in {_seconds_since(start)}")
    return True


def _prints_the_same(example: Example, address: str) -> bool:
    start = time.monotonic()
    account = f"{example.name}-{secrets.token_hex(4)}"
    try:
        printed = _output(example, *example.run, account, METERHOLD_ADDRESS=address)
    except Failed as failure:
        _say(f"failed {example.name}: {failure}")
        return False
    if difference := _difference(printed, example.name):
        _say(f"failed {example.name}: it prints something else\n{difference}")
        return False
    _say(f"ok {example.name} in {_seconds_since(start)}")
    return True


def _say(line: str) -> None:
    # In one write, as the builds speak at the same time.
    print(f"{line}\n", end="", flush=True)


def _seconds_since(start: float) -> str:
    return f"{time.monotonic() - start:.1f} s"


def _difference(printed: str, name: str) -> str:
    expected = (EXAMPLES / "expected_output.txt").read_text()
    before, after = (text.splitlines(keepends=True) for text in (expected, printed))
    return "".join(difflib.unified_diff(before, after, "expected_output.txt", name))


def _output(example: Example, *command: str, **environment: str) -> str:
    """What a command prints in the folder of the example."""
    try:
        done = subprocess.run(
            command,
            cwd=EXAMPLES / example.name,
            env=os.environ | environment,
            capture_output=True,
            text=True,
            timeout=SECONDS_MAX,
        )
    except subprocess.TimeoutExpired as error:
        raise Failed(f"{shlex.join(command)} takes more than {SECONDS_MAX} s") from error
    if done.returncode:
        told = f"{shlex.join(command)} ended with exit code {done.returncode}"
        raise Failed(f"{told}\n{done.stdout}{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
