"""Outcomes to responses."""

from __future__ import annotations

from typing import Final, TypeVar

import orjson
from google.protobuf.struct_pb2 import Struct

from meterhold.v1 import admin_service_pb2 as admin_pb
from meterhold.v1 import metering_service_pb2 as pb
from meterhold.v1 import types_pb2
from meterhold_server.core.clawback import coming_micros
from meterhold_server.core.descriptions import description
from meterhold_server.core.differences import Difference
from meterhold_server.core.model import (
    EMPTY_BALANCE,
    Account,
    AccountKey,
    Balance,
    Entry,
    EntryKind,
    Lot,
    PendingGrant,
    Reservation,
)
from meterhold_server.core.outcomes import (
    Configured,
    Debited,
    Extended,
    Granted,
    Refunded,
    Reinstated,
    Released,
    Reserved,
    Revoked,
    Settled,
)
from meterhold_server.rpc import terms
from meterhold_server.rpc.times import duration, set_timestamp, timestamp

_INT64_MIN: Final = -(2**63)
_INT64_MAX: Final = 2**63 - 1

_Debit = TypeVar("_Debit", pb.DebitResponse, pb.DebitOnceResponse)

_KIND: Final = {kind: types_pb2.EntryKind.Value(f"ENTRY_KIND_{kind}") for kind in EntryKind}


def refund_charge(outcome: Refunded) -> pb.RefundChargeResponse:
    return pb.RefundChargeResponse(
        balance=balance(outcome.balance),
        entry=entry(outcome.entry),
        refunded_micros=outcome.refunded_micros,
        charge_refunded_micros=outcome.charge_refunded_micros,
        replayed=outcome.replayed,
    )


def balance(of: Balance) -> types_pb2.Balance:
    message = types_pb2.Balance()
    _set_balance(message, of)
    return message


def _set_balance(message: types_pb2.Balance, of: Balance) -> None:
    """In place: a message that is handed to another one is copied. What is 0 need not be set."""
    remaining = of.remaining_micros
    message.ledger_seq = of.seq
    message.available_micros = remaining - of.held_micros
    message.remaining_micros = remaining
    message.granted_micros = of.granted_micros
    message.spent_micros = of.spent_micros
    if of.held_micros:
        message.held_micros = of.held_micros
    if of.expired_micros:
        message.expired_micros = of.expired_micros
    if of.revoked_micros:
        message.revoked_micros = of.revoked_micros
    if of.refunded_micros:
        message.refunded_micros = of.refunded_micros
    if of.debt_micros:
        message.debt_micros = of.debt_micros
    if of.credit_limit_micros:
        message.credit_limit_micros = of.credit_limit_micros
    if of.pending_micros:
        message.pending_micros = of.pending_micros


def account(of: Account) -> admin_pb.Account:
    message = admin_pb.Account(
        account=of.key.account,
        unit=of.key.unit,
        balance=balance(of.balance()),
        holds_use_credit=of.holds_use_credit,
        frozen=of.frozen,
    )
    if of.create_time is not None:
        message.create_time.CopyFrom(timestamp(of.create_time))
    terms.set_allowance(message, of.allowance)
    return message


def configured(key: AccountKey, outcome: Configured) -> admin_pb.Account:
    message = admin_pb.Account(
        account=key.account,
        unit=key.unit,
        balance=balance(outcome.balance),
        holds_use_credit=outcome.holds_use_credit,
        frozen=outcome.frozen,
        create_time=timestamp(outcome.create_time),
    )
    terms.set_allowance(message, outcome.allowance)
    return message


def no_account(key: AccountKey) -> admin_pb.Account:
    """An account that does not exist: all zeros, and no time of creation."""
    return admin_pb.Account(account=key.account, unit=key.unit, balance=balance(EMPTY_BALANCE))


def difference(of: Difference) -> admin_pb.Difference:
    """Of damaged accounts a number can be past int64: then the nearest that is not is told."""
    return admin_pb.Difference(
        what=of.what,
        stored_micros=max(_INT64_MIN, min(of.stored, _INT64_MAX)),
        expected_micros=max(_INT64_MIN, min(of.expected, _INT64_MAX)),
        description=of.sentence,
    )


def entry(of: Entry) -> types_pb2.Entry:
    message = types_pb2.Entry()
    _set_entry(message, of)
    return message


def _set_entry(message: types_pb2.Entry, of: Entry) -> None:
    message.seq = of.seq
    message.kind = _KIND[of.kind]
    message.amount_micros = of.amount_micros
    message.remaining_after_micros = of.remaining_after_micros
    set_timestamp(message.create_time, of.create_time)
    message.description = description(of.kind, of.amount_micros)
    if of.reservation_id:
        message.reservation_id = of.reservation_id
    if of.key:
        message.key = of.key
    if of.related_seq:
        message.related_seq = of.related_seq
    if of.reason:
        message.reason = of.reason
    if of.labels:
        message.labels.update(of.labels)
    if of.usage:
        message.usage.CopyFrom(types_pb2.Usage(**of.usage))
    if of.metadata:
        message.metadata.CopyFrom(_struct(of.metadata))


def lot(of: Lot) -> types_pb2.Lot:
    message = _terms_of_lot(of)
    message.seq = of.seq
    message.granted_micros = of.granted_micros
    message.available_micros = of.available_micros
    message.held_micros = of.held_micros
    message.expired_micros = of.expired_micros
    message.revoked_micros = of.revoked_micros
    return message


