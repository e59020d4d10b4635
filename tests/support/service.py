"""A Meterhold for tests: in this process, or as a process of its own that can be killed."""

from __future__ import annotations

import asyncio
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from meterhold_server import app
from meterhold_server.config import ServeSettings

START_SECONDS = 30.0
_TESTS = Path(__file__).parents[1]


@asynccontextmanager
async def service(database_url: str, **settings: Any) -> AsyncIterator[str]:
    """Serve in this event loop, through the same `app.serve` as the command. Yields the address."""
    wanted = ServeSettings(**{"address": "127.0.0.1:0", **settings})
    stopping = asyncio.Event()
    address: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(
        app.serve(wanted, database_url, stopping, announce=address.set_result)
    )
    first: set[asyncio.Future[Any]] = {serving, address}
    await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
    if serving.done():
        serving.result()  # It has not started: this says why.
    try:
        yield await address
    finally:
        stopping.set()
        await serving


class ServerProcess:
    """`meterhold-server serve` as a stranger runs it, on a free port of the loopback address."""

    def __init__(
        self,
        database_url: str,
        *,
        program: Sequence[str] = ("-m", "meterhold_server"),
        **settings: Any,
    ) -> None:
        """Start it and wait until it serves. `settings` are those of ServeSettings.

        `program` is what Python runs with `serve`, if not this version's command.
        """
        self._program = program
        defaults = {"address": "127.0.0.1:0", "workers": 1, "allow_unsafe_database": True}
        wanted = defaults | settings
        own = {f"METERHOLD_{name.upper()}": str(value) for name, value in wanted.items()}
        self._environment = os.environ | own | {"METERHOLD_DATABASE_URL": database_url}
        self._environment["METERHOLD_LOG_FORMAT"] = "json"
        self.events: list[dict[str, Any]] = []
        self._new_events: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._start()

    def _start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, *self._program, "serve"],
            env=self._environment,
            cwd=_TESTS,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="backslashreplace",
        )
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()
        self.address: str = self.wait_for("serving")["address"]

    def wait_for(self, event: str, seconds: float = START_SECONDS) -> dict[str, Any]:
        """The next log line of that event. Fails if the process ends first, or after `seconds`."""
        while True:
            found = self._new_events.get(timeout=seconds)
            if found["event"] == event:
                return found
            if found["event"] == "ended":
                raise AssertionError(f"the server ended: {self.events}")

    @property
    def process_id(self) -> int:
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def restart(self) -> None:
        """Start it again, after `kill` or `terminate`, on the port it had."""
        self._environment["METERHOLD_ADDRESS"] = self.address
        self._new_events = queue.SimpleQueue()
        self._start()

    def kill(self) -> None:
        """kill -9: what was not committed is gone."""
        self._process.kill()
        self._end()

    def terminate(self) -> int:
        """SIGTERM: it drains. Answers the exit code."""
        self._process.send_signal(signal.SIGTERM)
        return self._end()

    def _end(self) -> int:
        code = self._process.wait(timeout=START_SECONDS)
        self._reading.join()
        assert self._process.stderr is not None
        self._process.stderr.close()
        return code

    def _read(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            event = json.loads(line) if line.startswith("{") else {"event": "text", "text": line}
            self.events.append(event)
            self._new_events.put(event)
        self._new_events.put({"event": "ended"})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process.poll() is None:
            self.terminate()
        elif self._process.stderr is not None and not self._process.stderr.closed:
            self._end()
