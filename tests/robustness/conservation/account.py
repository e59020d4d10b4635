"""An account of the model: its purse, its holds, and what time does to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from fractions import Fraction
from functools import partial

from robustness.conservation import calendar
from robustness.conservation.purse import Lot, Parts, Purse, Taken

MILLION = 1_000_000


def level_micros(granted: int, fraction_ppm: int, amount: int) -> int:
    """How much of a grant a revocation means, halves rounded up."""
    part = int(Fraction(granted * fraction_ppm, MILLION) + Fraction(1, 2))
    return min(granted, max(part, amount))


@dataclass(slots=True)
class Said:
    """What a revocation said of a grant that was not there yet, and what was taken back of it."""

    fraction_ppm: int = 0
    amount: int = 0
    undone_fraction_ppm: int = 0
    undone_amount: int = 0

    def raise_to(self, fraction_ppm: int, amount: int) -> None:
        self.fraction_ppm = max(self.fraction_ppm, fraction_ppm)
        self.amount = max(self.amount, amount)

    def undo(self) -> None:
        self.undone_fraction_ppm, self.undone_amount = self.fraction_ppm, self.amount

    def level(self, granted: int) -> int:
        return level_micros(granted, self.fraction_ppm, self.amount)

    def net(self, granted: int) -> int:
        undone = level_micros(granted, self.undone_fraction_ppm, self.undone_amount)
        return max(0, self.level(granted) - undone)


def waiting_micros(granted: int, said: dict[str, Said]) -> int:
    return min(granted, sum(one.net(granted) for one in said.values()))


@dataclass(slots=True)
class Pending:
    """A grant for later, and the lot that it opens then."""

    key: str
    micros: int
    effective_time: datetime
    lot: Lot
    said: dict[str, Said]
    state: str = "PENDING"

    @property
    def coming(self) -> int:
        if self.state == "LANDED":
            return 0
        return self.micros - waiting_micros(self.micros, self.said)


@dataclass(slots=True)
class Hold:
    reservation_id: str
    reserved: int
    parts: Parts
    on_credit: int
    charges: bool
    expire_time: datetime
    state: str = "ACTIVE"
    captured: int = 0
    from_hold: int = 0
    released: int = 0
    expiry_charged: int = 0
    expiry_charge_seq: int = 0
    late: bool = False

    @property
    def open(self) -> int:
        return sum(micros for _, micros in self.parts) + self.on_credit

    def cut(self, micros: int) -> tuple[Parts, int]:
        """Take micros off what is open: from its lots first. Answers these, and those on credit."""
        off: Parts = []
        rest: Parts = []
        for seq, part in self.parts:
            cut = min(part, micros)
            micros -= cut
            off.append((seq, cut))
            rest.append((seq, part - cut))
        self.parts = [part for part in rest if part[1]]
        self.on_credit -= micros
        return [part for part in off if part[1]], micros


@dataclass(slots=True)
class Plan:
    """An allowance."""

    micros: int
    period: str
    anchor: datetime
    priority: int
    until: datetime | None = None
    refill: datetime | None = None


Due = tuple[datetime, int, str]
"""When something is due; at one time what ends comes before what begins."""


@dataclass(slots=True)
class Account(Purse):
    limit: int = 0
    holds_use_credit: bool = False
    frozen: bool = False
    holds: dict[str, Hold] = field(default_factory=dict)
    active: dict[str, Hold] = field(default_factory=dict)
    plan: Plan | None = None
    pending: dict[str, Pending] = field(default_factory=dict)
    to_come: dict[str, Pending] = field(default_factory=dict)
    """Those of them that have not landed."""
    given_back: dict[int, int] = field(default_factory=dict)
    """How much of each charge, by its seq."""

    @property
    def spendable(self) -> int:
        return max(0, self.available + self.limit)

    @property
    def reservable(self) -> int:
        return max(0, self.available + (self.limit if self.holds_use_credit else 0))

    @property
    def pending_micros(self) -> int:
        return sum(one.coming for one in self.to_come.values())

    def balance(self) -> tuple[int, ...]:
        """In the order of the server's `Balance`."""
        return (
            self.seq,
            self.granted,
            self.spent,
            self.expired,
            self.revoked,
            self.refunded,
            self.held,
            self.debt,
            self.limit,
            self.pending_micros,
        )

    def pass_time(self, now: datetime) -> None:
        """Let everything happen that is due by `now`, each thing after what was due before it."""
        self.now = now
        self.forget_spent_lots()
        while due := min(self._due(), key=lambda item: item[0], default=None):
            due[1]()

    def _due(self) -> Iterator[tuple[Due, Callable[[], None]]]:
        for hold in self.active.values():
            if hold.expire_time <= self.now:
                yield (hold.expire_time, 0, hold.reservation_id), partial(self._end, hold)
        for lot in self._live.values():
            if lot.left and lot.expire_time <= self.now:
                yield (lot.expire_time, 1, f"{lot.seq:020}"), partial(self._expire, lot)
        if self.plan and self.plan.refill and self.plan.refill <= self.now:
            begin = calendar.begin_at(self.plan.anchor, self.plan.period, self.now)
            yield (begin, 2, ""), self.refill
        for one in self.to_come.values():
            if one.state == "PENDING" and one.effective_time <= self.now:
                yield (one.effective_time, 3, one.key), partial(self._land, one)

    def _expire(self, lot: Lot) -> None:
        micros, lot.left = lot.left, 0
        self.lose(lot, micros)

    def _end(self, hold: Hold) -> None:
        hold.state = "EXPIRED"
        if not hold.charges:
            self.free(hold, hold.expire_time)
            return
        del self.active[hold.reservation_id]
        micros = hold.open
        if micros == 0:
            return
        self.spent += micros
        hold.parts = self.charge_held(hold.parts, hold.on_credit)
        line = self.write("EXPIRY_CHARGE", -micros, hold.parts, reservation_id=hold.reservation_id)
        hold.on_credit = line.owed_micros
        hold.expiry_charged, hold.expiry_charge_seq = micros, line.seq

    def free(self, hold: Hold, at: datetime) -> None:
        """Give back all that a running hold has open."""
        del self.active[hold.reservation_id]
        hold.released += hold.open
        parts, on_credit = hold.cut(hold.open)
        self.held -= on_credit
        self.held_on_credit -= on_credit
        for seq, micros in parts:
            self.lots[seq].held -= micros
            self.held -= micros
            self.put_back(seq, micros, at, hold.reservation_id)

    def earmark(self, micros: int) -> tuple[Parts, int]:
        parts = self.take(micros)
        for seq, part in parts:
            self.lots[seq].held += part
        on_credit = micros - sum(part for _, part in parts)
        self.held += micros
        self.held_on_credit += on_credit
        return parts, on_credit

    def charge_held(self, parts: Parts, on_credit: int) -> Parts:
        """Charge what was held. What was held on credit is taken from where there is any now."""
        for seq, part in parts:
            self.lots[seq].held -= part
            self.held -= part
        self.held -= on_credit
        self.held_on_credit -= on_credit
        return parts + self.take_or_owe(on_credit)

    def refill(self) -> None:
        plan = self.plan
        assert plan
        until = calendar.end_after(plan.anchor, plan.period, self.now)
        lot = Lot(0, 0, 0, plan.priority, promotional=True, expire_time=until)
        self.deposit("ALLOWANCE", plan.micros, lot)
        plan.until = plan.refill = until

    def set_plan(
        self, micros: int, period: str, anchor: datetime | None, priority: int | None
    ) -> None:
        old = self.plan
        if old:
            anchor = anchor or old.anchor
            priority = old.priority if priority is None else priority
        until = old.until if old else None
        plan = Plan(micros, period, anchor or self.now, 10 if priority is None else priority, until)
        self.plan = plan
        if period == "OFF":
            return
        if until and until > self.now:
            plan.refill = calendar.first_from(plan.anchor, period, until)
        else:
            begin = calendar.begin_at(plan.anchor, period, self.now)
            plan.refill = max(plan.anchor, begin)
        if plan.refill <= self.now:
            self.refill()

    def _land(self, pending: Pending) -> None:
        pending.state = "LANDED"
        del self.to_come[pending.key]
        self.deposit("GRANT", pending.micros, pending.lot, pending.key)
        self.take_said(pending.lot, pending.said)

    def take_said(self, lot: Lot, said: dict[str, Said]) -> int:
        """Revoke of a new lot what was said before it came."""
        left = lot.granted
        for revocation_id, one in sorted(said.items()):
            micros = min(left, one.net(lot.granted))
            left -= micros
            lot.revocations[revocation_id] = Taken(one.level(lot.granted), micros)
        taken = lot.granted - left
        if taken:
            self.take_back(lot, taken)
        return taken

    def refundable(self, seq: int) -> int:
        return -self.ledger[seq - 1].amount_micros - self.given_back.get(seq, 0)

    def slice_of_charge(self, seq: int, micros: int) -> tuple[Parts, int]:
        """The next `micros` of a charge to give back: what was owed, then newest lots first."""
        line = self.ledger[seq - 1]
        skip, owed, parts = self.given_back.get(seq, 0), 0, []
        for lot_seq, part in [(0, line.owed_micros), *reversed(line.parts)]:
            skipped = min(skip, part)
            given = min(part - skipped, micros)
            skip -= skipped
            micros -= given
            if lot_seq == 0:
                owed = given
            elif given:
                parts.append((lot_seq, given))
        return parts[::-1], owed
