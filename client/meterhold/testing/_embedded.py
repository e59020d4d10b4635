"""A real service for tests: a server process of its own, on a PostgreSQL of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_PREFIX = "METERHOLD_"
_INSTALLATION = "METERHOLD_POSTGRES_PREFIX"
_START_SECONDS_MAX = 60.0
_STOP_SECONDS_MAX = 60.0


@contextmanager
def embedded_service() -> Iterator[str]:
    """Start a fresh service, and yield its address: `127.0.0.1:` and a free port.

    It is `meterhold-server serve` with its defaults, whatever the environment says, on an embedded
    PostgreSQL that does not wait for the disk. Both are stopped and their data removed at the end.
    Starting takes a few seconds. Needs the extras `server` and `embedded`.

    Raises RuntimeError, with the server's log, if it does not start.
    """
    folder = Path(tempfile.mkdtemp(prefix="meterhold-test-"))
    try:
        # As root, PostgreSQL runs as another user, who has to pass through.
        folder.chmod(0o711)
        with _server(folder / "postgres") as address:
            yield address
    finally:
        shutil.rmtree(folder)


@contextmanager
def _server(data_directory: Path) -> Iterator[str]:
    with subprocess.Popen(
        [sys.executable, "-m", "meterhold_server", "serve"],
        env=_environment(data_directory),
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        log = _Log(process.stderr)
        try:
            yield log.address()
        finally:
            process.terminate()
            try:
                process.wait(_STOP_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                process.kill()
            log.join()


def _environment(data_directory: Path) -> dict[str, str]:
    """Ours without any setting of a server, which may be that of a service in use."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(_PREFIX) or name == _INSTALLATION
    }
    return inherited | {
        f"{_PREFIX}ADDRESS": "127.0.0.1:0",
        f"{_PREFIX}DATA_DIRECTORY": str(data_directory),
        f"{_PREFIX}ALLOW_UNSAFE_DATABASE": "true",
        f"{_PREFIX}LOG_FORMAT": "json",
    }


class _Log(threading.Thread):
    """Reads a server's log for as long as it runs: the server must never wait to be read."""

    def __init__(self, stream: IO[str]) -> None:
        super().__init__(name="meterhold-server-log", daemon=True)
        self._stream = stream
        self._lines: list[str] = []
        self._address: Future[str] = Future()
        self.start()

    def run(self) -> None:
        for line in self._stream:
            self._lines.append(line)
            event = json.loads(line) if line.startswith("{") else {}
            if event.get("event") == "serving":
                self._address.set_result(event["address"])
        if not self._address.done():
            self._address.set_exception(EOFError())

    def address(self) -> str:
        """Wait until it serves. Raises RuntimeError if it ends before, or takes too long."""
        try:
            return self._address.result(_START_SECONDS_MAX)
        except (EOFError, TimeoutError):
            log = "".join(self._lines)
            missing = "ModuleNotFoundError" in log
            advice = " Run: pip install 'meterhold[server,embedded]'." if missing else ""
            raise RuntimeError(f"The service did not start.{advice} Its log:\n{log}") from None
