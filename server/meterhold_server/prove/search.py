"""The second check: look for an order of the calls that the rules could have taken.

It believes no ledger. It tries which call may have come next, again and again, by the plain rules
of `rules`, and remembers where it has been; an order that explains every answer is all it wants.
That is dear, and for short histories of accounts that share nothing with others.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import inf
from typing import Final, NamedTuple

from meterhold_server.prove.history import (
    Answer,
    Attempt,
    Book,
    Call,
    History,
    Method,
    Told,
    Violation,
)
from meterhold_server.prove.rules import Purse, Step, Terms, opened, step

STEPS_MAX: Final = 300_000
_TOLERANCE_SECONDS: Final = 0.000_002


class Undecided(Exception):
    """A history that is too long, or has too many calls at once, to be searched."""


class _Happening(NamedTuple):
    """Something that took place between two times, and what it must have come to.

    `at` is when exactly, if the answer tells. One that is `optional` may not have taken place.
    """

    call: Call
    begin: float
    end: float
    answer: Answer | None = None
    attempt: Attempt | None = None
    at: float | None = None
    optional: bool = False


def check(history: History, grace_seconds: float) -> list[Violation]:
    """Everything in a history that no order of its calls explains. Its clocks must agree.

    `grace_seconds` is how long after its end a hold may be settled. Raises Undecided.
    """
    assert history.clocks_agree, "the end of a hold is a time of the database"
    found: list[Violation] = []
    for account, book in history.books.items():
        calls = list(history.calls_of(account))
        terms = Terms(book.credit_limit_micros, book.holds_use_credit, grace_seconds)
        if not _Search(calls, book, terms).succeeds():
            what = f"no order of its {len(calls)} calls explains what was told"
            found.append(Violation("search", account, "", what))
    return found


class _Search:
    def __init__(self, calls: list[Call], book: Book, terms: Terms) -> None:
        self._book = book
        self._terms = terms
        charged = {entry.call for entry in book.entries}
        happenings = [each for call in calls for each in _happenings(call, call.name in charged)]
        self._happenings = sorted(happenings, key=lambda each: each.begin)
        self._been: set[tuple[int, float, Purse]] = set()

    def succeeds(self) -> bool:
        """Whether there is an order."""
        everything = (1 << len(self._happenings)) - 1
        path = [iter([(everything, -inf, opened(self._book))])]
        while path:
            place = next(path[-1], None)
            if place is None:
                path.pop()
                continue
            if place in self._been:
                continue
            self._been.add(place)
            if len(self._been) > STEPS_MAX:
                raise Undecided(f"more than {STEPS_MAX} steps for {self._book.account}")
            if self._is_end(place):
                return True
            path.append(self._next(place))
        return False

    def _is_end(self, place: tuple[int, float, Purse]) -> bool:
        left, _, purse = place
        if any(not happening.optional for happening in self._left(left)):
            return False
        end = purse
        while (at := end.next_expiry()) < inf:
            end = end.expired(at)
        book = self._book
        expected = (len(book.entries), book.remaining_micros, book.held_micros)
        return (end.seq, end.remaining_micros, end.held_micros) == expected

    def _left(self, left: int) -> Iterator[_Happening]:
        return (each for number, each in enumerate(self._happenings) if left >> number & 1)

    def _next(self, place: tuple[int, float, Purse]) -> Iterator[tuple[int, float, Purse]]:
        """Where one more happening, or the end of a hold, leads to."""
        left, time, purse = place
        first_end = min((each.end for each in self._left(left) if not each.optional), default=inf)
        expiry = purse.next_expiry()
        for number, happening in enumerate(self._happenings):
            if not left >> number & 1:
                continue
            if happening.begin > first_end + _TOLERANCE_SECONDS:
                break
            for at in self._times(happening, time, purse):
                if at >= expiry or not time <= at <= first_end + _TOLERANCE_SECONDS:
                    continue
                after = step(purse, happening.call, at, self._terms)
                if _explains(purse, after, happening):
                    # Who changes nothing may see what another, decided before, commits after.
                    yield left & ~(1 << number), time if after.purse == purse else at, after.purse
        if expiry <= first_end + _TOLERANCE_SECONDS:
            yield left, max(time, expiry), purse.expired(expiry)

    def _times(self, happening: _Happening, time: float, purse: Purse) -> Iterator[float]:
        """When a happening can have been: as its answer tells, or as soon as may be.

        An extension tells only if it moved the end of its hold. A settle may have come just too
        late for a hold that had expired.
        """
        call = happening.call
        if happening.at is not None:
            yield happening.at
        if happening.at is None or call.method is Method.EXTEND:
            yield max(time, happening.begin)
        if call.method in (Method.SETTLE, Method.CAPTURE):
            held = purse.hold(call.reservation_id)
            if held is not None and held.state == "EXPIRED":
                yield max(time, happening.begin, held.expire_time + self._terms.grace_seconds)


def _explains(before: Purse, after: Step, happening: _Happening) -> bool:
    """Whether a step comes to what was told."""
    attempt = happening.attempt
    if attempt is not None and attempt.refusal is not None:
        refusal = attempt.refusal
        short = refusal.reason == "INSUFFICIENT_CREDITS"
        if short and refusal.available_micros != before.available_micros:
            return False
        return after.reason == refusal.reason
    if happening.answer is None:
        return after.answer is not None
    return after.answer == happening.answer


def _happenings(call: Call, charged: bool) -> Iterator[_Happening]:
    """What is known to have taken place of a call, and what may have."""
    unsure = [attempt for attempt in call.attempts if attempt.told is Told.UNKNOWN]
    first_unsure = min((attempt.call_time for attempt in unsure), default=inf)
    for attempt in call.attempts:
        answer = attempt.answer
        if answer is not None or attempt.refusal is not None:
            at = None if answer is None or answer.replayed else _time_told(call, answer)
            yield _Happening(call, attempt.call_time, attempt.return_time, answer, attempt, at)
    if not unsure:
        return
    if call.method is Method.RELEASE:
        yield _Happening(call, first_unsure, inf, optional=True)
    elif call.answers and call.method is not Method.BALANCE:
        yield from _unseen(call, first_unsure)
    elif charged and not call.answers and not call.misuse:
        yield _Happening(call, first_unsure, inf)


def _unseen(call: Call, first_unsure: float) -> Iterator[_Happening]:
    """That it was done by an attempt which got no answer, if every answer is a replay.

    Or another call under the same key has done it: a replay is explained by nothing else.
    """
    if all(answer.replayed for answer in call.answers):
        answer = call.answers[0]._replace(replayed=False)
        at = _time_told(call, answer)
        yield _Happening(call, first_unsure, call.done_time, answer, at=at, optional=True)


def _time_told(call: Call, answer: Answer) -> float | None:
    """When it was done, if the answer tells: a hold lives from then on as long as asked for."""
    if call.method in (Method.RESERVE, Method.EXTEND):
        return round(answer.expire_time - call.ttl_seconds, 6)
    return None
