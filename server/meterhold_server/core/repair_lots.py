"""Repairs of lots and debt, from what the entries say of them."""

from __future__ import annotations

from datetime import datetime

from meterhold_server.core.corrections import BeyondRepairError, Corrections
from meterhold_server.core.counting import Beside, Total
from meterhold_server.core.funds import spend_key
from meterhold_server.core.model import Account, EntryKind, Lot, LotCategory, Part
from meterhold_server.core.repair_holds import earmarked
from meterhold_server.core.summary import Opening


def repair_lots(ledger: Corrections) -> None:
    """Make lots and debt agree with the ledger, or the ledger with them where it contradicts."""
    account = ledger.account
    _restore(ledger)
    known = {lot.seq for lot in account.lots}
    if any(micros > 0 for seq, micros in ledger.parts.items() if seq not in known):
        # Credits in a lot that nothing is known of: they are not to be taken for lost.
        raise BeyondRepairError
    held = earmarked(account)
    for lot in account.lots:
        lot.held_micros = held.get(lot.seq, 0)
        lot.repaid_micros = max(0, lot.repaid_micros)
        lot.expired_micros = ledger.summary.lots_expired.get(lot.seq, 0)
        revoked = ledger.summary.lots_revoked.get(lot.seq, 0)
        _repair_revoked(lot, min(max(0, revoked), lot.granted_micros))
        _tell(ledger, Total.REVOKED, lot, lot.revoked_micros, revoked)
    # The lots are right, and their history is not, if the balance says so.
    trusted = ledger.remaining_micros == _owned(account) - account.debt_micros
    for lot in account.lots:
        _repair(lot, ledger.parts.get(lot.seq, 0), trusted=trusted)
    _explain(ledger)
    _repair_debt(ledger, trusted=trusted)
    for lot in account.lots:
        _fit(lot)
        said = ledger.summary.lots_expired.get(lot.seq, 0)
        _tell(ledger, Total.EXPIRED, lot, lot.expired_micros, said)


def _fit(lot: Lot) -> None:
    """What a lot has is right by now: no more of it can be gone than the rest."""
    rest = lot.granted_micros - _left(lot)
    lot.revoked_here_micros = max(0, min(lot.revoked_here_micros, rest))
    most = min(rest - lot.revoked_here_micros, lot.granted_micros - lot.revoked_micros)
    lot.expired_micros = max(0, min(lot.expired_micros, most))


def _left(lot: Lot) -> int:
    return lot.available_micros + lot.held_micros


def _tell(ledger: Corrections, total: Total, lot: Lot, micros: int, said_micros: int) -> None:
    """Tell what entries say of a lot and cannot be."""
    if micros != said_micros:
        reason = f"lot {lot.seq} cannot have {total.value} {said_micros}, as its entries say"
        ledger.count_beside(Beside(total, lot.seq, micros - said_micros), reason, micros)


def _restore(ledger: Corrections) -> None:
    """Open lots again that are gone, by the entries that opened them."""
    known = {lot.seq for lot in ledger.account.lots}
    for seq, opening in ledger.summary.openings.items():
        if seq not in known and ledger.parts.get(seq, 0) > 0:
            ledger.account.lots.append(_lot_of(opening))
    ledger.account.lots.sort(key=spend_key)


def _lot_of(opening: Opening) -> Lot:
    entry, request = opening
    own = sum(part for lot_seq, part in entry.parts if lot_seq == entry.seq)
    whole = entry.kind in (EntryKind.GRANT, EntryKind.ALLOWANCE)
    terms = request or {"priority": 10 if entry.kind is EntryKind.ALLOWANCE else 50}
    expire_time = terms.get("expire_time")
    return Lot(
        entry.account_id,
        entry.seq,
        granted_micros=entry.amount_micros if whole else own,
        available_micros=0,
        held_micros=0,
        priority=terms.get("priority", 0),
        category=LotCategory(terms.get("category", LotCategory.PAID)),
        expire_time=datetime.fromisoformat(expire_time) if expire_time else None,
        create_time=entry.create_time,
        idempotency_key=entry.key,
        cash=terms.get("cash"),
        source=terms.get("source"),
    )


def _repair_revoked(lot: Lot, micros: int) -> None:
    """Count as revoked what the entries say, and as taken by the latest revocations first."""
    lot.revoked_micros = micros
    lot.revoked_here_micros = max(0, min(lot.revoked_here_micros, micros))
    said = lot.revocations or ({"": [micros, 0]} if micros else {})
    left = micros
    revocations: dict[str, list[int]] = {}
    for revocation_id, (level, taken) in said.items():
        revocations[revocation_id] = [level, min(taken, left)]
        left -= min(taken, left)
    for levels in revocations.values():
        levels[1] += left
        left = 0
    lot.revocations = revocations or lot.revocations


def _repair(lot: Lot, parts_micros: int, *, trusted: bool) -> None:
    """Bring what a lot has and had as near to its parts of entries as it can be."""
    if _left(lot) + lot.repaid_micros == parts_micros:
        return
    repaid = parts_micros - lot.available_micros - lot.held_micros
    if trusted:
        lot.repaid_micros = repaid if repaid >= 0 else lot.repaid_micros
        return
    gone = lot.expired_micros + lot.revoked_here_micros + lot.held_micros
    available = parts_micros - lot.held_micros - lot.repaid_micros
    lot.available_micros = max(0, min(available, lot.granted_micros - gone))


def _explain(ledger: Corrections) -> None:
    """Post what lots have and their entries do not say: all that is more, all that is less."""
    off = {seq: -micros for seq, micros in ledger.parts.items()}
    for lot in ledger.account.lots:
        has = _left(lot) + lot.repaid_micros
        off[lot.seq] = off.get(lot.seq, 0) + has
    for sign, said in ((1, "less"), (-1, "more")):
        parts = [Part(seq, sign * micros) for seq, micros in off.items() if sign * micros > 0]
        micros = sum(part for _, part in parts)
        if micros:
            reason = f"the entries of lots said {said} than the lots have"
            expected = sum(ledger.parts.get(seq, 0) for seq, _ in parts)
            ledger.post(sign * micros, reason, expected, expected + sign * micros, parts=parts)


def _repair_debt(ledger: Corrections, *, trusted: bool) -> None:
    """What is owned and not in lots is owed. A ledger that says more than the lots is corrected."""
    account = ledger.account
    owed = _owned(account) - ledger.remaining_micros
    debt = account.debt_micros if trusted else max(0, owed)
    if owed != debt:
        balance = _owned(account) - debt
        reason = "the ledger did not say what lots, holds and debt do"
        before = ledger.remaining_micros
        ledger.post(balance - before, reason, before, balance)
    account.debt_micros = debt
    for lot in account.lots:
        repaid = min(lot.available_micros, account.debt_micros)
        lot.available_micros -= repaid
        lot.repaid_micros += repaid
        account.debt_micros -= repaid


def _owned(account: Account) -> int:
    """What is in the lots, held or not."""
    return sum(map(_left, account.lots))
