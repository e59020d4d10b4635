"""Rows to core objects and back. Rows are tuples in the order of the tables' columns."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import orjson

from meterhold_server.core.model import (
    NAMESPACE_CLAIM_KINDS,
    Account,
    AccountKey,
    Allowance,
    AllowancePeriod,
    AllowanceTerms,
    ChargeRefund,
    Claim,
    ClaimKey,
    ClaimKind,
    Defaults,
    DefaultsKey,
    EarlyRevocation,
    EarlyRevocations,
    Entry,
    EntryKind,
    GrantKey,
    Lot,
    LotCategory,
    OnExpiry,
    Part,
    PendingGrant,
    PendingState,
    Receipt,
    Reservation,
    ReservationState,
    Tombstone,
)
from meterhold_server.storage.statements import (
    ACCOUNT_CHANGING,
    LOT_CHANGING,
    LOT_HISTORY_CHANGING,
    RESERVATION_CHANGING,
)

Row = Sequence[Any]

_MICROSECOND: Final = timedelta(microseconds=1)


def account_from(row: Row) -> Account:
    account_id, namespace, account, unit, *rest = row
    found = Account(AccountKey(namespace, account, unit), account_id, *rest)
    found.stored = True
    return found


def lot_from(row: Row) -> Lot:
    account_id, seq, granted, available, held, _live, priority, category, *rest = row
    found = Lot(account_id, seq, granted, available, held, priority, LotCategory(category), *rest)
    found.stored = True
    return found


def reservation_from(row: Row) -> Reservation:
    (
        account_id,
        reservation_id,
        state,
        reserved,
        open_micros,
        on_credit,
        captured,
        from_hold,
        released,
        expiry_charged,
        expiry_charge_seq,
        parts,
        on_expiry,
        late,
        ttl_microseconds,
        expire_time,
        create_time,
        end_time,
        opening,
        closing,
        labels,
        metadata,
    ) = row
    return Reservation(
        account_id,
        reservation_id,
        ReservationState(state),
        reserved,
        open_micros,
        _parts_from(parts),
        on_credit,
        OnExpiry(on_expiry),
        ttl_microseconds * _MICROSECOND,
        expire_time,
        create_time,
        Receipt(*opening),
        Receipt(*closing) if closing else None,
        captured,
        from_hold,
        released,
        expiry_charged,
        expiry_charge_seq,
        late,
        end_time,
        labels,
        _text_from(metadata),
        stored=True,
    )


def entry_from(row: Row) -> Entry:
    (
        account_id,
        seq,
        kind,
        amount,
        remaining_after,
        create_time,
        reservation_id,
        key,
        related_seq,
        parts,
        labels,
        usage,
        metadata,
        reason,
    ) = row
    return Entry(
        account_id,
        seq,
        EntryKind(kind),
        amount,
        remaining_after,
        create_time,
        reservation_id or "",
        key or "",
        related_seq or 0,
        _parts_from(parts),
        labels,
        usage,
        _text_from(metadata),
        reason or "",
    )


def charge_refund_from(row: Row) -> ChargeRefund:
    account_id, charge_seq, refunded_micros = row
    return ChargeRefund(account_id, charge_seq, refunded_micros, stored=True)


def allowance_from(row: Row) -> Allowance:
    account_id, amount_micros, period, *rest = row
    found = Allowance(account_id, amount_micros, AllowancePeriod(period), *rest)
    found.stored = True
    return found


def pending_grant_from(row: Row) -> PendingGrant:
    (
        account_id,
        key,
        amount_micros,
        effective_time,
        state,
        entry_seq,
        priority,
        category,
        expire_time,
        create_time,
        reason,
        cash,
        source,
        labels,
        metadata,
        revocations,
    ) = row
    return PendingGrant(
        account_id,
        key,
        amount_micros,
        effective_time,
        PendingState(state),
        entry_seq,
        priority,
        LotCategory(category),
        expire_time,
        create_time,
        reason,
        cash,
        source,
        labels,
        _text_from(metadata),
        _early_from(revocations),
        stored=True,
    )


def tombstone_from(row: Row) -> Tombstone:
    namespace, key, create_time, source, revocations = row
    grant_key = GrantKey(namespace, key)
    return Tombstone(grant_key, create_time, source, _early_from(revocations), stored=True)


def defaults_from(row: Row) -> Defaults:
    namespace, unit, signup_micros, lifetime_microseconds, allowance = row
    lifetime = None if lifetime_microseconds is None else lifetime_microseconds * _MICROSECOND
    return Defaults(
        DefaultsKey(namespace, unit),
        signup_micros,
        lifetime,
        _terms_from(allowance) if allowance else None,
        stored=True,
    )


def claim_from(row: Row) -> Claim:
    """From a row of `statements.CLAIMS`: the claim's columns, then its entry's or NULLs."""
    kind, scope, key, account_id, request, answer, create_time, *entry = row
    return Claim(
        ClaimKey(ClaimKind(kind), scope, key),
        account_id,
        Receipt(request, answer),
        entry_from(entry) if entry[0] is not None else None,
        create_time,
    )


def account_row(account: Account) -> dict[str, Any]:
    return {
        "account_id": account.account_id,
        "namespace": account.key.namespace,
        "account": account.key.account,
        "unit": account.key.unit,
        "create_time": account.create_time,
        **account_changes(account),
    }


def account_changes(account: Account) -> dict[str, Any]:
    row = {name: getattr(account, name) for name in ACCOUNT_CHANGING}
    row["account_id"] = account.account_id
    return row


def lot_row(lot: Lot) -> dict[str, Any]:
    return {
        **lot_history(lot),
        "granted_micros": lot.granted_micros,
        "priority": lot.priority,
        "category": lot.category,
        "expire_time": lot.expire_time,
        "create_time": lot.create_time,
        "idempotency_key": lot.idempotency_key,
        "cash": lot.cash,
        "source": lot.source,
    }


def lot_changes(lot: Lot) -> dict[str, Any]:
    """What changes of most lots."""
    return _of_lot(lot, LOT_CHANGING)


def lot_history(lot: Lot) -> dict[str, Any]:
    """All that changes of a lot."""
    return _of_lot(lot, LOT_HISTORY_CHANGING)


def _of_lot(lot: Lot, names: Sequence[str]) -> dict[str, Any]:
    row = {name: getattr(lot, name) for name in names}
    row["account_id"] = lot.account_id
    row["seq"] = lot.seq
    return row


def allowance_row(allowance: Allowance) -> dict[str, Any]:
    return {
        "account_id": allowance.account_id,
        "amount_micros": allowance.amount_micros,
        "period": allowance.period,
        "anchor_time": allowance.anchor_time,
        "priority": allowance.priority,
        "until_time": allowance.until_time,
        "refill_time": allowance.refill_time,
    }


def pending_grant_row(pending: PendingGrant) -> dict[str, Any]:
    return {
        "account_id": pending.account_id,
        "idempotency_key": pending.idempotency_key,
        "amount_micros": pending.amount_micros,
        "effective_time": pending.effective_time,
        "state": pending.state,
        "entry_seq": pending.entry_seq,
        "priority": pending.priority,
        "category": pending.category,
        "expire_time": pending.expire_time,
        "create_time": pending.create_time,
        "reason": pending.reason,
        "cash": pending.cash,
        "source": pending.source,
        "labels": pending.labels,
        "metadata": _json_of(pending.metadata),
        "revocations": _early_of(pending.revocations),
    }


def grant_key_row(grant_key: GrantKey) -> dict[str, Any]:
    return {"namespace": grant_key.namespace, "key": grant_key.key}


def tombstone_row(tombstone: Tombstone) -> dict[str, Any]:
    return {
        **grant_key_row(tombstone.grant_key),
        "create_time": tombstone.create_time,
        "source": tombstone.source,
        "revocations": _early_of(tombstone.revocations),
    }


def defaults_key_row(key: DefaultsKey) -> dict[str, Any]:
    return {"namespace": key.namespace, "unit": key.unit}


def defaults_row(defaults: Defaults) -> dict[str, Any]:
    lifetime = defaults.signup_lifetime
    return {
        **defaults_key_row(defaults.key),
        "signup_micros": defaults.signup_micros,
        "signup_lifetime_microseconds": None if lifetime is None else lifetime // _MICROSECOND,
        "allowance": _terms_of(defaults.allowance) if defaults.allowance else None,
    }


def charge_refund_row(refund: ChargeRefund) -> dict[str, Any]:
    return {
        "account_id": refund.account_id,
        "charge_seq": refund.charge_seq,
        "refunded_micros": refund.refunded_micros,
    }


def reservation_row(reservation: Reservation) -> dict[str, Any]:
    return {
        **reservation_changes(reservation),
        "ttl_microseconds": reservation.ttl // _MICROSECOND,
        "create_time": reservation.create_time,
        "opening": list(reservation.opening),
        "labels": reservation.labels,
        "metadata": _json_of(reservation.metadata),
    }


def reservation_changes(reservation: Reservation) -> dict[str, Any]:
    row = {name: getattr(reservation, name) for name in RESERVATION_CHANGING}
    row["account_id"] = reservation.account_id
    row["reservation_id"] = reservation.reservation_id
    row["parts"] = _pairs_of(reservation.parts)
    row["closing"] = list(reservation.closing) if reservation.closing else None
    return row


def entry_row(entry: Entry) -> dict[str, Any]:
    return {
        "account_id": entry.account_id,
        "seq": entry.seq,
        "kind": entry.kind,
        "amount_micros": entry.amount_micros,
        "remaining_after_micros": entry.remaining_after_micros,
        "create_time": entry.create_time,
        "reservation_id": entry.reservation_id or None,
        "key": entry.key or None,
        "related_seq": entry.related_seq or None,
        "parts": _pairs_of(entry.parts),
        "labels": entry.labels,
        "usage": entry.usage,
        "metadata": _json_of(entry.metadata),
        "reason": entry.reason or None,
    }


def claim_key_row(claim_key: ClaimKey) -> dict[str, Any]:
    scope = "namespace" if claim_key.kind in NAMESPACE_CLAIM_KINDS else "account_id"
    return {scope: claim_key.scope, "kind": claim_key.kind, "key": claim_key.key}


def claim_row(claim: Claim) -> dict[str, Any]:
    return {
        "account_id": claim.account_id,
        **claim_key_row(claim.claim_key),
        "entry_seq": claim.entry.seq if claim.entry else None,
        "request": claim.receipt.request,
        "answer": claim.receipt.answer,
        "create_time": claim.create_time,
    }


def json_rows(rows: Sequence[dict[str, Any]]) -> str:
    """The one parameter that carries many rows."""
    return orjson.dumps(rows).decode()


def _parts_from(pairs: Sequence[Sequence[int]]) -> list[Part]:
    return [Part(*pair) for pair in pairs]


def _pairs_of(parts: Sequence[Part]) -> list[list[int]]:
    return [[part.lot_seq, part.micros] for part in parts]


def _text_from(value: Any) -> str | None:
    return None if value is None else orjson.dumps(value).decode()


def _json_of(text: str | None) -> orjson.Fragment | None:
    return None if text is None else orjson.Fragment(text)


def _terms_of(terms: AllowanceTerms) -> dict[str, Any]:
    return terms._asdict()


def _terms_from(value: dict[str, Any]) -> AllowanceTerms:
    anchor = value["anchor_time"]
    return AllowanceTerms(
        value["amount_micros"],
        AllowancePeriod(value["period"]),
        datetime.fromisoformat(anchor) if anchor else None,
        value["priority"],
    )


def _early_from(value: dict[str, list[int]]) -> EarlyRevocations:
    return {revocation_id: EarlyRevocation(*levels) for revocation_id, levels in value.items()}


def _early_of(revocations: EarlyRevocations) -> dict[str, list[int]]:
    return {revocation_id: list(early) for revocation_id, early in revocations.items()}
