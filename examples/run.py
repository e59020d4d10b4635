"""Build the examples, run each against one fresh server, and compare what they print.

All have to print expected_output.txt. One whose toolchain is missing or too old is skipped, and
that is said. Exit code 1 if one cannot be built, fails, or prints something else.
"""

from __future__ import annotations

import argparse
import difflib
import json
import os
import re
import secrets
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import NamedTuple

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
        with nullcontext(options.address) if options.address else _fresh_server() as address:
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


@contextmanager
def _fresh_server() -> Iterator[str]:
    """The address of a server on an empty database, both gone at the end."""
    with tempfile.TemporaryDirectory(prefix="meterhold-examples-") as folder:
        # As root, PostgreSQL runs as another user, who has to pass through.
        Path(folder).chmod(0o711)
        others = {k: v for k, v in os.environ.items() if not k.startswith("METERHOLD_")}
        settings = {
            "METERHOLD_ADDRESS": "127.0.0.1:0",
            "METERHOLD_DATA_DIRECTORY": f"{folder}/postgres",
            "METERHOLD_LOG_FORMAT": "json",
        }
        with subprocess.Popen(
            [sys.executable, "-m", "meterhold_server", "serve"],
            env=others | settings,
            stderr=subprocess.PIPE,
            text=True,
        ) as server:
            try:
                yield _address(server)
            finally:
                server.terminate()
                server.communicate()


def _address(server: subprocess.Popen[str]) -> str:
    assert server.stderr is not None
    told = []
    for line in server.stderr:
        told.append(line)
        event = json.loads(line) if line.startswith("{") else {}
        if event.get("event") == "serving":
            return str(event["address"])
    raise SystemExit("The server ended before it served:\n" + "".join(told))


if __name__ == "__main__":
    sys.exit(main())
