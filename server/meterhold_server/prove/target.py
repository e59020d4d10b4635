"""A load on a running service, and the history of it as its callers saw it."""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from itertools import cycle
from math import inf
from typing import Any, Final

import meterhold
from meterhold_server.prove.history import (
    Answer,
    Attempt,
    Book,
    Call,
    Entry,
    History,
    Hold,
    Method,
    Overage,
    Refusal,
    Told,
    Violation,
)
from meterhold_server.prove.load import Load

_UNCERTAIN: Final = (Told.UNKNOWN, Told.NOT_DONE)
_ATTEMPTS_MAX: Final = 3
_RESOLVE_SECONDS_MAX: Final = 60.0
_EXPIRE_SECONDS_MAX: Final = 30.0
"""In which the last holds of the load end, of which none lives for more than 5 s."""

_POLL_SECONDS: Final = 0.25
_RESOLVERS: Final = 48
"""Callers that ask for what is uncertain: not all at once, as of a service that just came back."""

_IMPATIENT_SECONDS_MAX: Final = 0.05
CANCELLED: Final = "cancelled by its caller"
"""What an attempt says that nobody waited for."""


class Recording:
    """One run: `work`, then `resolve`, then `history`, which may be told wrong.

    Its accounts, keys and reservations have names that no other run has.
    """

    def __init__(
        self,
        clients: Sequence[meterhold.AsyncClient],
        *,
        seed: int,
        accounts: int,
        operations: int | None = None,
        impatience: float = 0.0,
    ) -> None:
        """`operations` is about how many calls to make; without it they go on until `stop`.

        The callers share `clients`. Others, with more patience, may take the place of these after
        `work`. `impatience` is the share of calls that their callers cancel, and then make again.
        """
        self.name = f"prove-{secrets.token_hex(4)}"
        self.calls: list[Call] = []
        self.unresolved: list[Violation] = []
        self.accounts = [f"{self.name}-{number}" for number in range(accounts)]
        self.clients = clients
        self._chance = random.Random(seed)
        self._load = Load(self._chance, self.accounts, prefix=f"{self.name}-")
        self._operations = operations
        self._impatience = impatience

    async def work(self, callers: int) -> None:
        """Make the calls, from so many callers at once."""
        async with asyncio.TaskGroup() as tasks:
            for number in range(callers):
                tasks.create_task(self._caller(self.clients[number % len(self.clients)]))

    def stop(self) -> None:
        """Let each caller end after the calls it is at."""
        self._operations = 0

    async def _caller(self, client: meterhold.AsyncClient) -> None:
        while self._operations is None or len(self.calls) < self._operations:
            calls = self._load.next()
            self.calls += calls
            await asyncio.gather(*(self._make(client, call) for call in calls))
            self._load.learn(calls)

    async def _make(self, client: meterhold.AsyncClient, call: Call) -> None:
        """Ask until there is an answer, a few times; sometimes twice at once, or once too often."""
        keyed = _may_repeat(call)
        doubled = keyed and self._chance.random() < 0.1
        patience = None
        if self._impatience and self._chance.random() < self._impatience:
            patience = self._chance.uniform(0.0, _IMPATIENT_SECONDS_MAX)
        await asyncio.gather(*(ask(client, call, patience) for _ in range(2 if doubled else 1)))
        for _ in range(_ATTEMPTS_MAX):
            if not keyed or call.attempts[-1].told not in _UNCERTAIN:
                break
            await asyncio.sleep(self._chance.uniform(0.05, 0.2))
            await ask(client, call)
        if keyed and self._chance.random() < 0.05:
            await ask(client, call)

    async def resolve(self) -> int:
        """Ask for all that is uncertain until it is certain. Answers how many calls were."""
        give_up = time.monotonic() + _RESOLVE_SECONDS_MAX
        uncertain = [call for call in self.calls if _may_repeat(call) and not _is_certain(call)]
        waiting = iter(uncertain)
        async with asyncio.TaskGroup() as tasks:
            for number in range(_RESOLVERS):
                client = self.clients[number % len(self.clients)]
                tasks.create_task(self._resolve(client, waiting, give_up))
        return len(uncertain)

    async def _resolve(
        self, client: meterhold.AsyncClient, waiting: Iterator[Call], give_up: float
    ) -> None:
        for call in waiting:
            await ask(client, call)
            while call.attempts[-1].told in _UNCERTAIN and time.monotonic() < give_up:
                await asyncio.sleep(_POLL_SECONDS)
                await ask(client, call)
            if call.attempts[-1].told in _UNCERTAIN:
                told = call.attempts[-1].text
                wrong = Violation("liveness", call.account, call.name, f"stayed unknown: {told}")
                self.unresolved.append(wrong)

    async def history(self) -> History:
        """All that was told, and all that the service says of the accounts now."""
        readers = zip(self.accounts, cycle(self.clients), strict=False)
        books = await asyncio.gather(*(self._book(*reader) for reader in readers))
        return History(self.calls, {book.account: book for book in books})

    async def _book(self, account: str, client: meterhold.AsyncClient) -> Book:
        """An account once all of its holds have ended, read while nothing changes it."""
        give_up = time.monotonic() + _EXPIRE_SECONDS_MAX
        while True:
            before = await client.balance(account)
            if before.held_micros and time.monotonic() < give_up:
                await asyncio.sleep(_POLL_SECONDS)
                continue
            holds = [_hold(each) async for each in client.list_reservations(account)]
            entries = [_entry(each) async for each in client.list_entries(account)]
            after = await client.balance(account)
            # A hold that is released by its time makes no entry.
            at_rest = before == after and after.held_micros == 0
            if at_rest or time.monotonic() > give_up:
                break
            await asyncio.sleep(_POLL_SECONDS)
        if after.held_micros:
            what = f"{after.held_micros} are held by holds that should have expired"
            self.unresolved.append(Violation("liveness", account, "", what))
        return Book(
            account,
            sorted(entries),
            holds,
            after.remaining_micros,
            after.held_micros,
            after.available_micros,
        )


