"""Callers that use every call of the clients, sync and async, and remember what each was told.

What a caller does depends on its seed and on what it is told. The same script serves both clients.
"""

from __future__ import annotations

import random
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import count, islice
from typing import Any, Final, Literal, TypeAlias

import meterhold
from meterhold import EntryKind, MeterholdError, OnExpiry, Overage, ReservationState

Told: TypeAlias = Literal["yes", "no", "unknown"]
"""What a caller knows: it was done, it was not and will not be, or nothing."""

HOT: Final = tuple(f"hot-{number}" for number in range(3))
"""Accounts that all callers share, and that never have quite enough."""
COLD: Final = tuple(f"cold-{number}" for number in range(150))
ACCOUNTS: Final = HOT + COLD
AMOUNT_MAX: Final = 1_000
SHORT_SECONDS: Final = 0.4
"""So little time that a call which meets a fault often ends before anybody knows what it did."""

_KEYS: Final = {
    "reserve": "reservation_id",
    "settle": "capture_id",
    "extend": "extend_id",
    "debit": "request_id",
    "debit_once": "idempotency_key",
    "grant_once": "idempotency_key",
}
_READS: Final = ("balance", "get_", "list_")


@dataclass(eq=False)
class Call:
    """One logical call. Sent again with the same key, it is the same call."""

    method: str
    account: str
    arguments: dict[str, Any] = field(default_factory=dict)
    repeats: Call | None = None
    """The call that this one is a deliberate repetition of."""
    told: Told = "unknown"
    answer: Any = None
    """What it returned, or the MeterholdError that it raised."""

    @property
    def reservation_id(self) -> str:
        return str(self.arguments.get("reservation_id", ""))

    @property
    def name(self) -> str:
        """What its requests carry, to find them again."""
        key = str(self.arguments.get(_KEYS.get(self.method, "")) or "")
        return key or self.reservation_id or self.account

    def keep_key(self, error: MeterholdError) -> None:
        """Remember a key that the client made up, to be able to send the call again."""
        field_name = _KEYS.get(self.method, "")
        if self.arguments.get(field_name) == "":
            self.arguments[field_name] = error.key


Script: TypeAlias = Generator[Call, None, None]


def make(client: meterhold.Client, call: Call, timeout_seconds: float | None = None) -> None:
    """Make a call, and write down what was told."""
    with _recording(call):
        answer = getattr(client, call.method)(
            call.account, timeout_seconds=timeout_seconds, **call.arguments
        )
        call.answer = [*answer] if isinstance(answer, Iterator) else answer


async def make_async(
    client: meterhold.AsyncClient, call: Call, timeout_seconds: float | None = None
) -> None:
    """The same with the async client."""
    with _recording(call):
        answer = getattr(client, call.method)(
            call.account, timeout_seconds=timeout_seconds, **call.arguments
        )
        listed = call.method.startswith("list_")
        call.answer = [item async for item in answer] if listed else await answer


@contextmanager
def _recording(call: Call) -> Iterator[None]:
    try:
        yield
    except MeterholdError as error:
        call.told = "no" if error.applied == "NO" else "unknown"
        call.answer = error
        call.keep_key(error)
    else:
        call.told = "yes"


def script(caller: str, seed: object, calls: int) -> Iterator[Call]:
    """What a caller does: so many calls. Each is to be made before the next is asked for."""
    return islice(_script(caller, random.Random(f"{seed} {caller}")), calls)


def _script(caller: str, chance: random.Random) -> Script:
    for number in count():
        account = chance.choice(HOT if chance.random() < 0.5 else COLD)
        key = f"{caller}-{number}."
        (kind,) = chance.choices(("grant", "debit", "read", "job"), (4, 4, 3, 5))
        match kind:
            case "grant":
                yield from _grant(account, key, chance)
            case "debit":
                yield from _debit(account, key, chance)
            case "read":
                yield from _read(account, chance)
            case _:
                yield from _job(account, key, chance)


def _grant(account: str, key: str, chance: random.Random) -> Script:
    amount = chance.randint(1, 3 * AMOUNT_MAX)
    yield from _keyed(Call("grant_once", account, _amount(amount, idempotency_key=key)), chance)


