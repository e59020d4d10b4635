"""Tasks that a cancelled caller leaves behind, and that have to end all the same."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine

_R = TypeVar("_R")


class Background:
    """Keeps tasks alive until they end. Belongs to one event loop."""

    def __init__(self) -> None:
        self.closed = False
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, _R]) -> asyncio.Task[_R]:
        """Begin it. Whoever wants to know how it ends awaits it, through `asyncio.shield`."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    async def aclose(self) -> None:
        """Wait until all have ended; each has a deadline of its own."""
        self.closed = True
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # Its work has logged what has to be known if nobody awaits it.
