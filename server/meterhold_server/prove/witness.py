"""The witness check: the ledger claims an order, and everybody was told what agrees with it.

The sequence of an account's entries is a witness of what happened when. The check walks it once,
and compares it with all that callers were told: no acknowledged call is lost or done twice, no
entry comes from nowhere, answers and refusals fit a state that there was at that time, and calls
that followed each other in time do so in the ledger. It takes n·log n, and searches nothing.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from math import inf
from typing import Final

from meterhold_server.prove.history import (
    Answer,
    Attempt,
    Book,
    Call,
    Entry,
    History,
    Method,
    Overage,
    Told,
    Violation,
)

_KINDS: Final = {
    Method.GRANT: "GRANT",
    Method.DEBIT: "DEBIT",
    Method.CAPTURE: "CAPTURE",
    Method.SETTLE: "CAPTURE",
    Method.REFUND: "REFUND",
}
_OF_TIME: Final = frozenset({"EXPIRY", "EXPIRY_CHARGE"})
_TOLERANCE_SECONDS: Final = 0.000_002
"""Of times that went through microseconds."""


def check(history: History) -> list[Violation]:
    """Everything in a history that no sound service does."""
    found: list[Violation] = []
    calls: defaultdict[str, list[Call]] = defaultdict(list)
    for call in history.calls:
        calls[call.account].append(call)
    for account in sorted(calls.keys() | history.books.keys()):
        book = history.books.get(account) or Book(account, [], [], 0, 0, 0)
        found += _Account(book, calls[account], history.clocks_agree).violations()
    return found + list(_torn_chains(history))


def _torn_chains(history: History) -> Iterator[Violation]:
    """A chain is done whole, or not at all."""
    done = {entry.call for book in history.books.values() for entry in book.entries}
    chains: defaultdict[str, list[Call]] = defaultdict(list)
    for call in history.calls:
        if call.chain:
            chains[call.chain].append(call)
    for calls in chains.values():
        parts = {call.name in done for call in calls}
        if len(parts) > 1:
            names = ", ".join(call.name for call in calls)
            yield Violation("chain", calls[0].account, calls[0].name, f"torn apart: {names}")


class _Account:
    """One account: what was asked of it, what was told, and what its ledger says."""

    def __init__(self, book: Book, calls: Sequence[Call], clocks_agree: bool) -> None:
        self._book = book
        self._calls = {call.name: call for call in calls}
        self._clocks_agree = clocks_agree
        self._by_call: defaultdict[str, list[Entry]] = defaultdict(list)
        for entry in book.entries:
            if author := self._author(entry):
                self._by_call[author.name].append(entry)
        self._remaining = [0] + [entry.remaining_after_micros for entry in book.entries]
        self._reserves = {
            call.reservation_id: call for call in calls if call.method is Method.RESERVE
        }
        self._reads = [
            (attempt, answer)
            for call in calls
            for attempt in call.attempts
            if (answer := attempt.answer) is not None and not answer.replayed
        ]
        done = sorted((attempt.return_time, answer.ledger_seq) for attempt, answer in self._reads)
        self._done_times = [at for at, _ in done]
        self._seqs_known = _running_maximum(seq for _, seq in done)
        self._expire_times = self._known_expire_times()

    def _known_expire_times(self) -> dict[str, float]:
        """The latest time until which each hold was promised to live."""
        known: dict[str, float] = {}
        for call in self._calls.values():
            if call.method in (Method.RESERVE, Method.EXTEND):
                for answer in call.answers:
                    before = known.get(call.reservation_id, -inf)
                    known[call.reservation_id] = max(before, answer.expire_time)
        return known

    def _author(self, entry: Entry) -> Call | None:
        """The call that made an entry; None if it made itself, or is not known."""
        call = self._calls.get(entry.call)
        return call if call and _KINDS.get(call.method) == entry.kind else None

    def violations(self) -> list[Violation]:
        found = [*self._ledger(), *self._order(), *self._holds()]
        for call in self._calls.values():
            found += self._call(call)
        return found

    def _wrong(self, rule: str, what: str, call: str = "") -> Violation:
        return Violation(rule, self._book.account, call, what)

    def _ledger(self) -> Iterator[Violation]:
        """The entries by themselves: no gap, sums that are right, and nobody's money."""
        total, last_time = 0, -inf
        for number, entry in enumerate(self._book.entries, start=1):
            total += entry.micros
            if entry.seq != number:
                yield self._wrong("sequence", f"entry {number} has the seq {entry.seq}")
            if entry.remaining_after_micros != total:
                said = entry.remaining_after_micros
                yield self._wrong("sum", f"entry {entry.seq} says {said} remain, and {total} do")
            if entry.create_time < last_time:
                yield self._wrong("time", f"entry {entry.seq} is older than the one before")
            last_time = entry.create_time
            yield from self._origin(entry)
        book = self._book
        if book.remaining_micros != total or total != book.available_micros + book.held_micros:
            yield self._wrong("sum", f"{total} remain by the ledger, and the balance says {book!r}")
        if not self._may_owe() and min(self._remaining) < -book.credit_limit_micros:
            yield self._wrong("floor", f"fell to {min(self._remaining)}")

    def _may_owe(self) -> bool:
        return any(call.overage is Overage.OVERDRAFT for call in self._calls.values())

    def _origin(self, entry: Entry) -> Iterator[Violation]:
        """Who asked for an entry: a call, or the time of a hold."""
        if entry.kind in _OF_TIME:
            yield from self._expiry(entry)
            return
        call = self._author(entry)
        if call is None:
            if not self._gives_back(entry):
                yield self._wrong("phantom", f"nobody asked for {entry}")
        elif not _least_micros(call) <= entry.micros <= _most_micros(call):
            yield self._wrong("amount", f"asked for {call.micros}, got {entry}", call.name)

    def _gives_back(self, entry: Entry) -> bool:
        """Whether an entry gives back, after a late settle, what an expiry charged too much."""
        return entry.kind == "REFUND" and entry.reservation_id in self._reserves

    def _expiry(self, entry: Entry) -> Iterator[Violation]:
        if entry.kind == "EXPIRY":
            # Credits of the load never expire by themselves.
            yield self._wrong("phantom", f"nothing was to expire: {entry}")
        elif entry.reservation_id not in self._reserves:
            yield self._wrong("phantom", f"no such hold was asked for: {entry}")
        else:
            promised = self._expire_times.get(entry.reservation_id, -inf)
            if entry.create_time < promised - _TOLERANCE_SECONDS:
                yield self._wrong("early", f"{entry} came before {promised}")

    def _order(self) -> Iterator[Violation]:
        """What had returned before something else was asked for comes before it in the ledger."""
        latest_call, latest_name = -inf, ""
        for entry in self._book.entries:
            call = self._author(entry)
            if call is None:
                continue
            if call.done_time < latest_call:
                yield self._wrong(
                    "real time", f"had returned before {latest_name} was asked", call.name
                )
            if call.call_time > latest_call:
                latest_call, latest_name = call.call_time, call.name
        yield from self._freshness()

    def _freshness(self) -> Iterator[Violation]:
        """Each answer has seen all that was known before it was asked, and nothing from later."""
        asked = [-inf]
        for entry in self._book.entries:
            call = self._author(entry)
            of_itself = entry.create_time if self._clocks_agree else -inf
            asked.append(max(asked[-1], call.call_time if call else of_itself))
        for attempt, answer in self._reads:
            if answer.ledger_seq < self._least_seq(attempt):
                what = f"was told a state older than what was known: {answer}"
                yield self._wrong("real time", what)
            seq = answer.ledger_seq
            if seq >= len(asked) or asked[seq] > attempt.return_time + _TOLERANCE_SECONDS:
                yield self._wrong("real time", f"was told of what had not happened yet: {answer}")

    def _least_seq(self, attempt: Attempt) -> int:
        """What an answer to an attempt has seen at least: all that anybody had been told before."""
        known = bisect_left(self._done_times, attempt.call_time)
        return self._seqs_known[known - 1] if known else 0

    def _call(self, call: Call) -> Iterator[Violation]:
        made = self._by_call[call.name]
        if len(made) > 1:
            yield self._wrong("doubled", f"made {made}", call.name)
        if made and call.attempts and call.certain_not_done:
            yield self._wrong("refused", f"was told no, and made {made}", call.name)
        for attempt in call.attempts:
            if attempt.told is Told.BROKEN:
                yield self._wrong("broken", f"was told {attempt.text}", call.name)
            elif attempt.refusal is not None:
                yield from self._refused(call, attempt)
        answers = call.answers
        if call.misuse and answers:
            yield self._wrong("misuse", f"another's key was taken: {answers[0]}", call.name)
        elif answers:
            yield from self._agree(call, answers)
            yield from self._answered(call, answers[0], made)

    def _agree(self, call: Call, answers: Sequence[Answer]) -> Iterator[Violation]:
        """Whoever asks again is told the same, and that it is a replay."""
        if call.method in (Method.RELEASE, Method.BALANCE):
            return
        if len({answer._replace(replayed=False) for answer in answers}) > 1:
            yield self._wrong("replay", f"was told different things: {answers}", call.name)
        if sum(not answer.replayed for answer in answers) > 1:
            yield self._wrong("replay", f"was done more than once: {answers}", call.name)

    def _answered(self, call: Call, answer: Answer, made: Sequence[Entry]) -> Iterator[Violation]:
        """An acknowledged call is in the ledger as it was told."""
        if answer.remaining_micros != answer.available_micros + answer.held_micros:
            yield self._wrong("balance", f"does not add up: {answer}", call.name)
        if answer.ledger_seq >= len(self._remaining):
            yield self._wrong(
                "lost", f"was told of an entry that is not there: {answer}", call.name
            )
        elif self._remaining[answer.ledger_seq] != answer.remaining_micros:
            there = self._remaining[answer.ledger_seq]
            yield self._wrong("balance", f"{there} remained, and was told {answer}", call.name)
        if answer.available_micros < self._floor(call, answer):
            yield self._wrong("floor", f"left less than there may be: {answer}", call.name)
        if call.method in (Method.CAPTURE, Method.SETTLE):
            if answer.micros + answer.shortfall_micros != call.micros:
                yield self._wrong("amount", f"asked for {call.micros}: {answer}", call.name)
        elif call.method in (Method.GRANT, Method.DEBIT) and answer.micros != call.micros:
            yield self._wrong("amount", f"asked for {call.micros}: {answer}", call.name)
        if call.method in _KINDS and not answer.late:
            yield from self._entered(call, answer, made)

    def _floor(self, call: Call, answer: Answer) -> float:
        """What a call must leave available. One that takes nothing may find a debt and leave it."""
        book, into_debt = self._book, call.overage is Overage.OVERDRAFT
        holds = call.method in (Method.RESERVE, Method.EXTEND)
        takes = (holds and call.micros > 0) or (call.method is Method.DEBIT and not into_debt)
        if self._may_owe() and not takes:
            return -inf
        return -book.credit_limit_micros if book.holds_use_credit or not holds else 0

    def _entered(self, call: Call, answer: Answer, made: Sequence[Entry]) -> Iterator[Violation]:
        """The entry that an answer names is there, and is this call's."""
        if call.method is Method.SETTLE and answer.replayed:
            yield from self._repeated_settle(call, answer)
        elif answer.micros == 0:
            if made:
                yield self._wrong("phantom", f"charged nothing, and made {made}", call.name)
        elif not made or made[0].seq != answer.entry_seq:
            yield self._wrong("lost", f"was told {answer}, and the ledger has {made}", call.name)
        elif abs(made[0].micros) != answer.micros:
            yield self._wrong("amount", f"was told {answer}, and made {made}", call.name)

    def _repeated_settle(self, call: Call, answer: Answer) -> Iterator[Violation]:
        """An equal settle of the same hold, whoever made it, is the same settle."""
        if answer.micros == 0:
            return
        entries = self._book.entries
        there = entries[answer.entry_seq - 1] if 0 < answer.entry_seq <= len(entries) else None
        expected = ("CAPTURE", call.reservation_id, -answer.micros)
        if there is None or (there.kind, there.reservation_id, there.micros) != expected:
            yield self._wrong("lost", f"was told {answer}, and the ledger has {there}", call.name)

    def _refused(self, call: Call, attempt: Attempt) -> Iterator[Violation]:
        """A refusal is true of some state that there was while it was under way."""
        refusal = attempt.refusal
        assert refusal is not None
        named = call.key or call.method in (Method.RESERVE, Method.SETTLE)
        if named and call.done_time < attempt.call_time:
            yield self._wrong("replay", f"was done, and then refused: {refusal}", call.name)
        if refusal.reason == "INSUFFICIENT_CREDITS":
            yield from self._insufficient(call, attempt)
        elif refusal.reason == "IDEMPOTENCY_MISMATCH":
            repeated = call.method in (Method.CAPTURE, Method.SETTLE)
            if not call.misuse and not repeated:
                yield self._wrong("misuse", "was refused under its own key", call.name)
        elif refusal.reason == "RESERVATION_EXPIRED" and self._clocks_agree:
            promised = self._expire_times.get(call.reservation_id, -inf)
            if attempt.return_time < promised:
                yield self._wrong("early", f"expired before {promised}", call.name)
        elif refusal.reason == "RESERVATION_NOT_FOUND":
            opened = self._reserves.get(call.reservation_id)
            if opened is not None and opened.done_time < attempt.call_time:
                yield self._wrong("lost", "does not find the hold it was told of", call.name)

    def _insufficient(self, call: Call, attempt: Attempt) -> Iterator[Violation]:
        refusal, book = attempt.refusal, self._book
        assert refusal is not None
        uses_credit = call.method not in (Method.RESERVE, Method.EXTEND) or book.holds_use_credit
        credit = book.credit_limit_micros if uses_credit else 0
        if refusal.required_micros <= refusal.available_micros + credit:
            yield self._wrong("refused", f"though there was enough: {refusal}", call.name)
        if call.chain:
            # It was refused by what the chain would have left, and has not.
            return
        least, most = self._least_seq(attempt), self._most_seq(attempt)
        held_most = self._held_most(attempt)
        remaining = self._remaining[least : most + 1]
        if not any(0 <= there - refusal.available_micros <= held_most for there in remaining):
            what = f"{refusal} fits none of {remaining} with at most {held_most} held"
            yield self._wrong("refused", what, call.name)

    def _most_seq(self, attempt: Attempt) -> int:
        """The last entry that can have been there when an attempt was answered."""
        most = len(self._remaining) - 1
        for entry in reversed(self._book.entries):
            call = self._author(entry)
            asked = call.call_time if call else -inf
            if asked <= attempt.return_time:
                break
            most = entry.seq - 1
        return most

    def _held_most(self, attempt: Attempt) -> int:
        """The most that can have been held: what was asked for and had not surely ended."""
        total = 0
        for call in self._calls.values():
            if call.method in (Method.RESERVE, Method.EXTEND):
                if call.call_time > attempt.return_time:
                    continue
                total += call.micros
        return total

    def _holds(self) -> Iterator[Violation]:
        """Each hold that was acknowledged is there, ended once at most, and in the way told."""
        there = {hold.reservation_id: hold for hold in self._book.holds}
        ends = self._acknowledged_ends()
        captured = self._captured()
        for reservation_id, call in self._reserves.items():
            if call.done_time < inf and reservation_id not in there:
                yield self._wrong("lost", "the hold it was told of is not there", call.name)
            if call.attempts and call.certain_not_done and reservation_id in there:
                yield self._wrong("refused", "was told no, and holds", call.name)
        for hold in self._book.holds:
            name = hold.reservation_id
            if name not in self._reserves:
                yield self._wrong("phantom", f"nobody asked for {hold}")
            told = ends[name]
            if len(told) > 1:
                yield self._wrong("ended twice", f"hold {name}: {told}")
            if told and hold.state not in told:
                yield self._wrong("lost", f"hold {name} ended as {hold.state}, and was told {told}")
            if captured[name] != hold.captured_micros:
                yield self._wrong("lost", f"of hold {name} {captured[name]} was captured: {hold}")
            if hold.state == "EXPIRED" and hold.end_time < self._expire_times.get(name, -inf):
                yield self._wrong("early", f"hold {name} ended at {hold.end_time}")
        held = sum(hold.held_micros for hold in self._book.holds if hold.state == "ACTIVE")
        if held != self._book.held_micros:
            yield self._wrong("held", f"{held} by the holds, {self._book.held_micros} by balance")

    def _acknowledged_ends(self) -> defaultdict[str, set[str]]:
        """How callers were told that they ended each hold."""
        ends: defaultdict[str, set[str]] = defaultdict(set)
        for call in self._calls.values():
            for answer in call.answers:
                if call.method is Method.SETTLE:
                    ends[call.reservation_id].add("SETTLED")
                elif call.method is Method.RELEASE and answer.changed:
                    ends[call.reservation_id].add("RELEASED")
        return ends

    def _captured(self) -> defaultdict[str, int]:
        """What the ledger charged for each hold, while it lived and late."""
        captured: defaultdict[str, int] = defaultdict(int)
        for entry in self._book.entries:
            if entry.kind == "CAPTURE":
                captured[entry.reservation_id] -= entry.micros
        return captured


def _least_micros(call: Call) -> int:
    """The least that an entry of a call may add to the account."""
    return {Method.GRANT: call.micros, Method.REFUND: 1}.get(call.method, -call.micros)


def _most_micros(call: Call) -> float:
    """The most that an entry of a call may add to the account. A refund of 0 is one of all."""
    match call.method:
        case Method.GRANT:
            return call.micros
        case Method.REFUND:
            return call.micros or inf
        case Method.DEBIT:
            return -call.micros
        case _:
            return -1


def _running_maximum(numbers: Iterable[int]) -> list[int]:
    maxima: list[int] = []
    for number in numbers:
        maxima.append(max(number, maxima[-1]) if maxima else number)
    return maxima
