"""The command, run in this process against a server that runs in the event loop of the test."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import pytest
from typer.testing import CliRunner

from client.scripted_server import ScriptedServer
from meterhold.cli.application import app

# A shell that runs the tests in the background has them ignore Ctrl-C, and so would the commands
# that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)


class Done(NamedTuple):
    """What a shell sees of a command that has ended."""

    code: int
    out: str
    err: str

    @property
    def value(self) -> Any:
        """What `--json` printed: one object."""
        assert (self.code, self.err) == (0, ""), self
        return json.loads(self.out)

    @property
    def values(self) -> list[Any]:
        """What `--json` printed of a list: one object a line."""
        assert (self.code, self.err) == (0, ""), self
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def error(self) -> Any:
        """What `--json` printed of an error."""
        assert (self.code != 0, self.out) == (True, ""), self
        return json.loads(self.err)["error"]


class Run(Protocol):
    async def __call__(self, *arguments: str, **environment: str) -> Done: ...


@pytest.fixture
def config_home(tmp_path: Path) -> Path:
    """Where the config file of `run` is looked for."""
    return tmp_path / "config"


@pytest.fixture
def environment(config_home: Path) -> dict[str, str | None]:
    """No setting of whoever runs the tests; None takes a variable away."""
    inherited = dict.fromkeys(name for name in os.environ if name.startswith("METERHOLD_"))
    return {**inherited, "FORCE_COLOR": None, "XDG_CONFIG_HOME": str(config_home)}


@pytest.fixture
def run_alone(environment: dict[str, str | None]) -> Run:
    """Runs a command that finds no server. What is typed at it is the variable `TYPED`."""

    async def run(*arguments: str, **more: str) -> Done:
        typed = more.pop("TYPED", "")
        # In a thread, as the server needs the event loop meanwhile.
        done = await asyncio.to_thread(
            CliRunner().invoke,
            *(app, arguments),
            input=typed,
            env=environment | more,
            prog_name="meterhold",
        )
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return Done(done.exit_code, done.stdout, done.stderr)

    return run


@pytest.fixture
def run(run_alone: Run, address: str) -> Run:
    """Runs a command on a fresh database."""

    async def run(*arguments: str, **environment: str) -> Done:
        return await run_alone(*arguments, METERHOLD_ADDRESS=address, **environment)

    return run


@pytest.fixture
def scripted() -> Iterator[ScriptedServer]:
    with ScriptedServer() as server:
        yield server


@pytest.fixture
def run_scripted(run_alone: Run, scripted: ScriptedServer) -> Run:
    """Runs a command on a server that answers as it is told."""

    async def run(*arguments: str, **environment: str) -> Done:
        return await run_alone(*arguments, METERHOLD_ADDRESS=scripted.target, **environment)

    return run
