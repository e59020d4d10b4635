"""Rows to core objects and back. Rows are tuples in the order of the tables' columns.

Those of changes have the primary key and then what changes, as the statements name it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from operator import attrgetter
from typing import Any, Final, TypeVar

import orjson
from sqlalchemy import Table

from meterhold_server.core.model import (
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
    PENDING_GRANT_CHANGING,
    RESERVATION_CHANGING,
)
from meterhold_server.storage.tables import (
    account,
    allowance,
    charge_refund,
    lot,
    pending_grant,
    reservation,
)

Row = Sequence[Any]

_T = TypeVar("_T", contravariant=True)
_RowOf = Callable[[_T], Row]

_MICROSECOND: Final = timedelta(microseconds=1)

# To call an enumeration takes ten times as long.
_CLAIM_KIND: Final = {str(each): each for each in ClaimKind}
_ENTRY_KIND: Final = {str(each): each for each in EntryKind}
_LOT_CATEGORY: Final = {str(each): each for each in LotCategory}
_ON_EXPIRY: Final = {str(each): each for each in OnExpiry}
_RESERVATION_STATE: Final = {str(each): each for each in ReservationState}


def account_from(row: Row) -> Account:
    account_id, namespace, account, unit, *rest = row
    found = Account(AccountKey(namespace, account, unit), account_id, *rest)
    found.stored = True
    return found


def lot_from(row: Row) -> Lot:
    account_id, seq, granted, available, held, _live, priority, category, *rest = row
    found = Lot(account_id, seq, granted, available, held, priority, _LOT_CATEGORY[category], *rest)
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
        _RESERVATION_STATE[state],
        reserved,
        open_micros,
        _parts_from(parts),
        on_credit,
        _ON_EXPIRY[on_expiry],
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
        _ENTRY_KIND[kind],
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
        _LOT_CATEGORY[category],
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
        ClaimKey(_CLAIM_KIND[kind], scope, key),
        account_id,
        Receipt(request, answer),
        entry_from(entry) if entry[0] is not None else None,
        create_time,
    )


def _all_of(table: Table, **elsewhere: str) -> Callable[[Any], Row]:
    """The attributes that are called as the columns of a table, but for those found elsewhere."""
    return attrgetter(*(elsewhere.get(column.name, column.name) for column in table.c))


account_row: Final[_RowOf[Account]] = _all_of(
    account, namespace="key.namespace", account="key.account", unit="key.unit"
)
account_changes: Final[_RowOf[Account]] = attrgetter("account_id", *ACCOUNT_CHANGING)
lot_row: Final[_RowOf[Lot]] = _all_of(lot)
lot_changes: Final[_RowOf[Lot]] = attrgetter("account_id", "seq", *LOT_CHANGING)
"""What changes of most lots."""
lot_history: Final[_RowOf[Lot]] = attrgetter("account_id", "seq", *LOT_HISTORY_CHANGING)
"""All that changes of a lot."""
charge_refund_row: Final[_RowOf[ChargeRefund]] = _all_of(charge_refund)
allowance_row: Final[_RowOf[Allowance]] = _all_of(allowance)
pending_grant_row: Final[_RowOf[PendingGrant]] = _all_of(pending_grant)
pending_grant_changes: Final[_RowOf[PendingGrant]] = attrgetter(
    "account_id", "idempotency_key", *PENDING_GRANT_CHANGING
)
_reservation_row: Final = _all_of(reservation, ttl_microseconds="ttl")
_TTL_PLACE: Final = [column.name for column in reservation.c].index("ttl_microseconds")
reservation_changes: Final[_RowOf[Reservation]] = attrgetter(
    "account_id", "reservation_id", *RESERVATION_CHANGING
)


def reservation_row(of: Reservation) -> Row:
    row = _reservation_row(of)
    return (*row[:_TTL_PLACE], of.ttl // _MICROSECOND, *row[_TTL_PLACE + 1 :])


def tombstone_row(of: Tombstone) -> Row:
    return (*of.grant_key, of.create_time, of.source, of.revocations)


def tombstone_changes(of: Tombstone) -> Row:
    return (*of.grant_key, of.source, of.revocations)


def defaults_row(of: Defaults) -> Row:
    lifetime = of.signup_lifetime
    return (
        *of.key,
        of.signup_micros,
        None if lifetime is None else lifetime // _MICROSECOND,
        of.allowance._asdict() if of.allowance else None,
    )


def entry_row(of: Entry) -> Row:
    return (
        *of[:6],
        of.reservation_id or None,
        of.key or None,
        of.related_seq or None,
        *of[9:13],
        of.reason or None,
    )


def claim_key_row(of: ClaimKey) -> Row:
    """In the order of the primary key, be it of the namespace or of the account."""
    return (of.scope, of.kind, of.key)


def claim_row(of: Claim) -> Row:
    """Of a key that is unique in the namespace."""
    return (*claim_key_row(of.claim_key), of.account_id, *_receipt_of(of))


def account_claim_row(of: Claim) -> Row:
    """Of a key that is unique in its account."""
    return (*claim_key_row(of.claim_key), *_receipt_of(of))


def _receipt_of(of: Claim) -> Row:
    return (of.entry.seq if of.entry else None, *of.receipt, of.create_time)


def _parts_from(pairs: Sequence[Sequence[int]]) -> list[Part]:
    return [Part(*pair) for pair in pairs]


def _text_from(value: Any) -> str | None:
    return None if value is None else orjson.dumps(value).decode()


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