def _debit(account: str, key: str, chance: random.Random) -> Script:
    amount = chance.randint(1, 2 * AMOUNT_MAX)
    overage = chance.choice((None, None, None, Overage.REJECT, Overage.OVERDRAFT))
    if chance.random() < 0.5:
        call = Call("debit_once", account, _amount(amount, idempotency_key=key, overage=overage))
    else:
        given = chance.choice((key, ""))
        call = Call("debit", account, _amount(amount, request_id=given, overage=overage))
    yield from _keyed(call, chance)


def _keyed(call: Call, chance: random.Random) -> Script:
    """Make a call; then, at times, make it again, or misuse its key for another amount."""
    yield call
    if call.told != "yes" or not call.arguments[_KEYS[call.method]]:
        return
    again = chance.random()
    if again < 0.08:
        yield Call(call.method, call.account, {**call.arguments}, repeats=call)
    elif again < 0.12:
        other = call.arguments["amount_micros"] + 1
        yield Call(call.method, call.account, {**call.arguments, "amount_micros": other})


def _read(account: str, chance: random.Random) -> Script:
    balance = Call("balance", account, {"include_lots": chance.random() < 0.5})
    yield balance
    match chance.randrange(5):
        case 0 if balance.told == "yes" and balance.answer.ledger_seq:
            yield Call("get_entry", account, {"seq": chance.randint(1, balance.answer.ledger_seq)})
        case 1:
            yield Call("list_lots", account, {"include_spent": chance.random() < 0.2})
        case 2:
            yield Call("list_entries", account, {"kinds": [EntryKind.GRANT], "page_size": 1000})
        case 3:
            yield Call("list_reservations", account, {"states": [ReservationState.ACTIVE]})


def _job(account: str, reservation_id: str, chance: random.Random) -> Script:
    """A hold, what is done with it while the job runs, its end, and what comes after the end."""
    amount = chance.randint(1, AMOUNT_MAX)
    least = chance.choice((0, 0, 1))
    held = Call(
        "reserve",
        account,
        _amount(amount, reservation_id=reservation_id, min_amount_micros=least),
    )
    yield from _keyed(held, chance)
    if held.told == "no" and chance.random() < 0.9:
        return
    of_hold = {"reservation_id": reservation_id}
    for step in range(chance.randrange(4)):
        yield from _step(account, of_hold, f"{reservation_id}{step}", chance)
    end = chance.random()
    if end < 0.75:
        yield Call("settle", account, _amount(chance.randint(0, 2 * amount), **of_hold))
    elif end < 0.95:
        yield Call("release", account, of_hold)
    if chance.random() < 0.1:
        yield from _step(account, of_hold, f"{reservation_id}late", chance)
        yield Call("release", account, of_hold)


def _step(account: str, of_hold: dict[str, Any], key: str, chance: random.Random) -> Script:
    given = chance.choice((key, ""))
    amount = chance.randint(1, AMOUNT_MAX // 2)
    match chance.randrange(6):
        case 0:
            yield Call("get_reservation", account, of_hold)
        case 1:
            longer = chance.choice(({"on_expiry": OnExpiry.CHARGE}, {"ttl": timedelta(hours=1)}))
            yield Call("extend", account, {**of_hold, **longer})
        case 2:
            growth = {"add_amount_micros": amount, "extend_id": given}
            yield Call("extend", account, {**of_hold, **growth})
        case _:
            overage = chance.choice((None, Overage.REJECT, Overage.OVERDRAFT))
            part = {"capture_id": given, "keep_open": True, "overage": overage}
            yield from _keyed(Call("settle", account, _amount(amount, **of_hold, **part)), chance)


def _amount(amount_micros: int, **more: Any) -> dict[str, Any]:
    return {"amount_micros": amount_micros, **more}


def some_seconds(chance: random.Random) -> float | None:
    """How long a call may take: the client's default, or now and then very little."""
    return SHORT_SECONDS if chance.random() < 0.2 else None


def unknown(calls: Iterable[Call]) -> list[Call]:
    """The calls of which nobody knows whether they were done. Reads leave nothing to know."""
    reads = ("balance", "get_", "list_")
    return [call for call in calls if call.told == "unknown" and not call.method.startswith(reads)]
