"""A load of keyed operations that remembers every call and what it was told."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

import meterhold
from meterhold import EntryKind, MeterholdError, Overage, Rejected

Told: TypeAlias = Literal["ok", "refused", "not done", "unknown"]
"""What a caller knows: it was done, it was refused, it did not happen, or nothing."""

EntryName: TypeAlias = tuple[str, EntryKind, str, str]
"""What names an entry that a call made: account, kind, reservation and key."""

ACCOUNTS: Final = ("ann", "ben", "cleo", "dora")
AMOUNT_MAX: Final = 1_000


@dataclass(eq=False)
class Call:
    """One logical call: sent again with the same key, it is the same call."""

    send: Callable[[meterhold.AsyncClient], Awaitable[Any]]
    account: str
    kind: EntryKind | None
    """Of the entry that it makes, if it charges or grants anything; None for a hold."""
    reservation_id: str = ""
    key: str = ""
    told: Told = "unknown"
    answer: Any = None

    @property
    def name(self) -> EntryName | None:
        return (self.account, self.kind, self.reservation_id, self.key) if self.kind else None

    @property
    def micros(self) -> int:
        """The entry's amount, by the answer."""
        match self.answer:
            case meterhold.GrantResult() | meterhold.DebitResult():
                return self.answer.entry.amount_micros if self.answer.entry else 0
            case meterhold.SettleResult():
                return -self.answer.charged_micros
            case _:
                return 0


@dataclass
class Load:
    """Callers that go on until they are stopped, whatever happens to the server."""

    calls: list[Call] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    """What was neither an answer nor a refusal, by class and reason."""
    longest_seconds: float = 0.0
    """What the slowest call took, with all that the client did to get its answer."""
    _acknowledged: int = 0
    _progress: asyncio.Condition = field(default_factory=asyncio.Condition)
    _stopping: bool = False

    async def run(self, caller: int, client: meterhold.AsyncClient) -> None:
        """Be one caller: top up, pay, and do jobs, on the accounts that all callers share."""
        chance = random.Random(caller)
        number = 0
        while not self._stopping:
            number += 1
            account = chance.choice(ACCOUNTS)
            amount = chance.randint(1, AMOUNT_MAX)
            key = f"{caller}-{number}"
            match chance.randrange(4):
                case 0:
                    await self._make(client, grant(account, amount, key))
                case 1:
                    await self._make(client, debit(account, amount, key))
                case _:
                    await self._job(client, account, amount, key, chance)

    async def _job(
        self,
        client: meterhold.AsyncClient,
        account: str,
        amount: int,
        key: str,
        chance: random.Random,
    ) -> None:
        if not await self._make(client, hold(account, amount, key)):
            return
        for part in range(chance.randrange(3)):
            await self._make(client, capture(account, chance.randint(1, amount), key, f"p{part}"))
        await self._make(client, settle(account, chance.randint(1, amount), key))

    async def _make(self, client: meterhold.AsyncClient, call: Call) -> bool:
        self.calls.append(call)
        await self._send(client, call)
        return call.told == "ok"

    async def _send(self, client: meterhold.AsyncClient, call: Call) -> None:
        begun = time.monotonic()
        try:
            call.answer = await call.send(client)
        except Rejected as error:
            call.told = "refused"
            call.answer = error
        except MeterholdError as error:
            call.told = "not done" if error.applied == "NO" else "unknown"
            self.faults[f"{type(error).__name__} {error.reason}"] += 1
            # As a caller should: an outage is not made shorter by asking more often.
            await asyncio.sleep(error.retry_delay_seconds or 0.05)
        else:
            self.longest_seconds = max(self.longest_seconds, time.monotonic() - begun)
            call.told = "ok"
            self._acknowledged += 1
            async with self._progress:
                self._progress.notify_all()

    async def acknowledged(self, more: int) -> None:
        """Wait until so many more calls were acknowledged."""
        wanted = self._acknowledged + more
        async with self._progress:
            await self._progress.wait_for(lambda: self._acknowledged >= wanted)

    def stop(self) -> None:
        """Let each caller end after the call it is at."""
        self._stopping = True

    async def resolve(self, client: meterhold.AsyncClient) -> int:
        """Replay the keys of all that is unknown until each has an answer. Answers how many."""
        unknown = [call for call in self.calls if call.told == "unknown"]
        for call in unknown:
            while call.told in ("unknown", "not done"):
                await self._send(client, call)
        return len(unknown)

    def expected_entries(self) -> dict[EntryName, list[int]]:
        """What the ledger must say: an entry for each acknowledged charge or grant, no other."""
        done = [call for call in self.calls if call.told == "ok" and call.name and call.micros]
        return {call.name: [call.micros] for call in done if call.name}

    def expected_holds(self) -> set[tuple[str, str]]:
        return {
            (call.account, call.reservation_id)
            for call in self.calls
            if call.told == "ok" and call.kind is None
        }


def grant(account: str, amount: int, key: str) -> Call:
    return Call(
        lambda client: client.grant_once(account, 3 * amount, idempotency_key=key),
        account,
        EntryKind.GRANT,
        key=key,
    )


def debit(account: str, amount: int, key: str) -> Call:
    return Call(
        lambda client: client.debit_once(account, amount, idempotency_key=key),
        account,
        EntryKind.DEBIT,
        key=key,
    )


def hold(account: str, amount: int, reservation_id: str) -> Call:
    return Call(
        lambda client: client.reserve(account, amount, reservation_id=reservation_id),
        account,
        None,
        reservation_id,
    )


def capture(account: str, amount: int, reservation_id: str, capture_id: str) -> Call:
    return Call(
        lambda client: client.settle(
            account,
            amount,
            reservation_id=reservation_id,
            keep_open=True,
            capture_id=capture_id,
            overage=Overage.REJECT,
        ),
        account,
        EntryKind.CAPTURE,
        reservation_id,
        capture_id,
    )


def settle(account: str, amount: int, reservation_id: str) -> Call:
    return Call(
        lambda client: client.settle(account, amount, reservation_id=reservation_id),
        account,
        EntryKind.CAPTURE,
        reservation_id,
    )
