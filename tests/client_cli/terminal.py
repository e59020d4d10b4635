"""A terminal for a command that draws on one."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from support.waiting import until

LINES, COLUMNS = 40, 120


class Terminal:
    """A command in a terminal of its own. Use it as an async context manager."""

    def __init__(self, *arguments: str, environment: Mapping[str, str]) -> None:
        self._arguments = arguments
        self._environment = {"TERM": "xterm-256color", **environment}
        self.drawn = ""

    async def __aenter__(self) -> Self:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
        self._process = subprocess.Popen(  # noqa: ASYNC220 - it only starts it
            [sys.executable, "-m", "meterhold.cli", *self._arguments],
            env=self._environment,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        asyncio.get_running_loop().add_reader(self._ours, self._read)
        return self

    def _read(self) -> None:
        try:
            data = os.read(self._ours, 1 << 16)
        except OSError:  # that is how Linux tells that nobody has it open any more
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(self._ours)
        self.drawn += data.decode(errors="replace")

    async def shows(self, text: str) -> None:
        """Wait until `text` is drawn; what was drawn up to then does not count next time."""
        await until(lambda: text in self.drawn, seconds=30)
        self.drawn = self.drawn.partition(text)[2]

    def press(self, keys: bytes) -> None:
        os.write(self._ours, keys)

    def interrupt(self) -> None:
        """What the terminal sends for Ctrl-C."""
        self._process.send_signal(2)

    async def ended(self) -> int:
        """The exit code, once the command has ended."""
        return await asyncio.to_thread(self._process.wait, 30)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        asyncio.get_running_loop().remove_reader(self._ours)
        os.close(self._ours)
