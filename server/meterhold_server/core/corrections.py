"""The entries that a rebuild posts, and the repairs of the ledger itself.

History is never changed. What stands for a missing entry takes its number and counts there. What
sets another entry right names it in `related_seq` and counts in the place of that one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from meterhold_server.core.counting import (
    Beside,
    Total,
    contradiction,
    counted_beside,
    metadata_of,
    numbers,
)
from meterhold_server.core.model import REFUNDABLE, Account, Entry, EntryKind, Part
from meterhold_server.core.summary import Break, Summary

MISSING_MAX: Final = 1000
"""The most missing entries that are stood in for. More is not damage, but another ledger."""


class BeyondRepairError(Exception):
    """Nothing was changed, and a person has to look."""


@dataclass(slots=True)
class Corrections:
    """The ledger of an account while it is set right.

    `remaining_micros` is that of its last entry, and `parts` what its entries say of each lot.
    `doubted` is by charge: how much more its entry says than it may have charged. `stood_in` has
    the numbers of the entries that were missing, `notes` is how many corrections of 0 tell why.
    """

    account: Account
    summary: Summary
    now: datetime
    entries: list[Entry] = field(default_factory=list)
    seq: int = 0
    remaining_micros: int = 0
    parts: dict[int, int] = field(default_factory=dict)
    doubted: dict[int, int] = field(default_factory=dict)
    stood_in: set[int] = field(default_factory=set)
    notes: int = 0

    def __post_init__(self) -> None:
        self.seq = self.summary.last_seq
        self.remaining_micros = self.summary.last_remaining_micros
        self.parts = dict(self.summary.parts)

    def post(
        self,
        amount_micros: int,
        reason: str,
        stored_micros: int,
        expected_micros: int,
        *,
        related_seq: int = 0,
        parts: list[Part] | None = None,
    ) -> None:
        """Append a correction. One of another entry has changed nothing since that one."""
        self.seq += 1
        if not related_seq:
            self.remaining_micros += amount_micros
        metadata = stored_and_expected(stored_micros, expected_micros)
        self._add(self.seq, amount_micros, self.remaining_micros, reason, metadata,
                  related_seq=related_seq, parts=parts)  # fmt: skip

    def note(self, reason: str, metadata: str, *, reservation_id: str = "") -> None:
        """Append a correction of 0 that keeps what was removed, or tells what was decided."""
        self.notes += 1
        if self.notes > MISSING_MAX:
            raise BeyondRepairError
        self.seq += 1
        self._add(self.seq, 0, self.remaining_micros, reason, metadata,
                  reservation_id=reservation_id)  # fmt: skip

    def count_beside(
        self, beside: Beside, reason: str, expected_micros: int, *, reservation_id: str = ""
    ) -> None:
        """Let a correction of 0 count what makes a total what it is now to be."""
        stored = expected_micros - beside.micros
        metadata = stored_and_expected(stored, expected_micros, beside)
        self.note(reason, metadata, reservation_id=reservation_id)

    def count_as_refunded(self, charge_seq: int, micros: int, known_micros: int) -> None:
        """Count so many as given back of a charge, beside its refunds.

        The correction that stands for the charge, or for the refund that is lost, or that corrects
        either of them, tells it where there is such a one.
        """
        beside = Beside(Total.REFUNDED, charge_seq, micros)
        for index, entry in enumerate(self.entries):
            if self._may_tell(entry, beside) and not counted_beside(entry, Total.REFUNDED):
                metadata = metadata_of(numbers(entry.metadata) | beside.fields())
                self.entries[index] = entry._replace(metadata=metadata)
                return
        reason = f"what was given back of entry {charge_seq} is not what its refunds say"
        self.count_beside(beside, reason, known_micros)

    def _may_tell(self, entry: Entry, beside: Beside) -> bool:
        """Whether it is of the charge, or may be what is left of a refund that was damaged."""
        if not (entry.related_seq or entry.seq in self.stood_in):
            return False
        of_charge = beside.seq in (entry.seq, entry.related_seq)
        return of_charge or entry.amount_micros == beside.micros != 0

    def stand_in(self, missing: range, amount_micros: int, remaining_before_micros: int) -> None:
        """Fill numbers that are missing. The first takes all that the missing entries moved."""
        if len(missing) + len(self.entries) > MISSING_MAX:
            raise BeyondRepairError
        self.stood_in.update(missing)
        after = remaining_before_micros + amount_micros
        for seq in missing:
            micros = amount_micros if seq == missing.start else 0
            self._add(seq, micros, after, f"entry {seq} was missing",
                      stored_and_expected(0, micros), parts=self._lot_parts(micros),
                      reservation_id=self._charged_by(micros))  # fmt: skip

    def _lot_parts(self, micros: int) -> list[Part]:
        """Of lots that do not agree with the entries, what a missing entry of `micros` explains."""
        sign = 1 if micros > 0 else -1
        left = abs(micros)
        parts: list[Part] = []
        for lot in sorted(self.account.lots, key=lambda lot: lot.seq):
            held = lot.available_micros + lot.held_micros + lot.repaid_micros
            part = min(left, sign * (held - self.parts.get(lot.seq, 0)))
            if part > 0:
                parts.append(Part(lot.seq, part))
                left -= part
        return parts

    def _charged_by(self, micros: int) -> str:
        """The one reservation that was charged by `-micros` more than its entries say, if any."""
        found = [
            reservation.reservation_id
            for reservation in self.account.reservations.values()
            if micros
            and reservation.captured_micros
            + reservation.expiry_charged_micros
            - self.summary.charged[reservation.reservation_id].micros
            == -micros
        ]
        return found[0] if len(found) == 1 else ""

    def _add(
        self,
        seq: int,
        amount_micros: int,
        remaining_after_micros: int,
        reason: str,
        metadata: str,
        *,
        related_seq: int = 0,
        parts: list[Part] | None = None,
        reservation_id: str = "",
    ) -> None:
        sign = 1 if amount_micros > 0 else -1
        for lot_seq, part in parts or ():
            self.parts[lot_seq] = self.parts.get(lot_seq, 0) + sign * part
        if reservation_id:
            charged = self.summary.charged[reservation_id]
            corrected = charged.corrected_micros - amount_micros
            self.summary.charged[reservation_id] = charged._replace(corrected_micros=corrected)
        self.entries.append(
            Entry(
                self.account.account_id,
                seq,
                EntryKind.CORRECTION,
                amount_micros,
                remaining_after_micros,
                self.now,
                reservation_id,
                "",
                related_seq,
                parts or [],
                None,
                None,
                metadata,
                reason,
            )
        )


def mend(ledger: Corrections) -> None:
    """Fill what is missing, then set right what does not follow, so that the chain holds again."""
    before = ledger.remaining_micros
    breaks = ledger.summary.breaks
    for gap in breaks:
        if gap.missing:
            ledger.stand_in(gap.missing, gap.change_micros, gap.remaining_before_micros)
    _fill_the_end(ledger, before)
    altered = [broken for broken in breaks if broken.change_micros and not broken.missing]
    contradictory = [broken for broken in breaks if broken.contradicts]
    if len(altered) + len(contradictory) > MISSING_MAX:
        raise BeyondRepairError
    _set_right(ledger, altered)
    _explain_contradictions(ledger, contradictory)


def _fill_the_end(ledger: Corrections, before: int) -> None:
    """Stand in for the last entries, if the account's totals have them and the ledger has not."""
    account, summary = ledger.account, ledger.summary
    if account.seq <= summary.last_seq:
        return
    moved = account.remaining_micros - before
    if moved or not (summary.breaks or _totals_agree(account, summary)):
        ledger.stand_in(range(summary.last_seq + 1, account.seq + 1), moved, before)
        ledger.seq = account.seq
        ledger.remaining_micros = before + moved