def pending_lot(of: PendingGrant) -> types_pb2.Lot:
    """A grant that is not effective yet. Nothing of it can be spent."""
    message = _terms_of_lot(of)
    message.granted_micros = of.amount_micros
    message.revoked_micros = of.amount_micros - coming_micros(of)
    message.effective_time.CopyFrom(timestamp(of.effective_time))
    return message


def _terms_of_lot(of: Lot | PendingGrant) -> types_pb2.Lot:
    return types_pb2.Lot(
        priority=of.priority,
        category=types_pb2.LotCategory.Value(f"LOT_CATEGORY_{of.category}"),
        expire_time=timestamp(of.expire_time) if of.expire_time else None,
        create_time=timestamp(of.create_time),
        idempotency_key=of.idempotency_key,
        cash=types_pb2.Cash(**of.cash) if of.cash else None,
        source=types_pb2.Source(**of.source) if of.source else None,
    )


def reservation(of: Reservation) -> types_pb2.Reservation:
    return types_pb2.Reservation(
        reservation_id=of.reservation_id,
        state=types_pb2.ReservationState.Value(f"RESERVATION_STATE_{of.state}"),
        held_micros=of.open_micros if of.active else 0,
        reserved_micros=of.reserved_micros,
        captured_micros=of.captured_micros,
        released_micros=of.released_micros,
        expiry_charged_micros=of.expiry_charged_micros,
        on_expiry=types_pb2.OnExpiry.Value(f"ON_EXPIRY_{of.on_expiry}"),
        expire_time=timestamp(of.expire_time),
        create_time=timestamp(of.create_time),
        end_time=timestamp(of.end_time) if of.end_time else None,
        late=of.late,
        ttl=duration(of.ttl),
        labels=of.labels or {},
        metadata=_struct(of.metadata) if of.metadata else None,
    )


def reserve(outcome: Reserved) -> pb.ReserveResponse:
    response = pb.ReserveResponse(
        held_micros=outcome.held_micros,
        created=not outcome.replayed,
        replayed=outcome.replayed,
    )
    _set_balance(response.balance, outcome.balance)
    set_timestamp(response.expire_time, outcome.expire_time)
    return response


def settle(outcome: Settled) -> pb.SettleResponse:
    response = pb.SettleResponse(
        charged_micros=outcome.charged_micros,
        from_hold_micros=outcome.from_hold_micros,
        overage_micros=outcome.overage_micros,
        shortfall_micros=outcome.shortfall_micros,
        released_micros=outcome.released_micros,
        late=outcome.late,
        replayed=outcome.replayed,
        entry_seq=outcome.entry_seq,
    )
    _set_balance(response.balance, outcome.balance)
    return response


def release(outcome: Released) -> pb.ReleaseResponse:
    return pb.ReleaseResponse(
        balance=balance(outcome.balance),
        changed=outcome.changed,
        reservation=reservation(outcome.reservation),
    )


def extend(outcome: Extended) -> pb.ExtendResponse:
    return pb.ExtendResponse(
        balance=balance(outcome.balance),
        held_micros=outcome.held_micros,
        expire_time=timestamp(outcome.expire_time),
        on_expiry=types_pb2.OnExpiry.Value(f"ON_EXPIRY_{outcome.on_expiry}"),
        replayed=outcome.replayed,
    )


def debit(outcome: Debited) -> pb.DebitResponse:
    return _debited(pb.DebitResponse(), outcome)


def debit_once(outcome: Debited) -> pb.DebitOnceResponse:
    return _debited(pb.DebitOnceResponse(), outcome)


def _debited(response: _Debit, outcome: Debited) -> _Debit:
    response.status = pb.DEBIT_STATUS_REPLAYED if outcome.replayed else pb.DEBIT_STATUS_DEBITED
    response.replayed = outcome.replayed
    _set_balance(response.balance, outcome.balance)
    _set_entry(response.entry, outcome.entry)
    return response


def grant_once(outcome: Granted) -> pb.GrantOnceResponse:
    return pb.GrantOnceResponse(
        balance=balance(outcome.balance),
        entry=_optional(outcome.entry),
        debt_repaid_micros=outcome.debt_repaid_micros,
        replayed=outcome.replayed,
        pending=outcome.pending,
        revoked_micros=outcome.revoked_micros,
    )


def revoke_grant(outcome: Revoked) -> pb.RevokeGrantResponse:
    return pb.RevokeGrantResponse(
        account=outcome.account.account,
        unit=outcome.account.unit,
        balance=balance(outcome.balance),
        entry=_optional(outcome.entry),
        revoked_micros=outcome.revoked_micros,
        grant_revoked_micros=outcome.grant_revoked_micros,
        tombstone=outcome.tombstone,
    )


def reinstate_grant(outcome: Reinstated) -> pb.ReinstateGrantResponse:
    return pb.ReinstateGrantResponse(
        account=outcome.account.account,
        unit=outcome.account.unit,
        balance=balance(outcome.balance),
        entry=_optional(outcome.entry),
        reinstated_micros=outcome.reinstated_micros,
        grant_revoked_micros=outcome.grant_revoked_micros,
        tombstone=outcome.tombstone,
    )


def _optional(of: Entry | None) -> types_pb2.Entry | None:
    return None if of is None else entry(of)


def _struct(text: str) -> Struct:
    message = Struct()
    message.update(orjson.loads(text))
    return message
