"""What an account is worth, by a second and naive set of rules: lots, debt, totals, a ledger.

Written from docs/semantics.md, and by intention without a line of the server's core. It keeps no
sums: what is available is added up each time it is asked for. Amounts are in micro-units.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, NamedTuple

NEVER: Final = datetime.max.replace(tzinfo=UTC)
PAID_PRIORITY: Final = 50

Parts = list[tuple[int, int]]
"""Micros by lot, in the order in which they were taken."""


class Line(NamedTuple):
    """An entry of the ledger."""

    seq: int
    kind: str
    amount_micros: int
    remaining_after_micros: int
    create_time: datetime
    reservation_id: str
    key: str
    related_seq: int
    parts: tuple[tuple[int, int], ...]

    @property
    def owed_micros(self) -> int:
        """What no lot had for it."""
        return abs(self.amount_micros) - sum(micros for _, micros in self.parts)


@dataclass(slots=True)
class Taken:
    """What one revocation said at most, and what is taken because of it."""

    level: int = 0
    micros: int = 0


@dataclass(slots=True)
class Lot:
    seq: int
    granted: int
    left: int
    priority: int = PAID_PRIORITY
    promotional: bool = False
    expire_time: datetime = NEVER
    held: int = 0
    expired: int = 0
    repaid: int = 0
    revoked_here: int = 0
    revocations: dict[str, Taken] = field(default_factory=dict)

    @property
    def revoked(self) -> int:
        return sum(taken.micros for taken in self.revocations.values())

    @property
    def turn(self) -> tuple[int, datetime, bool, int]:
        """Lots are spent in this order."""
        return self.priority, self.expire_time, not self.promotional, self.seq


@dataclass(slots=True)
class Purse:
    granted: int = 0
    refunded: int = 0
    spent: int = 0
    expired: int = 0
    revoked: int = 0
    debt: int = 0
    held: int = 0
    held_on_credit: int = 0
    now: datetime = NEVER
    lots: dict[int, Lot] = field(default_factory=dict)
    ledger: list[Line] = field(default_factory=list)
    _live: dict[int, Lot] = field(default_factory=dict)

    @property
    def seq(self) -> int:
        return len(self.ledger)

    @property
    def remaining(self) -> int:
        return self.ledger[-1].remaining_after_micros if self.ledger else 0

    @property
    def available(self) -> int:
        left = sum(lot.left for lot in self._live.values())
        return left - self.debt - self.held_on_credit

    @property
    def live_lots(self) -> list[Lot]:
        """Those with anything left, in spend order."""
        return sorted(self._live.values(), key=lambda lot: lot.turn)

    def forget_spent_lots(self) -> None:
        self._live = {lot.seq: lot for lot in self._live.values() if lot.left or lot.held}

    def write(
        self,
        kind: str,
        amount: int,
        parts: Parts,
        *,
        reservation_id: str = "",
        key: str = "",
        related_seq: int = 0,
    ) -> Line:
        line = Line(
            self.seq + 1,
            kind,
            amount,
            self.remaining + amount,
            self.now,
            reservation_id,
            key,
            related_seq,
            tuple(part for part in parts if part[1]),
        )
        self.ledger.append(line)
        return line

    def open_lot(self, lot: Lot) -> None:
        self.lots[lot.seq] = lot
        self._live[lot.seq] = lot

    def deposit(self, kind: str, micros: int, lot: Lot, key: str = "") -> tuple[Line, int]:
        """Put a new lot in, which repays debt first. Answers the entry and what it repaid."""
        repaid = self.repay(micros)
        self.granted += micros
        lot.seq, lot.granted, lot.left = self.seq + 1, micros, micros - repaid
        line = self.write(kind, micros, [(lot.seq, lot.left)], key=key)
        self.open_lot(lot)
        return line, repaid

    def repay(self, micros: int) -> int:
        repaid = min(micros, self.debt)
        self.debt -= repaid
        return repaid

    def take(self, micros: int) -> Parts:
        """As much of `micros` as the lots have, in spend order."""
        parts: Parts = []
        for lot in self.live_lots:
            taken = min(lot.left, micros)
            if taken:
                lot.left -= taken
                micros -= taken
                parts.append((lot.seq, taken))
        return parts

    def take_or_owe(self, micros: int) -> Parts:
        parts = self.take(micros)
        self.debt += micros - sum(taken for _, taken in parts)
        return parts

    def put_back(self, seq: int, micros: int, at: datetime, reservation_id: str = "") -> None:
        """Return micros to their lot; if it has expired by `at` they are lost."""
        lot = self.lots[seq]
        self._live[seq] = lot
        if lot.expire_time <= at:
            self.lose(lot, micros, reservation_id)
            return
        repaid = self.repay(micros)
        lot.repaid += repaid
        lot.left += micros - repaid

    def lose(self, lot: Lot, micros: int, reservation_id: str = "") -> None:
        """Write micros off that were in a lot. What was revoked beyond what is left is undone."""
        self.expired += micros
        lot.expired += micros
        parts = [(lot.seq, micros)]
        self.write("EXPIRY", -micros, parts, reservation_id=reservation_id, related_seq=lot.seq)
        undone = max(0, lot.expired + lot.revoked - lot.granted)
        if undone:
            left = undone
            for _, taken in sorted(lot.revocations.items()):
                less = min(left, taken.micros)
                taken.micros -= less
                left -= less
            self.give_back("REINSTATEMENT", [], undone, related_seq=lot.seq)

    def give_back(
        self,
        kind: str,
        parts: Parts,
        owed: int,
        *,
        related_seq: int,
        key: str = "",
        reservation_id: str = "",
    ) -> Line:
        """Undo a taking, last taken first; what was owed and is repaid by now opens a lot."""
        micros = owed + sum(part for _, part in parts)
        surplus = owed - self.repay(owed)
        if kind == "REFUND":
            self.refunded += micros
        else:
            self.revoked -= micros
        line = self.write(
            kind,
            micros,
            [*parts, (self.seq + 1, surplus)],
            reservation_id=reservation_id,
            key=key,
            related_seq=related_seq,
        )
        for seq, part in reversed(parts):
            self.put_back(seq, part, self.now, reservation_id)
        if surplus:
            self.open_lot(Lot(line.seq, surplus, surplus))
        return line

    def take_back(self, lot: Lot, micros: int, key: str = "") -> Line:
        """Revoke: out of the lot, then out of others, then into debt."""
        here = min(micros, lot.left)
        lot.left -= here
        lot.revoked_here += here
        self.revoked += micros
        parts = [(lot.seq, here), *self.take_or_owe(micros - here)]
        return self.write("REVOCATION", -micros, parts, key=key, related_seq=lot.seq)