def _may_repeat(call: Call) -> bool:
    """Whether asking twice does it once."""
    return bool(call.key) or call.method is not Method.DEBIT


def _is_certain(call: Call) -> bool:
    return call.done_time < inf or call.certain_not_done


async def ask(
    client: meterhold.AsyncClient, call: Call, patience_seconds: float | None = None
) -> None:
    """One attempt, timed outside of the client. Its caller may lose patience, and cancel it."""
    attempt = Attempt(time.monotonic())
    call.attempts.append(attempt)
    try:
        async with asyncio.timeout(patience_seconds):
            answer = _answer(await _send(client, call))
    except TimeoutError:
        attempt.text = CANCELLED
    except meterhold.Rejected as error:
        attempt.told, attempt.refusal = Told.REFUSED, _refusal(error)
    except meterhold.ServerError as error:
        attempt.told, attempt.text = Told.BROKEN, repr(error)
    except meterhold.MeterholdError as error:
        attempt.told = Told.NOT_DONE if error.applied == "NO" else Told.UNKNOWN
        attempt.text = f"{error.code} {error!r}"
    else:
        attempt.told, attempt.answer = Told.OK, answer
    attempt.return_time = inf if attempt.told is Told.UNKNOWN else time.monotonic()


async def _send(client: meterhold.AsyncClient, call: Call) -> Any:
    labels, ttl = {"call": call.name}, _span(call.ttl_seconds)
    overage = meterhold.Overage[call.overage]
    match call.method:
        case Method.GRANT:
            return await client.grant_once(
                call.account, call.micros, idempotency_key=call.key, labels=labels
            )
        case Method.DEBIT if call.once:
            return await client.debit_once(
                call.account, call.micros, idempotency_key=call.key, overage=overage, labels=labels
            )
        case Method.DEBIT:
            return await client.debit(
                call.account,
                call.micros,
                request_id=call.key or None,
                overage=overage,
                labels=labels,
            )
        case Method.RESERVE:
            charge = call.charge_on_expiry
            return await client.reserve(
                call.account,
                call.micros,
                reservation_id=call.reservation_id,
                ttl=ttl,
                min_amount_micros=call.min_micros,
                on_expiry=meterhold.OnExpiry.CHARGE if charge else meterhold.OnExpiry.RELEASE,
                labels=labels,
            )
        case Method.REFUND:
            return await client.refund_charge(
                call.account,
                idempotency_key=call.key,
                entry_seq=call.related_seq,
                amount_micros=call.micros,
                labels=labels,
            )
        case Method.BALANCE:
            return await client.balance(call.account)
        case _:
            return await _send_of_hold(client, call, ttl, overage)


