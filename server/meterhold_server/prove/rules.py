"""The rules of one account in their plainest form: no lots, no ledger, one call after the other.

Written from the semantics alone. It covers accounts whose credits do not expire.
"""

from __future__ import annotations

from math import inf
from typing import Final, NamedTuple

from meterhold_server.prove.history import Answer, Book, Call, Method, Overage

_ENDED: Final = {
    "SETTLED": "RESERVATION_SETTLED",
    "RELEASED": "RESERVATION_RELEASED",
    "EXPIRED": "RESERVATION_EXPIRED",
}


class Held(NamedTuple):
    """A hold. Once it has expired, `open_micros` is what that charged."""

    state: str
    open_micros: int
    expire_time: float
    charge_on_expiry: bool


class Terms(NamedTuple):
    """What does not change."""

    credit_limit_micros: int
    holds_use_credit: bool
    grace_seconds: float


class Done(NamedTuple):
    """What was asked under a key, and the answer."""

    micros: int
    overage: Overage
    answer: Answer


class Purse(NamedTuple):
    """An account. `done` has what was done under each key."""

    exists: bool = False
    seq: int = 0
    remaining_micros: int = 0
    held_micros: int = 0
    holds: tuple[tuple[str, Held], ...] = ()
    done: tuple[tuple[str, Done], ...] = ()

    @property
    def available_micros(self) -> int:
        return self.remaining_micros - self.held_micros

    def hold(self, reservation_id: str) -> Held | None:
        return dict(self.holds).get(reservation_id)

    def with_hold(self, reservation_id: str, held: Held) -> Purse:
        before = self.hold(reservation_id)
        was = before.open_micros if before and before.state == "ACTIVE" else 0
        now = held.open_micros if held.state == "ACTIVE" else 0
        holds = tuple(sorted((dict(self.holds) | {reservation_id: held}).items()))
        return self._replace(holds=holds, held_micros=self.held_micros - was + now)

    def moved(self, micros: int) -> Purse:
        """With one more entry, unless it is of nothing."""
        if micros == 0:
            return self
        return self._replace(seq=self.seq + 1, remaining_micros=self.remaining_micros + micros)

    def answer(self) -> Answer:
        """The balance, as the beginning of an answer."""
        return Answer(self.seq, self.remaining_micros, self.held_micros, self.available_micros)

    def next_expiry(self) -> float:
        """When the next hold ends by itself; infinite if none does."""
        active = (held.expire_time for _, held in self.holds if held.state == "ACTIVE")
        return min(active, default=inf)

    def expired(self, at: float) -> Purse:
        """After the holds ended whose time this is."""
        purse = self
        for name, held in self.holds:
            if held.state == "ACTIVE" and held.expire_time <= at:
                charged = held.open_micros if held.charge_on_expiry else 0
                purse = purse.with_hold(name, Held("EXPIRED", charged, held.expire_time, True))
                purse = purse.moved(-charged)
        return purse


class Step(NamedTuple):
    """What a call makes of an account: its answer, or the reason why not."""

    purse: Purse
    answer: Answer | None = None
    reason: str = ""


def opened(book: Book) -> Purse:
    """An account as it was before any call. Only one with credit is there from the start."""
    return Purse(exists=book.credit_limit_micros > 0)


def step(purse: Purse, call: Call, at: float, terms: Terms) -> Step:
    """Carry a call out at a time, by which all that is due has expired."""
    if call.method is Method.BALANCE:
        return Step(purse, purse.answer())
    key = _key(call)
    before = dict(purse.done).get(key) if key else None
    if before is not None:
        if (call.micros, call.overage) != (before.micros, before.overage):
            return Step(purse, reason="IDEMPOTENCY_MISMATCH")
        return Step(purse, before.answer._replace(replayed=True))
    done = _first_step(purse, call, at, terms)
    if key and done.answer is not None:
        entered = Done(call.micros, call.overage, done.answer)
        all_done = tuple(sorted((*done.purse.done, (key, entered))))
        return done._replace(purse=done.purse._replace(done=all_done))
    return done


def _key(call: Call) -> str:
    """Under which name a call is done once."""
    match call.method:
        case Method.RESERVE:
            return f"reserve {call.reservation_id}"
        case Method.SETTLE:
            return f"settle {call.reservation_id}"
        case Method.RELEASE | Method.BALANCE:
            return ""
        case _:
            return f"{call.method} {call.reservation_id} {call.key}" if call.key else ""


