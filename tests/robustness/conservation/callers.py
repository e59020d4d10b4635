"""Callers of two servers: each asks one thing at a time, and remembers what it was told."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from meterhold_server.batching.engine import Engine
from meterhold_server.core.model import AccountKey
from meterhold_server.core.operations import (
    Configure,
    ConfigureDefaults,
    GrantOnce,
    Operation,
    ReinstateGrant,
    RevokeGrant,
)
from meterhold_server.core.outcomes import Elsewhere, Outcome, Revoked
from robustness.conservation.chances import Chances
from robustness.conservation.names import Names, is_keyed

NAMESPACE: Final = "live"
SHARED_UNIT: Final = "credits"
HOT_CHANCE: Final = 0.3
STRAYS_CHANCE: Final = 0.2
WALKS_AWAY_CHANCE: Final = 0.01
"""How often a caller does not wait for an answer, but asks again at another server."""


@dataclass
class Load:
    """All calls that are made, and what was told."""

    engines: Sequence[Engine]
    operations: int
    told: dict[int, tuple[Operation, Outcome]] = field(default_factory=dict)
    """Each operation and its outcome, by the operation's `id`: none is ever sent twice."""
    unknown: list[Operation] = field(default_factory=list)
    """Operations that their callers walked away from."""
    resolved: int = 0
    asked: int = 0
    _progress: asyncio.Condition = field(default_factory=asyncio.Condition)

    @property
    def progress(self) -> float:
        """From 0 to 1."""
        return self.asked / self.operations

    async def more(self, operations: int) -> None:
        """Wait until so many more were asked."""
        wanted = self.asked + operations
        async with self._progress:
            await self._progress.wait_for(lambda: self.asked >= wanted)

    async def count(self) -> None:
        self.asked += 1
        async with self._progress:
            self._progress.notify_all()

    def _engine(self, account_id: str, chance: random.Random) -> Engine:
        """Mostly the same for an account, as its callers keep their connections."""
        if chance.random() < STRAYS_CHANCE:
            return chance.choice(self.engines)
        return self.engines[int(account_id[:8], 16) % len(self.engines)]

    async def send(self, operation: Operation, chance: random.Random) -> Outcome:
        """Ask one of the servers. Raises Failure."""
        engine = self._engine(operation.account_id, chance)
        outcome = await engine.submit(operation)
        self.told[id(operation)] = operation, outcome
        return outcome

    async def resolve(self, operation: Operation, chance: random.Random) -> Outcome:
        """Walk away from an operation, then find out by its key what became of it."""
        future = self._engine(operation.account_id, chance).submit(operation)
        await asyncio.wait([future], timeout=chance.uniform(0.0, 0.03))
        if future.done():
            outcome = future.result()
            self.told[id(operation)] = operation, outcome
            return outcome
        future.cancel()
        self.unknown.append(operation)
        outcome = await self.send(replace(operation), chance)
        self.resolved += 1
        return outcome


@dataclass
class Caller:
    """Has some accounts for itself, and shares the hot ones with all others."""

    name: str
    load: Load
    own: Sequence[Names]
    hot: Sequence[Names]
    chance: random.Random

    async def run(self) -> None:
        chances = Chances(self.name, self.chance)
        while self.load.asked < self.load.operations:
            names = self._account()
            operation = chances.operation(names, self.chance.choice(self.own))
            if isinstance(operation, ConfigureDefaults) and names.hot:
                continue
            await self._ask(operation, names)

    def _account(self) -> Names:
        if self.chance.random() < HOT_CHANCE:
            return self.chance.choice(self.hot)
        # The accounts come one after the other, so that some are new at any time of the run.
        begun = 1 + int(self.load.progress * len(self.own))
        return self.chance.choice(self.own[:begun])

    async def _ask(self, operation: Operation, names: Names) -> None:
        await self.load.count()
        # Of an account that is not there yet, no row is locked: two at once have no order.
        if names.newest_seq and is_keyed(operation) and self.chance.random() < WALKS_AWAY_CHANCE:
            outcome = await self.load.resolve(operation, self.chance)
        else:
            outcome = await self.load.send(operation, self.chance)
        if isinstance(outcome, Elsewhere):
            assert isinstance(operation, RevokeGrant | ReinstateGrant)
            operation = replace(operation, account=outcome.account)
            outcome = await self.load.send(operation, self.chance)
        names.learn(operation, outcome)
        if isinstance(outcome, Revoked) and outcome.tombstone and outcome.balance.seq == 0:
            names.foretold.append(operation.grant_key)  # type: ignore[union-attr]


def accounts(hot: int, callers: int, each: int) -> tuple[list[Names], list[list[Names]]]:
    """The accounts that all share, and those of each caller, in a unit of its own."""
    shared = [Names(AccountKey(NAMESPACE, f"hot-{n}", SHARED_UNIT), True) for n in range(hot)]
    own = [
        [Names(AccountKey(NAMESPACE, f"cold-{n}-{m}", f"unit-{n}"), False) for m in range(each)]
        for n in range(callers)
    ]
    return shared, own


async def open_accounts(load: Load, hot: Iterable[Names]) -> None:
    """Let the shared accounts exist, so that their row is locked by all who use them."""
    chance = random.Random(0)
    for names in hot:
        await load.send(Configure(names.key, credit_limit_micros=0), chance)
        grant = GrantOnce(names.key, f"first-{names.key.account}", 50_000)
        names.learn(grant, await load.send(grant, chance))