def _set_right(ledger: Corrections, altered: list[Break]) -> None:
    """Correct each entry that does not follow from the one before it.

    The balance then is what the last entry says. If the account's totals say that the amounts were
    right and only that balance is wrong, the difference is taken back.
    """
    filled = sum(entry.amount_micros for entry in ledger.entries)
    by_amounts = ledger.summary.total_micros + filled
    sure = _totals_agree(ledger.account, ledger.summary)
    for broken in altered:
        seq, stored = broken.entry.seq, broken.entry.remaining_after_micros
        reason = f"entry {seq} does not follow from the balance before it"
        ledger.post(broken.change_micros, reason, stored, stored - broken.change_micros,
                    related_seq=seq)  # fmt: skip
        if broken.change_micros > 0 and broken.entry.kind in REFUNDABLE and not sure:
            # It may have charged less than it says: no more may be given back of it than that.
            ledger.doubted[seq] = broken.change_micros
    off = sum(broken.change_micros for broken in altered)
    if off and ledger.account.remaining_micros == by_amounts:
        reason = "the last entry told a wrong balance, and the amounts were right"
        ledger.post(-off, reason, by_amounts + off, by_amounts)


def _explain_contradictions(ledger: Corrections, contradictory: list[Break]) -> None:
    """Name each entry that contradicts itself, in a correction of it unless it has one."""
    named = {entry.related_seq for entry in ledger.entries}
    for broken in contradictory:
        entry = broken.entry
        if entry.kind in REFUNDABLE and entry.related_seq:
            # It has what an expiry or a revocation has: those are not given back.
            ledger.doubted[entry.seq] = -entry.amount_micros
        if entry.seq not in named:
            ledger.post(0, contradiction(entry), entry.amount_micros, entry.amount_micros,
                        related_seq=entry.seq)  # fmt: skip


def _totals_agree(account: Account, summary: Summary) -> bool:
    return (
        account.granted_micros == summary.granted_micros
        and account.spent_micros == summary.spent_micros
        and account.expired_micros == summary.expired_micros
        and account.refunded_micros == summary.refunded_micros
        and account.revoked_micros == summary.revoked_micros
    )


def stored_and_expected(
    stored_micros: int, expected_micros: int, beside: Beside | None = None
) -> str:
    """The metadata of a correction: as text, for JSON's numbers are not exact.

    `beside` is what it counts beside its own amount.
    """
    said = {"stored_micros": str(stored_micros), "expected_micros": str(expected_micros)}
    return metadata_of(said | (beside.fields() if beside else {}))
