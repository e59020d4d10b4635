"""Callers that do nothing wrong, while others do: each of their answers is held against a sum."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final, TypeVar

import meterhold
from meterhold import Balance, MeterholdError

UNIT: Final = "honest"
"""Nobody else counts in it, so that each caller knows what its account has."""

_CALLERS: Final = 3
_PAUSE_SECONDS: Final = 0.005
"""After each call, so that they do not take all that there is."""

_GRANTED_MICROS: Final = 1_000_000_000
_R = TypeVar("_R")


@dataclass
class Honest:
    """What honest callers were told."""

    accounts: list[str]
    """One for each of them."""
    calls: int = 0
    seconds: list[float] = field(default_factory=list)
    """How long each call took, since `seconds` was last emptied."""
    resent: int = 0
    """How many charges the client had to send again, as their answers were lost on the way."""
    problems: list[str] = field(default_factory=list)
    """What was wrong with an answer, or that there was none."""
    _stopping: bool = False

    def p99_milliseconds(self) -> float:
        """Of the calls since this was last asked; 0 if there were none."""
        taken, self.seconds = sorted(self.seconds), []
        return taken[len(taken) * 99 // 100] * 1000 if taken else 0.0

    def stop(self) -> None:
        """Let each caller end with the round it is at."""
        self._stopping = True

    async def run(self, account: str, client: meterhold.AsyncClient) -> None:
        """Be one of the callers."""
        caller = _Caller(self, client, account)
        try:
            await caller.begin()
            while not self._stopping:
                await caller.go_on()
        except MeterholdError as error:
            self.problems.append(f"{caller.account}: {error!r}")
        except AssertionError as wrong:
            self.problems.append(f"{caller.account}: {wrong}")


@asynccontextmanager
async def honest_callers(
    address: str, name: str, api_key: str | None = None
) -> AsyncIterator[Honest]:
    """Have honest callers beside what is done within. They must be right to the end."""
    honest = Honest([f"{name}-{number}" for number in range(_CALLERS)])
    async with meterhold.AsyncClient(address, api_key=api_key) as client:
        callers = [asyncio.create_task(honest.run(each, client)) for each in honest.accounts]
        try:
            yield honest
        finally:
            honest.stop()
            await asyncio.gather(*callers)


class _Caller:
    """Does jobs on an account of its own, and knows what must be left in it."""

    def __init__(self, honest: Honest, client: meterhold.AsyncClient, account: str) -> None:
        self._honest = honest
        self._client = client
        self.account = account
        self._spent = 0
        self._round = 0

    async def begin(self) -> None:
        granted = await self._timed(
            self._client.grant_once(
                self.account, _GRANTED_MICROS, idempotency_key=self.account, unit=UNIT
            )
        )
        self._check(granted.balance, held=0)

    async def go_on(self) -> None:
        """A job from its hold to its end, and a charge that is asked for twice."""
        self._round += 1
        name, amount = f"{self.account}-{self._round}", self._round % 97 + 2
        client, account = self._client, self.account
        reserved = await self._timed(
            client.reserve(account, 2 * amount, reservation_id=name, unit=UNIT)
        )
        _expect(reserved.held_micros, 2 * amount, "held")
        self._check(reserved.balance, held=2 * amount)

        settled = await self._timed(client.settle(account, amount, reservation_id=name, unit=UNIT))
        self._spent += amount
        _expect(settled.charged_micros, amount, "charged")
        self._honest.resent += settled.replayed
        self._check(settled.balance, held=0)

        self._spent += 1
        seqs = []
        for again in (False, True):
            charged = await self._timed(
                client.debit_once(account, 1, idempotency_key=name, unit=UNIT)
            )
            if again:
                _expect(charged.replayed, True, "replayed")
            else:
                self._honest.resent += charged.replayed
            self._check(charged.balance, held=0)
            seqs.append(charged.entry.seq)
        _expect(seqs[1], seqs[0], "the entry of a replay")
        self._check((await self._timed(client.balance(account, unit=UNIT))), held=0)

    async def _timed(self, call: Awaitable[_R]) -> _R:
        started = time.perf_counter()
        answer = await call
        self._honest.seconds.append(time.perf_counter() - started)
        self._honest.calls += 1
        await asyncio.sleep(_PAUSE_SECONDS)
        return answer

    def _check(self, balance: Balance, *, held: int) -> None:
        _expect(balance.spent_micros, self._spent, "spent")
        _expect(balance.held_micros, held, "held")
        _expect(balance.available_micros, _GRANTED_MICROS - self._spent - held, "available")


def _expect(found: int, expected: int, what: str) -> None:
    assert found == expected, f"{what}: {found}, {expected} was expected"
