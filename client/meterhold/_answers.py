"""Answers of the wire → results, for both clients."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Protocol

from meterhold import _enums, _metadata
from meterhold._enums import (
    AllowancePeriod,
    DebitStatus,
    EntryKind,
    LotCategory,
    OnExpiry,
    ReservationState,
    Scope,
)
from meterhold._results import (
    Account,
    Balance,
    CreatedApiKey,
    Credential,
    DebitResult,
    Defaults,
    Difference,
    Entry,
    ExtendResult,
    GrantResult,
    Lot,
    RebuildResult,
    RefundResult,
    ReinstateResult,
    ReleaseResult,
    Reservation,
    ReserveResult,
    RevokeResult,
    SettleResult,
    SpendReport,
    SpendRow,
    Stats,
    VerifyResult,
)
from meterhold._values import Allowance, Cash, SignupGrant, Source, Usage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.protobuf.duration_pb2 import Duration
    from google.protobuf.timestamp_pb2 import Timestamp

    from meterhold.v1 import (
        admin_service_pb2,
        ledger_service_pb2,
        metering_service_pb2,
        types_pb2,
    )

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_ON_EXPIRY = _enums.by_number(_enums.ON_EXPIRY_NUMBERS)
_LOT_CATEGORY = _enums.by_number(_enums.LOT_CATEGORY_NUMBERS)
_ENTRY_KIND = _enums.by_number(_enums.ENTRY_KIND_NUMBERS)
_ALLOWANCE_PERIOD = _enums.by_number(_enums.ALLOWANCE_PERIOD_NUMBERS)
_RESERVATION_STATE = _enums.by_number(_enums.RESERVATION_STATE_NUMBERS)
_SCOPE = _enums.by_number(_enums.SCOPE_NUMBERS)
_DEBIT_STATUS = _enums.by_number(_enums.DEBIT_STATUS_NUMBERS)


class Page(Protocol):
    """A response that is a page."""

    next_page_token: str


def reserve(response: metering_service_pb2.ReserveResponse) -> ReserveResult:
    return ReserveResult(
        held_micros=response.held_micros,
        expire_time=_time(response.expire_time),
        created=response.created,
        replayed=response.replayed,
        balance=_balance(response.balance),
    )


def settle(response: metering_service_pb2.SettleResponse) -> SettleResult:
    return SettleResult(
        charged_micros=response.charged_micros,
        from_hold_micros=response.from_hold_micros,
        overage_micros=response.overage_micros,
        shortfall_micros=response.shortfall_micros,
        released_micros=response.released_micros,
        late=response.late,
        replayed=response.replayed,
        entry_seq=response.entry_seq,
        balance=_balance(response.balance),
    )


def release(response: metering_service_pb2.ReleaseResponse) -> ReleaseResult:
    return ReleaseResult(
        changed=response.changed,
        reservation=_reservation(response.reservation),
        balance=_balance(response.balance),
    )


def extend(response: metering_service_pb2.ExtendResponse) -> ExtendResult:
    return ExtendResult(
        held_micros=response.held_micros,
        expire_time=_time(response.expire_time),
        on_expiry=_ON_EXPIRY.get(response.on_expiry, OnExpiry.UNKNOWN),
        replayed=response.replayed,
        balance=_balance(response.balance),
    )


def debit(
    response: metering_service_pb2.DebitResponse | metering_service_pb2.DebitOnceResponse,
) -> DebitResult:
    return DebitResult(
        status=_DEBIT_STATUS.get(response.status, DebitStatus.UNKNOWN),
        entry=_entry(response.entry),
        replayed=response.replayed,
        balance=_balance(response.balance),
    )


def grant(response: metering_service_pb2.GrantOnceResponse) -> GrantResult:
    return GrantResult(
        entry=_entry(response.entry) if response.HasField("entry") else None,
        debt_repaid_micros=response.debt_repaid_micros,
        replayed=response.replayed,
        balance=_balance(response.balance),
        pending=response.pending,
        revoked_micros=response.revoked_micros,
    )


def refund(response: metering_service_pb2.RefundChargeResponse) -> RefundResult:
    return RefundResult(
        entry=_entry(response.entry),
        refunded_micros=response.refunded_micros,
        charge_refunded_micros=response.charge_refunded_micros,
        replayed=response.replayed,
        balance=_balance(response.balance),
    )


def revoke(response: metering_service_pb2.RevokeGrantResponse) -> RevokeResult:
    return RevokeResult(
        account=response.account,
        unit=response.unit,
        balance=_balance(response.balance),
        entry=_entry(response.entry) if response.HasField("entry") else None,
        revoked_micros=response.revoked_micros,
        grant_revoked_micros=response.grant_revoked_micros,
        tombstone=response.tombstone,
    )


def reinstate(response: metering_service_pb2.ReinstateGrantResponse) -> ReinstateResult:
    return ReinstateResult(
        account=response.account,
        unit=response.unit,
        balance=_balance(response.balance),
        entry=_entry(response.entry) if response.HasField("entry") else None,
        reinstated_micros=response.reinstated_micros,
        grant_revoked_micros=response.grant_revoked_micros,
        tombstone=response.tombstone,
    )


def balance(response: metering_service_pb2.BalanceResponse) -> Balance:
    return _balance(
        response.balance, tuple(map(_lot, response.lots)), tuple(map(_lot, response.pending))
    )


def configured(response: admin_service_pb2.ConfigureAccountResponse) -> Account:
    return _account(response.account)


def account(response: admin_service_pb2.GetAccountResponse) -> Account:
    return _account(response.account)


def accounts(response: admin_service_pb2.ListAccountsResponse) -> Iterator[Account]:
    return map(_account, response.accounts)


def defaults(
    response: (admin_service_pb2.ConfigureDefaultsResponse | admin_service_pb2.GetDefaultsResponse),
) -> Defaults:
    found = response.defaults
    return Defaults(
        unit=found.unit,
        signup_grant=_signup_grant(found.signup_grant) if found.HasField("signup_grant") else None,
        allowance=_allowance(found.allowance) if found.HasField("allowance") else None,
    )


def created_api_key(response: admin_service_pb2.CreateApiKeyResponse) -> CreatedApiKey:
    return CreatedApiKey(credential=_credential(response.credential), api_key=response.api_key)


def credentials(response: admin_service_pb2.ListCredentialsResponse) -> Iterator[Credential]:
    return map(_credential, response.credentials)


def revoked_credential(
    response: admin_service_pb2.RevokeCredentialResponse,
) -> Credential | None:
    return _credential(response.credential) if response.HasField("credential") else None


def verified(response: admin_service_pb2.VerifyBalanceResponse) -> VerifyResult:
    return VerifyResult(
        differences=tuple(map(_difference, response.differences)),
        balance=_balance(response.balance),
        entry_count=response.entry_count,
    )


def rebuilt(response: admin_service_pb2.RebuildBalanceResponse) -> RebuildResult:
    return RebuildResult(
        repaired=tuple(map(_difference, response.repaired)),
        remaining=tuple(map(_difference, response.remaining)),
        corrections=tuple(map(_entry, response.corrections)),
        balance=_balance(response.balance),
    )


def reservation(response: ledger_service_pb2.GetReservationResponse) -> Reservation:
    return _reservation(response.reservation)


def entry(response: ledger_service_pb2.GetEntryResponse) -> Entry:
    return _entry(response.entry)


def reservations(response: ledger_service_pb2.ListReservationsResponse) -> Iterator[Reservation]:
    return map(_reservation, response.reservations)


def entries(response: ledger_service_pb2.ListEntriesResponse) -> Iterator[Entry]:
    return map(_entry, response.entries)


def lots(response: ledger_service_pb2.ListLotsResponse) -> Iterator[Lot]:
    return map(_lot, response.lots)


def stats(response: ledger_service_pb2.GetStatsResponse) -> Stats:
    return Stats(
        unit=response.unit,
        account_count=response.account_count,
        granted_micros=response.granted_micros,
        spent_micros=response.spent_micros,
        refunded_micros=response.refunded_micros,
        expired_micros=response.expired_micros,
        revoked_micros=response.revoked_micros,
        outstanding_micros=response.outstanding_micros,
        held_micros=response.held_micros,
        debt_micros=response.debt_micros,
        pending_micros=response.pending_micros,
        read_time=_time(response.read_time),
    )


def spend_report(response: ledger_service_pb2.SpendReportResponse) -> SpendReport:
    return SpendReport(
        rows=tuple(map(_spend_row, response.rows)),
        total=_spend_row(response.total),
        group_count=response.group_count,
        read_time=_time(response.read_time),
    )


def _balance(
    message: types_pb2.Balance, lots: tuple[Lot, ...] = (), pending: tuple[Lot, ...] = ()
) -> Balance:
    return Balance(
        ledger_seq=message.ledger_seq,
        available_micros=message.available_micros,
        held_micros=message.held_micros,
        remaining_micros=message.remaining_micros,
        granted_micros=message.granted_micros,
        spent_micros=message.spent_micros,
        expired_micros=message.expired_micros,
        revoked_micros=message.revoked_micros,
        refunded_micros=message.refunded_micros,
        debt_micros=message.debt_micros,
        credit_limit_micros=message.credit_limit_micros,
        pending_micros=message.pending_micros,
        lots=lots,
        pending=pending,
    )


def _account(message: admin_service_pb2.Account) -> Account:
    return Account(
        account=message.account,
        unit=message.unit,
        balance=_balance(message.balance),
        holds_use_credit=message.holds_use_credit,
        frozen=message.frozen,
        create_time=_time(message.create_time) if message.HasField("create_time") else None,
        allowance=_allowance(message.allowance) if message.HasField("allowance") else None,
        refill_time=_time(message.refill_time) if message.HasField("refill_time") else None,
    )


def _allowance(message: types_pb2.Allowance) -> Allowance:
    return Allowance(
        amount_micros=message.amount_micros,
        period=_ALLOWANCE_PERIOD.get(message.period, AllowancePeriod.UNKNOWN),
        anchor_time=_time(message.anchor_time) if message.HasField("anchor_time") else None,
        priority=message.priority if message.HasField("priority") else None,
    )


def _signup_grant(message: admin_service_pb2.SignupGrant) -> SignupGrant:
    return SignupGrant(
        amount_micros=message.amount_micros,
        lifetime=_duration(message.lifetime) if message.HasField("lifetime") else None,
    )


def _difference(message: admin_service_pb2.Difference) -> Difference:
    return Difference(
        what=message.what,
        stored_micros=message.stored_micros,
        expected_micros=message.expected_micros,
        description=message.description,
    )


def _credential(message: admin_service_pb2.Credential) -> Credential:
    return Credential(
        credential_id=message.credential_id,
        name=message.name,
        scopes=tuple(_SCOPE.get(scope, Scope.UNKNOWN) for scope in message.scopes),
        certificate_name=message.certificate_name,
        operations_per_second_max=message.operations_per_second_max,
        create_time=_time(message.create_time),
        last_use_time=_time(message.last_use_time) if message.HasField("last_use_time") else None,
        revoke_time=_time(message.revoke_time) if message.HasField("revoke_time") else None,
    )


def _spend_row(message: ledger_service_pb2.SpendRow) -> SpendRow:
    return SpendRow(
        values=tuple(message.values),
        charged_micros=message.charged_micros,
        refunded_micros=message.refunded_micros,
        charge_count=message.charge_count,
    )


def _entry(message: types_pb2.Entry) -> Entry:
    return Entry(
        seq=message.seq,
        kind=_ENTRY_KIND.get(message.kind, EntryKind.UNKNOWN),
        amount_micros=message.amount_micros,
        remaining_after_micros=message.remaining_after_micros,
        create_time=_time(message.create_time),
        reservation_id=message.reservation_id,
        key=message.key,
        related_seq=message.related_seq,
        labels=dict(message.labels),
        usage=_usage(message.usage) if message.HasField("usage") else None,
        metadata=(
            _metadata.from_struct(message.metadata) if message.HasField("metadata") else None
        ),
        reason=message.reason,
        description=message.description,
    )


def _usage(message: types_pb2.Usage) -> Usage:
    return Usage(
        provider=message.provider,
        model=message.model,
        input_tokens=message.input_tokens,
        output_tokens=message.output_tokens,
        cache_read_tokens=message.cache_read_tokens,
        cache_write_tokens=message.cache_write_tokens,
        provider_cost_micros=message.provider_cost_micros,
        stop_reason=message.stop_reason,
    )


def _lot(message: types_pb2.Lot) -> Lot:
    return Lot(
        seq=message.seq,
        granted_micros=message.granted_micros,
        available_micros=message.available_micros,
        held_micros=message.held_micros,
        priority=message.priority,
        category=_LOT_CATEGORY.get(message.category, LotCategory.UNKNOWN),
        expire_time=_time(message.expire_time) if message.HasField("expire_time") else None,
        create_time=_time(message.create_time),
        idempotency_key=message.idempotency_key,
        cash=_cash(message.cash) if message.HasField("cash") else None,
        source=_source(message.source) if message.HasField("source") else None,
        expired_micros=message.expired_micros,
        revoked_micros=message.revoked_micros,
        effective_time=(
            _time(message.effective_time) if message.HasField("effective_time") else None
        ),
    )


def _cash(message: types_pb2.Cash) -> Cash:
    return Cash(currency_code=message.currency_code, minor_units=message.minor_units)


def _source(message: types_pb2.Source) -> Source:
    return Source(
        provider=message.provider,
        order_id=message.order_id,
        store_id=message.store_id,
        test_mode=message.test_mode,
        variant_id=message.variant_id,
    )


def _reservation(message: types_pb2.Reservation) -> Reservation:
    return Reservation(
        reservation_id=message.reservation_id,
        state=_RESERVATION_STATE.get(message.state, ReservationState.UNKNOWN),
        held_micros=message.held_micros,
        reserved_micros=message.reserved_micros,
        captured_micros=message.captured_micros,
        released_micros=message.released_micros,
        expiry_charged_micros=message.expiry_charged_micros,
        on_expiry=_ON_EXPIRY.get(message.on_expiry, OnExpiry.UNKNOWN),
        expire_time=_time(message.expire_time),
        create_time=_time(message.create_time),
        end_time=_time(message.end_time) if message.HasField("end_time") else None,
        late=message.late,
        ttl=_duration(message.ttl),
        labels=dict(message.labels),
        metadata=(
            _metadata.from_struct(message.metadata) if message.HasField("metadata") else None
        ),
    )


def _time(message: Timestamp) -> datetime:
    # By hand, because Timestamp.ToDatetime takes several times as long.
    return _EPOCH + timedelta(seconds=message.seconds, microseconds=message.nanos // 1000)


def _duration(message: Duration) -> timedelta:
    return timedelta(seconds=message.seconds, microseconds=message.nanos // 1000)
