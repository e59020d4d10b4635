"""Outcomes to responses.

Those of operations are set in place: a message that is handed to another one is copied.
"""

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


def balance(of: Balance) -> types_pb2.Balance:
    message = types_pb2.Balance()
    _set_balance(message, of)
    return message


def _set_balance(message: types_pb2.Balance, of: Balance) -> None:
    """What is 0 already need not be set."""
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


def reserve(response: pb.ReserveResponse, outcome: Reserved) -> pb.ReserveResponse:
    _set_balance(response.balance, outcome.balance)
    response.held_micros = outcome.held_micros
    set_timestamp(response.expire_time, outcome.expire_time)
    response.created = not outcome.replayed
    response.replayed = outcome.replayed
    return response


def settle(response: pb.SettleResponse, outcome: Settled) -> pb.SettleResponse:
    _set_balance(response.balance, outcome.balance)
    response.charged_micros = outcome.charged_micros
    response.from_hold_micros = outcome.from_hold_micros
    response.overage_micros = outcome.overage_micros
    response.shortfall_micros = outcome.shortfall_micros
    response.released_micros = outcome.released_micros
    response.late = outcome.late
    response.replayed = outcome.replayed
    response.entry_seq = outcome.entry_seq
    return response


def release(response: pb.ReleaseResponse, outcome: Released) -> pb.ReleaseResponse:
    _set_balance(response.balance, outcome.balance)
    response.changed = outcome.changed
    response.reservation.CopyFrom(reservation(outcome.reservation))
    return response


def extend(response: pb.ExtendResponse, outcome: Extended) -> pb.ExtendResponse:
    _set_balance(response.balance, outcome.balance)
    response.held_micros = outcome.held_micros
    set_timestamp(response.expire_time, outcome.expire_time)
    response.on_expiry = types_pb2.OnExpiry.Value(f"ON_EXPIRY_{outcome.on_expiry}")
    response.replayed = outcome.replayed
    return response


def debit(response: _Debit, outcome: Debited) -> _Debit:
    """The response to Debit or to DebitOnce."""
    _set_balance(response.balance, outcome.balance)
    response.status = pb.DEBIT_STATUS_REPLAYED if outcome.replayed else pb.DEBIT_STATUS_DEBITED
    _set_entry(response.entry, outcome.entry)
    response.replayed = outcome.replayed
    return response


def grant_once(response: pb.GrantOnceResponse, outcome: Granted) -> pb.GrantOnceResponse:
    _set_balance(response.balance, outcome.balance)
    if outcome.entry is not None:
        _set_entry(response.entry, outcome.entry)
    response.debt_repaid_micros = outcome.debt_repaid_micros
    response.replayed = outcome.replayed
    response.pending = outcome.pending
    response.revoked_micros = outcome.revoked_micros
    return response


def refund_charge(response: pb.RefundChargeResponse, outcome: Refunded) -> pb.RefundChargeResponse:
    _set_balance(response.balance, outcome.balance)
    _set_entry(response.entry, outcome.entry)
    response.refunded_micros = outcome.refunded_micros
    response.charge_refunded_micros = outcome.charge_refunded_micros
    response.replayed = outcome.replayed
    return response


def revoke_grant(response: pb.RevokeGrantResponse, outcome: Revoked) -> pb.RevokeGrantResponse:
    _set_change(response, outcome)
    response.revoked_micros = outcome.revoked_micros
    return response


def reinstate_grant(
    response: pb.ReinstateGrantResponse, outcome: Reinstated
) -> pb.ReinstateGrantResponse:
    _set_change(response, outcome)
    response.reinstated_micros = outcome.reinstated_micros
    return response


def _set_change(
    response: pb.RevokeGrantResponse | pb.ReinstateGrantResponse, outcome: Revoked | Reinstated
) -> None:
    response.account = outcome.account.account
    response.unit = outcome.account.unit
    _set_balance(response.balance, outcome.balance)
    if outcome.entry is not None:
        _set_entry(response.entry, outcome.entry)
    response.grant_revoked_micros = outcome.grant_revoked_micros
    response.tombstone = outcome.tombstone


def _struct(text: str) -> Struct:
    message = Struct()
    message.update(orjson.loads(text))
    return message
