"""What runs in the background, again and again."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from contextlib import suppress
from typing import ClassVar

import structlog

from meterhold_server.batching.failures import Failure

_log = structlog.get_logger(__name__)


class Worker(ABC):
    """Works every `interval_seconds`, counted from the end of a run to the next."""

    failed_event: ClassVar[str]
    """What the log calls a run that failed."""

    def __init__(self, interval_seconds: float) -> None:
        self._interval_seconds = interval_seconds
        self._task: asyncio.Task[None] | None = None

    @abstractmethod
    async def work(self) -> None:
        """Do what there is to do now. Raises Failure if the database is away."""

    def start(self) -> None:
        """Begin to work in the background."""
        self._task = asyncio.create_task(self._loop())

    async def stop(self) -> None:
        """End at once. What is under way in the database is carried out whole or not at all."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def _loop(self) -> None:
        while True:
            try:
                await self.work()
            except Failure as failure:
                _log.warning(self.failed_event, reason=failure.reason.value, error=str(failure))
            except Exception:
                # Whatever it was, the next run may do better, and nobody else would do its work.
                _log.exception(self.failed_event)
            await asyncio.sleep(self._interval_seconds)
