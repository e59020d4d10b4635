"""The engine: the one door through which operations are submitted, and the lanes behind it.

Operations that come one by one all use the first lane: together they make fewer transactions, and
those cost more than what is in them. What comes in a Batch is shared out among all lanes by
account, so that one lane computes while another waits for the database.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from meterhold_server.batching.failures import Failure
from meterhold_server.batching.fair_queue import Waiting
from meterhold_server.batching.lane import Lane, LaneLimits
from meterhold_server.batching.places import Answers, Gathering
from meterhold_server.core.model import ClaimKey, Rules
from meterhold_server.core.needs import namespace_claim_keys
from meterhold_server.core.operations import Chain, Operation
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
        self._watchdog = asyncio.create_task(self._watch())

    def submit(
        self, operation: Operation, deadline: float | None = None
    ) -> asyncio.Future[Outcome]:
        """Queue an operation; see Lane.submit. Those that are submitted so keep their order."""
        return self._lanes[0].submit(operation, deadline)

    def submit_many(
        self, operations: Sequence[Operation], deadline: float | None = None
    ) -> asyncio.Future[Answers]:
        """Queue operations at once. The future gets what each came to, in order, or its Failure.

        Those of one account, and those of one key of the namespace, keep their order, those of
        chains included. Cancelling the future drops all waiters.
        """
        gathering = Gathering(len(operations))
        by_lane: dict[Lane, list[Waiting]] = {}
        for operation, lane, place in zip(
            operations, self._lanes_of(operations), gathering.places, strict=True
        ):
            by_lane.setdefault(lane, []).append(Waiting(operation, place, deadline))
        for lane, many in by_lane.items():
            try:
                lane.submit_many(many)
            except Failure as failure:
                for waiting in many:
                    waiting.future.set_exception(failure)
        return gathering.future

    def _lanes_of(self, operations: Sequence[Operation]) -> list[Lane]:
        """The lane of each. What a chain or a key joins is left to one lane, to keep its order."""
        home = list(range(len(self._lanes)))
        first_with: dict[ClaimKey, int] = {}
        for operation in operations:
            joined = set()
            for link in operation.operations if isinstance(operation, Chain) else (operation,):
                number = self._number(link)
                joined.add(home[number])
                for key in namespace_claim_keys(link):
                    joined.add(home[first_with.setdefault(key, number)])
            if len(joined) > 1:
                target = min(joined)
                home = [target if number in joined else number for number in home]
        return [self._lanes[home[self._number(operation)]] for operation in operations]

    def _number(self, operation: Operation) -> int:
        """Which lane an operation belongs to by its account."""
        return int(operation.account_id[:8], 16) % len(self._lanes)

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