async def _send_of_hold(
    client: meterhold.AsyncClient, call: Call, ttl: timedelta | None, overage: meterhold.Overage
) -> Any:
    if call.method is Method.RELEASE:
        return await client.release(call.account, reservation_id=call.reservation_id)
    if call.method is Method.EXTEND:
        return await client.extend(
            call.account,
            reservation_id=call.reservation_id,
            ttl=ttl,
            add_amount_micros=call.micros,
            extend_id=call.key,
        )
    return await client.settle(
        call.account,
        call.micros,
        reservation_id=call.reservation_id,
        keep_open=call.method is Method.CAPTURE,
        capture_id=call.key if call.method is Method.CAPTURE else "",
        overage=None if call.overage is Overage.CAP else overage,
        labels={"call": call.name},
    )


def _span(seconds: float) -> timedelta | None:
    return None if seconds == inf else timedelta(seconds=seconds)


def _answer(result: Any) -> Answer:
    balance = result if isinstance(result, meterhold.Balance) else result.balance
    answer = Answer(
        balance.ledger_seq,
        balance.remaining_micros,
        balance.held_micros,
        balance.available_micros,
        replayed=getattr(result, "replayed", False),
    )
    match result:
        case meterhold.GrantResult() | meterhold.DebitResult():
            entry = result.entry
            assert entry is not None, "no grant of the load is pending"
            return answer._replace(micros=abs(entry.amount_micros), entry_seq=entry.seq)
        case meterhold.RefundResult():
            return answer._replace(micros=result.refunded_micros, entry_seq=result.entry.seq)
        case meterhold.SettleResult():
            return answer._replace(
                micros=result.charged_micros,
                entry_seq=result.entry_seq,
                shortfall_micros=result.shortfall_micros,
                late=result.late,
            )
        case meterhold.ReserveResult() | meterhold.ExtendResult():
            return answer._replace(
                micros=result.held_micros, expire_time=_seconds(result.expire_time)
            )
        case meterhold.ReleaseResult():
            return answer._replace(changed=result.changed)
        case _:
            return answer


def _refusal(error: meterhold.Rejected) -> Refusal:
    if isinstance(error, meterhold.InsufficientCredits):
        return Refusal(error.reason, error.available_micros, error.required_micros)
    return Refusal(error.reason)


def _entry(entry: meterhold.Entry) -> Entry:
    return Entry(
        entry.seq,
        entry.kind.name,
        entry.amount_micros,
        entry.remaining_after_micros,
        _seconds(entry.create_time),
        entry.reservation_id,
        entry.key,
        entry.labels.get("call", ""),
        entry.related_seq,
    )


def _hold(held: meterhold.Reservation) -> Hold:
    active = held.state is meterhold.ReservationState.ACTIVE
    return Hold(
        held.reservation_id,
        held.state.name,
        held.reserved_micros,
        held.captured_micros,
        held.held_micros if active else 0,
        _seconds(held.expire_time),
        _seconds(held.end_time) if held.end_time else inf,
    )


def _seconds(of: datetime) -> float:
    return of.timestamp()
