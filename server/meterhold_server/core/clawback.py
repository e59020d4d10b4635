"""Taking granted credits back and giving them back again. The arithmetic of revocations."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from meterhold_server.core import funds
from meterhold_server.core.model import (
    Account,
    EarlyRevocation,
    Entry,
    EntryKind,
    Lot,
    Part,
    PendingGrant,
    PendingState,
)
from meterhold_server.core.posting import Posting

PPM: Final = 1_000_000
"""A whole, in millionths."""


def level_micros(granted_micros: int, fraction_ppm: int, amount_micros: int) -> int:
    """How much of a grant is revoked: a fraction, rounded half up, or an amount; never more."""
    part = (granted_micros * fraction_ppm * 2 + PPM) // (2 * PPM)
    return min(granted_micros, max(part, amount_micros))


def waiting_micros(granted_micros: int, revocations: Iterable[EarlyRevocation]) -> int:
    """How much revocations that came early take of a grant."""
    return min(granted_micros, sum(_net_micros(granted_micros, one) for one in revocations))


def coming_micros(pending: PendingGrant) -> int:
    """What a grant will put in, as far as it is known now; 0 once it has landed."""
    if pending.state is PendingState.LANDED:
        return 0
    waiting = waiting_micros(pending.amount_micros, pending.revocations.values())
    return pending.amount_micros - waiting


def _net_micros(granted_micros: int, of: EarlyRevocation) -> int:
    """Reinstated is what was revoked up to then, so that only what came later counts."""
    revoked = level_micros(granted_micros, of.fraction_ppm, of.amount_micros)
    reinstated = level_micros(
        granted_micros, of.reinstated_fraction_ppm, of.reinstated_amount_micros
    )
    return max(0, revoked - reinstated)


def take_back(posting: Posting, account: Account, lot: Lot, micros: int, **of_entry: Any) -> Entry:
    """Revoke `micros`: what the lot has available, then by `funds.charge`.

    What the lot had spent is owed now; what it has held is owed, too, and pays when it returns.
    """
    here = min(micros, lot.available_micros)
    lot.available_micros -= here
    account.lots_available_micros -= here
    parts = [Part(lot.seq, here)] if here else []
    parts += funds.charge(posting, account, micros - here)
    lot.revoked_micros += micros
    lot.revoked_here_micros += here
    account.revoked_micros += micros
    posting.touch_lot(lot)
    return posting.entry(
        account, EntryKind.REVOCATION, -micros, parts, related_seq=lot.seq, **of_entry
    )


def take_waiting(
    posting: Posting, account: Account, lot: Lot, revocations: dict[str, EarlyRevocation]
) -> int:
    """Revoke of a new lot what revocations that came before it say. Answers how much."""
    granted = lot.granted_micros
    taken_before = 0
    lot.revocations = {}
    for revocation_id, early in revocations.items():
        level = level_micros(granted, early.fraction_ppm, early.amount_micros)
        taken = min(_net_micros(granted, early), granted - taken_before)
        lot.revocations[revocation_id] = [level, taken]
        taken_before += taken
    posting.touch_lot(lot)
    if taken_before:
        take_back(posting, account, lot, taken_before)
    return taken_before


def give_back(posting: Posting, account: Account, lot: Lot, micros: int, **of_entry: Any) -> Entry:
    """Undo a revocation: first what was charged elsewhere, then what was taken from the lot."""
    elsewhere = min(micros, lot.revoked_micros - lot.revoked_here_micros)
    here = micros - elsewhere
    lot.revoked_micros -= micros
    lot.revoked_here_micros -= here
    parts = [Part(lot.seq, here)] if here else []
    entry = funds.restore(posting, account, EntryKind.REINSTATEMENT, parts, elsewhere,
                          related_seq=lot.seq, **of_entry)  # fmt: skip
    posting.touch_lot(lot)
    return entry
