"""The engine: the one door through which operations are submitted, and the lanes behind it."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from meterhold_server.batching.lane import Lane, LaneLimits
from meterhold_server.core.model import Rules
from meterhold_server.core.operations import Operation
from meterhold_server.core.outcomes import Outcome
from meterhold_server.storage.session import Session

_WATCH_SECONDS = 1.0


class Engine:
    """Submits each operation to the lane of its account. Make it, and use it, in one event loop."""

    def __init__(
        self, database_url: str, rules: Rules, limits: LaneLimits, *, lanes: int = 1
    ) -> None:
        """Start `lanes` lanes, 1 or more. Each opens its connection with its first batch."""
        self._lanes = [
            Lane(lambda: Session(database_url), rules, limits, name=f"lane-{number}")
            for number in range(lanes)
        ]
        self._watchdog = asyncio.create_task(self._watch())

    def submit(
        self, operation: Operation, deadline: float | None = None
    ) -> asyncio.Future[Outcome]:
        """Queue an operation; see Lane.submit. Operations of one account keep their order."""
        if len(self._lanes) == 1:
            return self._lanes[0].submit(operation, deadline)
        number = int(operation.account_id[:8], 16) % len(self._lanes)
        return self._lanes[number].submit(operation, deadline)

    async def close(self) -> None:
        """Carry out all that waits, then stop."""
        await asyncio.gather(*(lane.close() for lane in self._lanes))
        self._watchdog.cancel()
        with suppress(asyncio.CancelledError):
            await self._watchdog

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_WATCH_SECONDS)
            for lane in self._lanes:
                lane.sever_if_stuck()
