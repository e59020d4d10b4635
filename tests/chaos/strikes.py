"""Faults that strike when their time has come: each heals by itself, or is ended at the end."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

from chaos.database_faults import DatabaseFaults
from chaos.deployment import Deployment
from chaos.hit import Hits
from chaos.line_faults import LineFaults
from chaos.plan import Fault, Strike
from chaos.server_faults import ServerFaults
from support.waiting import until

PROGRESS_SECONDS_MAX: Final = 120.0
"""In which the next strike comes: calls go on through all of them."""

_TRIES_MAX: Final = 6
"""Of a fault that takes others to do their part, such as a lane that commits in time."""

_SECONDS_BETWEEN_TRIES: Final = 0.5


class Strikes:
    """Does what a plan says. `counts` is of what was done; a strike that missed is in `missed`."""

    def __init__(self, deployment: Deployment, accounts: str) -> None:
        """`accounts` is what the names of the accounts of the load begin with."""
        self.counts: Counter[Fault] = Counter()
        self.missed: Counter[Fault] = Counter()
        self._hits: Hits = {
            **ServerFaults(deployment.servers).hits,
            **LineFaults(deployment.servers).hits,
            **DatabaseFaults(deployment, accounts).hits,
        }

    async def all(self, strikes: Sequence[Strike], calls_made: Callable[[], int]) -> None:
        """Each in its time, over each other as they last. Returns when all is healed."""
        async with asyncio.TaskGroup() as tasks:
            for strike in strikes:
                await until(
                    lambda wanted=strike.after_calls: calls_made() >= wanted,  # type: ignore[misc]
                    seconds=PROGRESS_SECONDS_MAX,
                )
                tasks.create_task(self._strike(strike))

    async def _strike(self, strike: Strike) -> None:
        for _ in range(_TRIES_MAX):
            if await self._hits[strike.fault](strike.chance):
                self.counts[strike.fault] += 1
                return
            await asyncio.sleep(_SECONDS_BETWEEN_TRIES)
        self.missed[strike.fault] += 1