def _first_step(purse: Purse, call: Call, at: float, terms: Terms) -> Step:
    match call.method:
        case Method.GRANT:
            after = purse._replace(exists=True).moved(call.micros)
            return Step(after, after.answer()._replace(micros=call.micros, entry_seq=after.seq))
        case Method.DEBIT:
            return _debit(purse, call, terms)
        case Method.RESERVE:
            return _reserve(purse, call, at, terms)
    held = purse.hold(call.reservation_id)
    if held is None:
        return Step(purse, reason="RESERVATION_NOT_FOUND")
    if call.method is Method.RELEASE:
        changed = held.state == "ACTIVE"
        if changed:
            ended = held._replace(state="RELEASED", open_micros=0)
            purse = purse.with_hold(call.reservation_id, ended)
        return Step(purse, purse.answer()._replace(changed=changed))
    if call.method is Method.EXTEND:
        return _extend(purse, held, call, at, terms)
    return _settle(purse, held, call, at, terms)


def _reservable(purse: Purse, terms: Terms) -> int:
    credit = terms.credit_limit_micros if terms.holds_use_credit else 0
    return max(0, purse.available_micros + credit)


def _debit(purse: Purse, call: Call, terms: Terms) -> Step:
    spendable = max(0, purse.available_micros + terms.credit_limit_micros)
    covered = call.micros <= spendable or call.overage is Overage.OVERDRAFT
    if not purse.exists or not covered:
        return Step(purse, reason="INSUFFICIENT_CREDITS")
    after = purse.moved(-call.micros)
    return Step(after, after.answer()._replace(micros=call.micros, entry_seq=after.seq))


def _reserve(purse: Purse, call: Call, at: float, terms: Terms) -> Step:
    reservable = _reservable(purse, terms)
    if not purse.exists or reservable < (call.min_micros or call.micros):
        return Step(purse, reason="INSUFFICIENT_CREDITS")
    held = min(call.micros, reservable)
    until = round(at + call.ttl_seconds, 6)
    hold = Held("ACTIVE", held, until, call.charge_on_expiry)
    after = purse.with_hold(call.reservation_id, hold)
    return Step(after, after.answer()._replace(micros=held, expire_time=until))


def _extend(purse: Purse, held: Held, call: Call, at: float, terms: Terms) -> Step:
    if held.state != "ACTIVE":
        return Step(purse, reason=_ENDED[held.state])
    if call.micros > _reservable(purse, terms):
        return Step(purse, reason="INSUFFICIENT_CREDITS")
    until = max(held.expire_time, round(at + call.ttl_seconds, 6))
    longer = held._replace(open_micros=held.open_micros + call.micros, expire_time=until)
    after = purse.with_hold(call.reservation_id, longer)
    return Step(after, after.answer()._replace(micros=longer.open_micros, expire_time=until))


def _settle(purse: Purse, held: Held, call: Call, at: float, terms: Terms) -> Step:
    late = held.state == "EXPIRED"
    if not (held.state == "ACTIVE" or (late and at < held.expire_time + terms.grace_seconds)):
        return Step(purse, reason=_ENDED[held.state])
    from_hold = min(call.micros, held.open_micros)
    overage, shortfall = call.micros - from_hold, 0
    spendable = max(0, purse.available_micros + terms.credit_limit_micros)
    if overage > spendable and call.overage is not Overage.OVERDRAFT:
        if call.overage is Overage.REJECT:
            return Step(purse, reason="INSUFFICIENT_CREDITS")
        overage, shortfall = spendable, overage - spendable
    left = held.open_micros - from_hold
    final = call.method is Method.SETTLE
    state = "SETTLED" if final else held.state
    rest = held._replace(state=state, open_micros=0 if final else left)
    charged = overage if late else from_hold + overage
    after = purse.with_hold(call.reservation_id, rest).moved(-charged)
    entry_seq = after.seq if charged else 0
    if late and final:
        after = after.moved(left)
    answer = after.answer()._replace(
        micros=from_hold + overage,
        entry_seq=entry_seq,
        shortfall_micros=shortfall,
        late=late,
    )
    return Step(after, answer)
