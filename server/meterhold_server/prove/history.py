"""What callers asked, when, what they were told, and what the ledger says in the end.

Times are seconds. Those of attempts are of one observer's clock that never goes back; those of
entries and holds are the database's. Amounts are micros.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from math import inf
from typing import NamedTuple


class Method(StrEnum):
    """What a call asks for. CAPTURE is a settle that keeps the hold open."""

    GRANT = "grant"
    DEBIT = "debit"
    RESERVE = "reserve"
    CAPTURE = "capture"
    SETTLE = "settle"
    RELEASE = "release"
    EXTEND = "extend"
    REFUND = "refund"
    BALANCE = "balance"


class Overage(StrEnum):
    """What happens to a charge that the balance does not cover."""

    CAP = "CAP"
    OVERDRAFT = "OVERDRAFT"
    REJECT = "REJECT"


class Told(StrEnum):
    """What the observer knows after an attempt."""

    OK = "ok"
    REFUSED = "refused"
    """Nothing happened, and it says why the account would not have it."""
    NOT_DONE = "not done"
    """Nothing happened, and nothing will."""
    UNKNOWN = "unknown"
    BROKEN = "broken"
    """An answer that a sound service never gives."""


class Answer(NamedTuple):
    """What an attempt that was done was told.

    `micros` is what was granted, charged, held, released or refunded, by the method.
    `entry_seq` is of the entry it made, 0 if none. `expire_time` is that of the hold.
    """

    ledger_seq: int
    remaining_micros: int
    held_micros: int
    available_micros: int
    micros: int = 0
    entry_seq: int = 0
    shortfall_micros: int = 0
    expire_time: float = inf
    changed: bool = True
    late: bool = False
    replayed: bool = False


class Refusal(NamedTuple):
    """`reason` as on the wire; the amounts are of INSUFFICIENT_CREDITS alone."""

    reason: str
    available_micros: int = 0
    required_micros: int = 0
    original: str = ""


@dataclass(slots=True)
class Attempt:
    """One sending of a call. `return_time` is infinite if nothing came back."""

    call_time: float
    return_time: float = inf
    told: Told = Told.UNKNOWN
    answer: Answer | None = None
    refusal: Refusal | None = None
    text: str = ""


@dataclass(slots=True, eq=False)
class Call:
    """One thing that is asked for, in as many attempts as it takes, all under one `key`.

    `name` is in the labels of all that it makes. `chain` is the name of a chain it is part of,
    which is done as a whole or not at all.
    `related_seq` is the entry that a refund is of; `min_micros` what a hold asks for at least.
    """

    name: str
    method: Method
    account: str
    micros: int = 0
    key: str = ""
    once: bool = False
    """Of a debit: whether its key is one of the namespace, not of the account."""
    reservation_id: str = ""
    overage: Overage = Overage.REJECT
    min_micros: int = 0
    ttl_seconds: float = inf
    charge_on_expiry: bool = False
    related_seq: int = 0
    chain: str = ""
    misuse: bool = False
    """Whether its key was used for another request before, so that it must be refused."""
    attempts: list[Attempt] = field(default_factory=list)

    @property
    def call_time(self) -> float:
        """When it was first sent."""
        return min((attempt.call_time for attempt in self.attempts), default=inf)

    @property
    def done_time(self) -> float:
        """When it was first known to be done; infinite if it never was."""
        return min((a.return_time for a in self.attempts if a.told is Told.OK), default=inf)

    @property
    def answers(self) -> list[Answer]:
        return [attempt.answer for attempt in self.attempts if attempt.answer is not None]

    @property
    def certain_not_done(self) -> bool:
        """Whether each of its attempts came back with nothing done."""
        return all(a.told in (Told.REFUSED, Told.NOT_DONE) for a in self.attempts)


class Entry(NamedTuple):
    """One row of the ledger. `call` is the name in its labels, empty if it has none."""

    seq: int
    kind: str
    micros: int
    remaining_after_micros: int
    create_time: float
    reservation_id: str = ""
    key: str = ""
    call: str = ""
    related_seq: int = 0


class Hold(NamedTuple):
    """A reservation as it stands in the end. `end_time` is infinite while it is active."""

    reservation_id: str
    state: str
    reserved_micros: int
    captured_micros: int
    held_micros: int
    expire_time: float
    end_time: float = inf


@dataclass(slots=True)
class Book:
    """All that the service says of an account in the end, and the credit limit it always had."""

    account: str
    entries: list[Entry]
    holds: list[Hold]
    remaining_micros: int
    held_micros: int
    available_micros: int
    credit_limit_micros: int = 0
    holds_use_credit: bool = False


@dataclass(slots=True)
class History:
    """`clocks_agree`: the observer's clock is the database's."""

    calls: list[Call] = field(default_factory=list)
    books: dict[str, Book] = field(default_factory=dict)
    clocks_agree: bool = False

    def calls_of(self, account: str) -> Iterator[Call]:
        return (call for call in self.calls if call.account == account)


class Violation(NamedTuple):
    """What a checker found, and of which account and call."""

    rule: str
    account: str
    call: str
    what: str

    def __str__(self) -> str:
        call = f", call {self.call}" if self.call else ""
        return f"{self.rule}: account {self.account!r}{call}: {self.what}"
