"""The engine: the one door through which operations are submitted, and the lanes behind it.

Operations that come one by one all use the first lane: together they make fewer transactions, and
those cost more than what is in them. What comes in a Batch has a transaction of its own anyway, and
uses the lane that has least to do: one computes while another waits for the database. Messages that
take several transactions each all use the last lane: in several they would mostly wait for each
other's accounts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from meterhold_server.batching.failures import Failure
from meterhold_server.batching.fair_queue import Waiting
from meterhold_server.batching.lane import Lane, LaneLimits
from meterhold_server.batching.places import Answers, Gathering
from meterhold_server.core.model import Rules
from meterhold_server.core.operations import Operation
from meterhold_server.core.outcomes import Outcome
from meterhold_server.storage.session import Session

_WATCH_SECONDS = 1.0


class Engine:
    """Submits operations to lanes. Make it, and use it, in one event loop."""

    def __init__(
        self, database_url: str, rules: Rules, limits: LaneLimits, *, lanes: int = 1
    ) -> None:
        """Start `lanes` lanes, 1 or more. Each opens its connection with its first batch."""
        self._lanes = [
            Lane(lambda: Session(database_url), rules, limits, name=f"lane-{number}")
            for number in range(lanes)
        ]
        self._transaction_operations_max = limits.batch_operations_max
        self._watchdog = asyncio.create_task(self._watch())

    def submit(
        self, operation: Operation, deadline: float | None = None
    ) -> asyncio.Future[Outcome]:
        """Queue an operation; see Lane.submit. Those that are submitted so keep their order."""
        return self._lanes[0].submit(operation, deadline)

    def submit_many(
        self,
        operations: Sequence[Operation],
        deadline: float | None = None,
        order: int | None = None,
    ) -> asyncio.Future[Answers]:
        """Queue operations at once. The future gets what each came to, in order, or its Failure.

        They are carried out in their order, and behind those that were submitted before with the
        same `order`, if it is not None. Cancelling the future drops all waiters.
        """
        gathering = Gathering(len(operations))
        lane = self._lane_for(len(operations), order)
        many = [
            Waiting(operation, place, deadline)
            for operation, place in zip(operations, gathering.places, strict=True)
        ]
        try:
            lane.submit_many(many)
        except Failure as failure:
            for waiting in many:
                waiting.future.set_exception(failure)
        return gathering.future

    def _lane_for(self, number: int, order: int | None) -> Lane:
        """The lane for so many operations that came together."""
        if order is not None:
            return self._lanes[order % len(self._lanes)]
        if number > self._transaction_operations_max:
            return self._lanes[-1]
        return min(self._lanes, key=lambda lane: lane.pending_count)

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
