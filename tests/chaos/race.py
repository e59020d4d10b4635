"""Holds that settlers and sweepers race for at the very time of their expiry: each ends once."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

import meterhold
from chaos.deployment import deployed
from chaos.plan import Fault, spread
from chaos.quiet import settled
from chaos.strikes import Strikes
from chaos.tally import Tally
from meterhold_server.prove.history import Call, Method, Overage, Told
from meterhold_server.prove.target import Recording, ask
from robustness.database_apart import DatabaseApart

SETTLERS: Final = 4
"""Clients that end holds, on connections of their own."""

_HOLDS_PER_ACCOUNT: Final = 100
_MICROS_MAX: Final = 1000
_TTL_SECONDS: Final = (0.3, 1.2)
_AROUND_EXPIRY_SECONDS: Final = (-0.3, 0.1)
_CALLERS: Final = 800
_TIMEOUT_SECONDS: Final = 5.0
_ATTEMPT_TIMEOUT_SECONDS: Final = 2.0
_PAUSE_SECONDS: Final = 0.05
_SWEEPING: Final[dict[str, object]] = {"sweep_interval_seconds": 0.05}


class Race(Recording):
    """So many holds. Some are left to the sweepers, for some two settlers race as well."""

    def __init__(self, clients: Sequence[meterhold.AsyncClient], *, seed: int, holds: int) -> None:
        accounts = -(-holds // _HOLDS_PER_ACCOUNT)
        super().__init__(clients, seed=seed, accounts=accounts)
        self._holds = holds

    async def work(self, callers: int) -> None:
        """Fill the accounts, and then open and end all holds."""
        await asyncio.gather(*(self._fill(account) for account in self.accounts))
        waiting = iter(range(self._holds))
        async with asyncio.TaskGroup() as tasks:
            for _ in range(callers):
                tasks.create_task(self._caller_of(waiting))

    async def _fill(self, account: str) -> None:
        gift = f"gift-{account}"
        await self._until_certain(0, Call(gift, Method.GRANT, account, 10**9, gift))

    async def _caller_of(self, waiting: Iterator[int]) -> None:
        for number in waiting:
            account = self.accounts[number % len(self.accounts)]
            await self._race(account, f"{self.name}-hold-{number}")

    async def _race(self, account: str, name: str) -> None:
        chance = self._chance
        micros = chance.randint(1, _MICROS_MAX)
        hold = Call(f"{name}-open", Method.RESERVE, account, micros, reservation_id=name)
        hold.ttl_seconds = round(chance.uniform(*_TTL_SECONDS), 6)
        hold.charge_on_expiry = chance.random() < 0.5
        await self._until_certain(chance.randrange(SETTLERS), hold)
        settlers = chance.sample(range(SETTLERS), chance.choice([0, 1, 1, 2]))
        expire_time = hold.answers[0].expire_time
        async with asyncio.TaskGroup() as racers:
            for settler in settlers:
                end = Call(f"{name}-end-{settler}", Method.SETTLE, account, reservation_id=name)
                end.overage = Overage.CAP
                if chance.random() < 0.4:
                    end.method = Method.RELEASE
                else:
                    end.micros = chance.randint(0, micros)
                at = expire_time + chance.uniform(*_AROUND_EXPIRY_SECONDS)
                racers.create_task(self._end(settler, end, at))

    async def _end(self, settler: int, end: Call, at: float) -> None:
        await asyncio.sleep(at - time.time())
        await self._until_certain(settler, end)

    async def _until_certain(self, settler: int, call: Call) -> None:
        self.calls.append(call)
        while True:
            await ask(self.clients[settler], call)
            if call.attempts[-1].told not in (Told.UNKNOWN, Told.NOT_DONE):
                return
            await asyncio.sleep(_PAUSE_SECONDS)


async def race(database: DatabaseApart, seed: int, holds: int) -> Tally:
    """Two servers that sweep, with clocks an hour off to either side, which jump meanwhile."""
    async with deployed(database, [_SWEEPING, _SWEEPING]) as deployment:
        async with deployment.clients(
            _TIMEOUT_SECONDS, _ATTEMPT_TIMEOUT_SECONDS, spread=SETTLERS
        ) as clients:
            recording = Race(clients[-SETTLERS:], seed=seed, holds=holds)
            strikes = Strikes(deployment, recording.name)
            planned = spread([Fault.CLOCK_JUMPED] * 4, holds, random.Random(f"race {seed}"))
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(recording.work(_CALLERS))
                tasks.create_task(strikes.all(planned, lambda: len(recording.calls)))
        tally, books = await settled(deployment, recording, seed)
    tally.struck(strikes)
    tally.holds = holds
    tally.ends = Counter(hold.state for book in books for hold in book.holds)
    tally.late = len({call.reservation_id for call in recording.calls if _was_late(call)})
    if tally.ends.total() != holds or tally.ends["ACTIVE"]:
        tally.violations.append(f"seed {seed}: {holds} holds ended as {dict(tally.ends)}")
    return tally


def _was_late(call: Call) -> bool:
    return any(answer.late for answer in call.answers)
