"""The entries that a rebuild posts, and the repairs of the ledger itself.

History is never changed. What stands for a missing entry takes its number and counts there. What
sets another entry right names it in `related_seq` and counts in the place of that one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from meterhold_server.core.model import Account, Entry, EntryKind, Part
from meterhold_server.core.summary import Break, Summary

MISSING_MAX: Final = 1000
"""The most missing entries that are stood in for. More is not damage, but another ledger."""


class BeyondRepairError(Exception):
    """Nothing was changed, and a person has to look."""


@dataclass(slots=True)
class Corrections:
    """The ledger of an account while it is set right.

    `remaining_micros` is that of its last entry, and `parts` what its entries say of each lot.
    """

    account: Account
    summary: Summary
    now: datetime
    entries: list[Entry] = field(default_factory=list)
    seq: int = 0
    remaining_micros: int = 0
    parts: dict[int, int] = field(default_factory=dict)

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

    def note(self, reason: str, metadata: str) -> None:
        """Append a correction of 0 that keeps what was removed."""
        self.seq += 1
        self._add(self.seq, 0, self.remaining_micros, reason, metadata)

    def stand_in(self, missing: range, amount_micros: int, remaining_before_micros: int) -> None:
        """Fill numbers that are missing. The first takes all that the missing entries moved."""
        if len(missing) + len(self.entries) > MISSING_MAX:
            raise BeyondRepairError
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
    altered = [broken for broken in breaks if not broken.missing]
    if len(altered) > MISSING_MAX:
        raise BeyondRepairError
    _set_right(ledger, altered)


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
    for broken in altered:
        reason = f"entry {broken.seq} does not follow from the balance before it"
        stored = broken.remaining_after_micros
        ledger.post(broken.change_micros, reason, stored, stored - broken.change_micros,
                    related_seq=broken.seq)  # fmt: skip
    off = sum(broken.change_micros for broken in altered)
    if off and ledger.account.remaining_micros == by_amounts:
        reason = "the last entry told a wrong balance, and the amounts were right"
        ledger.post(-off, reason, by_amounts + off, by_amounts)


def _totals_agree(account: Account, summary: Summary) -> bool:
    return (
        account.granted_micros == summary.granted_micros
        and account.spent_micros == summary.spent_micros
        and account.expired_micros == summary.expired_micros
        and account.refunded_micros == summary.refunded_micros
        and account.revoked_micros == summary.revoked_micros
    )


def stored_and_expected(stored_micros: int, expected_micros: int) -> str:
    """The metadata of a correction: as text, for JSON's numbers are not exact."""
    return f'{{"stored_micros":"{stored_micros}","expected_micros":"{expected_micros}"}}'
