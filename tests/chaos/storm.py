"""Keys that are sent again and again, to all servers: one effect each, and equal answers."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator, Sequence
from typing import Final

import meterhold
from chaos.deployment import deployed
from chaos.plan import Fault, spread
from chaos.quiet import settled
from chaos.strikes import Strikes
from chaos.tally import Tally
from meterhold_server.prove.history import Call, Method, Told
from meterhold_server.prove.target import Recording, ask
from robustness.database_apart import DatabaseApart

_FAULTS: Final = (
    Fault.SERVER_KILLED,
    Fault.COMMIT_CUT_AFTER,
    Fault.BACKEND_KILLED,
    Fault.SERVER_KILLED,
    Fault.COMMIT_CUT_DURING,
)
_CALLERS: Final = 512
_TIMEOUT_SECONDS: Final = 3.0
_ATTEMPT_TIMEOUT_SECONDS: Final = 1.5
_MICROS_MAX: Final = 1000
_ACCOUNTS_PER_KEY: Final = 1 / 40
_PAUSE_SECONDS_MAX: Final = 0.2


class Storm(Recording):
    """Each of so many keys, in an order that a seed shuffles, as often as there are `copies`."""

    def __init__(
        self, clients: Sequence[meterhold.AsyncClient], *, seed: int, keys: int, copies: int
    ) -> None:
        accounts = max(1, round(keys * _ACCOUNTS_PER_KEY))
        super().__init__(clients, seed=seed, accounts=accounts)
        self.answered = 0
        """How many copies have a certain answer."""
        self._keys = keys
        self._copies = copies

    async def work(self, callers: int) -> None:
        """Fill the accounts, so that nothing is refused, and then send all copies."""
        for account in self.accounts:
            gift = Call(f"gift-{account}", Method.GRANT, account, 10**9, f"gift-{account}")
            self.calls.append(gift)
            await self._send(gift)
        keyed = [self._keyed(number) for number in range(self._keys)]
        self.calls += keyed
        copies = keyed * self._copies
        self._chance.shuffle(copies)
        waiting = iter(copies)
        async with asyncio.TaskGroup() as tasks:
            for _ in range(callers):
                tasks.create_task(self._sender(waiting))

    def _keyed(self, number: int) -> Call:
        """A grant, a debit whose key is one of the namespace, or one whose key is the account's."""
        chance = self._chance
        method = chance.choice([Method.GRANT, Method.DEBIT, Method.DEBIT])
        name = f"{self.name}-key-{number}"
        once = method is Method.DEBIT and chance.random() < 0.5
        micros = chance.randint(1, _MICROS_MAX)
        return Call(name, method, chance.choice(self.accounts), micros, name, once=once)

    async def _sender(self, waiting: Iterator[Call]) -> None:
        for call in waiting:
            await self._send(call)
            self.answered += 1

    async def _send(self, call: Call) -> None:
        """Until there is a certain answer, each time by another way."""
        while True:
            await ask(self._chance.choice(self.clients), call)
            if call.attempts[-1].told not in (Told.UNKNOWN, Told.NOT_DONE):
                return
            await asyncio.sleep(self._chance.uniform(0.0, _PAUSE_SECONDS_MAX))


async def storm(database: DatabaseApart, seed: int, keys: int, copies: int) -> Tally:
    """Send them while servers, sessions and lines break, and count the effects."""
    async with deployed(database, [{}, {}]) as deployment:
        async with deployment.clients(_TIMEOUT_SECONDS, _ATTEMPT_TIMEOUT_SECONDS) as clients:
            recording = Storm(clients, seed=seed, keys=keys, copies=copies)
            strikes = Strikes(deployment, recording.name)
            planned = spread(_FAULTS, keys * copies, random.Random(f"storm {seed}"))
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(recording.work(_CALLERS))
                tasks.create_task(strikes.all(planned, lambda: recording.answered))
        tally, books = await settled(deployment, recording, seed)
    tally.struck(strikes)
    tally.keys, tally.copies = keys, recording.answered
    tally.effects = sum(len(book.entries) for book in books) - len(recording.accounts)
    if tally.effects != keys:
        tally.violations.append(f"seed {seed}: {keys} keys had {tally.effects} effects")
    return tally
