"""Short histories, written down line by line, for the checkers to look at."""

from __future__ import annotations

from typing import Any

from meterhold_server.prove.history import (
    Answer,
    Attempt,
    Book,
    Call,
    Entry,
    History,
    Hold,
    Method,
    Refusal,
    Told,
)

ALICE = "alice"


def told(
    at: tuple[float, float], answer: Answer | None = None, refusal: Refusal | None = None
) -> Attempt:
    """What came back of an attempt between two times; nothing, if neither is given."""
    what = Told.OK if answer else Told.REFUSED if refusal else Told.UNKNOWN
    return Attempt(at[0], at[1], what, answer, refusal)


def balance(
    seq: int, remaining: int, held: int = 0, *, micros: int = 0, entry: int = 0, **more: Any
) -> Answer:
    return Answer(seq, remaining, held, remaining - held, micros, entry, **more)


def call(name: str, method: Method, micros: int = 0, *attempts: Attempt, **more: Any) -> Call:
    """A call under a key of its own name."""
    made = Call(name, method, ALICE, micros, **({"key": name} | more))
    made.attempts = list(attempts)
    return made


def reserve(name: str, micros: int, *attempts: Attempt, **more: Any) -> Call:
    more = {"ttl_seconds": 100.0, "reservation_id": name, "key": ""} | more
    return call(name, Method.RESERVE, micros, *attempts, **more)


def entry(seq: int, kind: str, micros: int, after: int, of: str, **more: Any) -> Entry:
    fields: dict[str, Any] = {"create_time": float(seq), "call": of} | more
    return Entry(seq, kind, micros, after, **fields)


def held(name: str, state: str, reserved: int, **more: Any) -> Hold:
    fields: dict[str, Any] = {"captured_micros": 0, "held_micros": 0, "expire_time": 110.0}
    return Hold(name, state, reserved, **(fields | more))


def history(
    calls: list[Call], entries: list[Entry], holds: list[Hold] | None = None, held_micros: int = 0
) -> History:
    remaining = sum(each.micros for each in entries)
    available = remaining - held_micros
    book = Book(ALICE, entries, holds or [], remaining, held_micros, available)
    return History(calls, {ALICE: book}, clocks_agree=True)
