"""Wire → results."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from google.protobuf import duration_pb2, struct_pb2, timestamp_pb2

from meterhold import (
    Account,
    Allowance,
    AllowancePeriod,
    Balance,
    Cash,
    CreatedApiKey,
    Credential,
    DebitResult,
    DebitStatus,
    Defaults,
    Difference,
    Entry,
    EntryKind,
    ExtendResult,
    GrantResult,
    Lot,
    LotCategory,
    OnExpiry,
    RebuildResult,
    RefundResult,
    ReinstateResult,
    ReleaseResult,
    Reservation,
    ReservationState,
    ReserveResult,
    RevokeResult,
    Scope,
    SettleResult,
    SignupGrant,
    Source,
    SpendReport,
    SpendRow,
    Stats,
    Usage,
    VerifyResult,
)
from meterhold.v1 import admin_service_pb2 as admin
from meterhold.v1 import ledger_service_pb2 as ledger
from meterhold.v1 import metering_service_pb2 as metering
from meterhold.v1 import types_pb2 as types

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from client.conftest import AnyClient
    from client.scripted_server import ScriptedServer

TIME = datetime(2026, 11, 21, 10, 0, 0, 123456, tzinfo=UTC)
TIME_ON_WIRE = timestamp_pb2.Timestamp()
TIME_ON_WIRE.FromDatetime(TIME)
CREDENTIAL_ON_WIRE = admin.Credential(
    credential_id="mfzwizlnmfzwizln",
    name="gateway",
    scopes=[admin.SCOPE_METER, admin.SCOPE_READ],
    operations_per_second_max=5,
    create_time=TIME_ON_WIRE,
    last_use_time=TIME_ON_WIRE,
)
CREDENTIAL = Credential(
    credential_id="mfzwizlnmfzwizln",
    name="gateway",
    scopes=(Scope.METER, Scope.READ),
    certificate_name="",
    operations_per_second_max=5,
    create_time=TIME,
    last_use_time=TIME,
    revoke_time=None,
)
METADATA = {"n": 3, "ratio": 0.5, "ok": True, "none": None, "list": [1, {"a": "b"}]}
STRUCT = struct_pb2.Struct()
STRUCT.update(METADATA)

_BALANCE_NUMBERS = {
    "ledger_seq": 12,
    "available_micros": -1,
    "held_micros": 2,
    "remaining_micros": 3,
    "granted_micros": 9 * 10**18,
    "spent_micros": 5,
    "expired_micros": 6,
    "revoked_micros": 7,
    "refunded_micros": 8,
    "debt_micros": 9,
    "credit_limit_micros": 10,
    "pending_micros": 11,
}
BALANCE = Balance(**_BALANCE_NUMBERS)
BALANCE_ON_WIRE = types.Balance(**_BALANCE_NUMBERS)

_USAGE_VALUES = {
    "provider": "anthropic",
    "model": "opus",
    "input_tokens": 1,
    "output_tokens": 2,
    "cache_read_tokens": 3,
    "cache_write_tokens": 4,
    "provider_cost_micros": 5,
    "stop_reason": "end_turn",
}
_ENTRY_VALUES = {
    "seq": 12,
    "amount_micros": -60,
    "remaining_after_micros": 440,
    "reservation_id": "job-7",
    "key": "k",
    "related_seq": 3,
    "labels": {"run": "7"},
    "reason": "why",
    "description": "Usage",
}
ENTRY = Entry(
    **_ENTRY_VALUES,
    kind=EntryKind.CAPTURE,
    create_time=TIME,
    usage=Usage(**_USAGE_VALUES),
    metadata=METADATA,
)
ENTRY_ON_WIRE = types.Entry(
    **_ENTRY_VALUES,
    kind=types.ENTRY_KIND_CAPTURE,
    create_time=TIME_ON_WIRE,
    usage=types.Usage(**_USAGE_VALUES),
    metadata=STRUCT,
)

_SOURCE_VALUES = {
    "provider": "stripe",
    "order_id": "o",
    "store_id": "s",
    "test_mode": True,
    "variant_id": "v",
}
_LOT_NUMBERS = {
    "seq": 1,
    "granted_micros": 500,
    "available_micros": 300,
    "held_micros": 100,
    "priority": 10,
    "idempotency_key": "invoice-17",
    "expired_micros": 60,
    "revoked_micros": 40,
}
LOT = Lot(
    **_LOT_NUMBERS,
    category=LotCategory.PAID,
    expire_time=TIME,
    create_time=TIME,
    cash=Cash(currency_code="EUR", minor_units=1999),
    source=Source(**_SOURCE_VALUES),
)
LOT_ON_WIRE = types.Lot(
    **_LOT_NUMBERS,
    category=types.LOT_CATEGORY_PAID,
    expire_time=TIME_ON_WIRE,
    create_time=TIME_ON_WIRE,
    cash=types.Cash(currency_code="EUR", minor_units=1999),
    source=types.Source(**_SOURCE_VALUES),
)

PENDING_LOT = replace(LOT, seq=0, effective_time=TIME)
PENDING_LOT_ON_WIRE = types.Lot()
PENDING_LOT_ON_WIRE.CopyFrom(LOT_ON_WIRE)
PENDING_LOT_ON_WIRE.seq = 0
PENDING_LOT_ON_WIRE.effective_time.CopyFrom(TIME_ON_WIRE)

ALLOWANCE = Allowance(
    amount_micros=5, period=AllowancePeriod.MONTHLY, anchor_time=TIME, priority=10
)
ALLOWANCE_ON_WIRE = types.Allowance(
    amount_micros=5,
    period=types.ALLOWANCE_PERIOD_MONTHLY,
    anchor_time=TIME_ON_WIRE,
    priority=10,
)

_ACCOUNT_VALUES = {
    "account": "alice",
    "unit": "credits",
    "holds_use_credit": True,
    "frozen": True,
}
ACCOUNT = Account(
    **_ACCOUNT_VALUES,
    balance=BALANCE,
    create_time=TIME,
    allowance=ALLOWANCE,
    refill_time=TIME,
)
ACCOUNT_ON_WIRE = admin.Account(
    **_ACCOUNT_VALUES,
    balance=BALANCE_ON_WIRE,
    create_time=TIME_ON_WIRE,
    allowance=ALLOWANCE_ON_WIRE,
    refill_time=TIME_ON_WIRE,
)

DEFAULTS = Defaults(
    unit="minutes",
    signup_grant=SignupGrant(amount_micros=7, lifetime=timedelta(days=30)),
    allowance=ALLOWANCE,
)
DEFAULTS_ON_WIRE = admin.Defaults(
    unit="minutes",
    signup_grant=admin.SignupGrant(
        amount_micros=7, lifetime=duration_pb2.Duration(seconds=30 * 86_400)
    ),
    allowance=ALLOWANCE_ON_WIRE,
)

_DIFFERENCE_VALUES = {
    "what": "lot 3 available",
    "stored_micros": 5,
    "expected_micros": -4,
    "description": "Lot 3 has 5 and should have -4.",
}
DIFFERENCE = Difference(**_DIFFERENCE_VALUES)
DIFFERENCE_ON_WIRE = admin.Difference(**_DIFFERENCE_VALUES)

_STATS_VALUES = {
    "unit": "minutes",
    "account_count": 1,
    "granted_micros": 2,
    "spent_micros": 3,
    "refunded_micros": 4,
    "expired_micros": 5,
    "revoked_micros": 6,
    "outstanding_micros": -7,
    "held_micros": 8,
    "debt_micros": 9,
    "pending_micros": 10,
}
_SPEND_VALUES = {"charged_micros": 5, "refunded_micros": 2, "charge_count": 3}

_RESERVATION_VALUES = {
    "reservation_id": "job-7",
    "held_micros": 0,
    "reserved_micros": 75,
    "captured_micros": 60,
    "released_micros": 15,
    "expiry_charged_micros": 4,
    "late": True,
    "labels": {"run": "7"},
}
RESERVATION = Reservation(
    **_RESERVATION_VALUES,
    state=ReservationState.SETTLED,
    on_expiry=OnExpiry.CHARGE,
    expire_time=TIME,
    create_time=TIME,
    end_time=TIME,
    ttl=timedelta(minutes=15, microseconds=1),
    metadata=METADATA,
)
RESERVATION_ON_WIRE = types.Reservation(
    **_RESERVATION_VALUES,
    state=types.RESERVATION_STATE_SETTLED,
    on_expiry=types.ON_EXPIRY_CHARGE,
    expire_time=TIME_ON_WIRE,
    create_time=TIME_ON_WIRE,
    end_time=TIME_ON_WIRE,
    ttl=duration_pb2.Duration(seconds=900, nanos=1000),
    metadata=STRUCT,
)

_SETTLE_VALUES = {
    "charged_micros": 60,
    "from_hold_micros": 50,
    "overage_micros": 10,
    "shortfall_micros": 5,
    "released_micros": 3,
    "late": True,
    "replayed": True,
    "entry_seq": 12,
}

# method, positional, keyword, response, expected result
RESULTS: list[tuple[str, tuple[Any, ...], dict[str, Any], Message, object]] = [
    (
        "reserve",
        ("alice", 75),
        {"reservation_id": "job-7"},
        metering.ReserveResponse(
            balance=BALANCE_ON_WIRE, held_micros=75, expire_time=TIME_ON_WIRE, created=True
        ),
        ReserveResult(
            balance=BALANCE, held_micros=75, expire_time=TIME, created=True, replayed=False
        ),
    ),
    (
        "settle",
        ("alice", 65),
        {"reservation_id": "job-7"},
        metering.SettleResponse(balance=BALANCE_ON_WIRE, **_SETTLE_VALUES),
        SettleResult(balance=BALANCE, **_SETTLE_VALUES),
    ),
    (
        "release",
        ("alice",),
        {"reservation_id": "job-7"},
        metering.ReleaseResponse(
            balance=BALANCE_ON_WIRE, changed=True, reservation=RESERVATION_ON_WIRE
        ),
        ReleaseResult(balance=BALANCE, changed=True, reservation=RESERVATION),
    ),
    (
        "extend",
        ("alice",),
        {"reservation_id": "job-7"},
        metering.ExtendResponse(
            balance=BALANCE_ON_WIRE,
            held_micros=75,
            expire_time=TIME_ON_WIRE,
            on_expiry=types.ON_EXPIRY_RELEASE,
            replayed=True,
        ),
        ExtendResult(
            balance=BALANCE,
            held_micros=75,
            expire_time=TIME,
            on_expiry=OnExpiry.RELEASE,
            replayed=True,
        ),
    ),
    (
        "debit",
        ("alice", 5),
        {},
        metering.DebitResponse(
            balance=BALANCE_ON_WIRE, status=metering.DEBIT_STATUS_DEBITED, entry=ENTRY_ON_WIRE
        ),
        DebitResult(balance=BALANCE, status=DebitStatus.DEBITED, entry=ENTRY, replayed=False),
    ),
    (
        "debit_once",
        ("alice", 5),
        {"idempotency_key": "k"},
        metering.DebitOnceResponse(
            balance=BALANCE_ON_WIRE,
            status=metering.DEBIT_STATUS_REPLAYED,
            entry=ENTRY_ON_WIRE,
            replayed=True,
        ),
        DebitResult(balance=BALANCE, status=DebitStatus.REPLAYED, entry=ENTRY, replayed=True),
    ),
    (
        "grant_once",
        ("alice", 5),
        {"idempotency_key": "k"},
        metering.GrantOnceResponse(
            balance=BALANCE_ON_WIRE,
            entry=ENTRY_ON_WIRE,
            debt_repaid_micros=2,
            replayed=True,
            revoked_micros=3,
        ),
        GrantResult(
            balance=BALANCE,
            entry=ENTRY,
            debt_repaid_micros=2,
            replayed=True,
            revoked_micros=3,
            pending=False,
        ),
    ),
    (
        "grant_once",
        ("alice", 5),
        {"idempotency_key": "k", "effective_time": TIME},
        metering.GrantOnceResponse(balance=BALANCE_ON_WIRE, pending=True),
        GrantResult(
            balance=BALANCE, entry=None, debt_repaid_micros=0, replayed=False, pending=True
        ),
    ),
    *(
        (
            method,
            ("order-7",),
            {},
            response(
                account="alice",
                unit="minutes",
                balance=BALANCE_ON_WIRE,
                entry=entry_on_wire,
                grant_revoked_micros=9,
                tombstone=True,
                **{taken: 5},
            ),
            result(
                account="alice",
                unit="minutes",
                balance=BALANCE,
                entry=entry,
                grant_revoked_micros=9,
                tombstone=True,
                **{taken: 5},
            ),
        )
        for method, taken, response, result in (
            ("revoke_grant", "revoked_micros", metering.RevokeGrantResponse, RevokeResult),
            (
                "reinstate_grant",
                "reinstated_micros",
                metering.ReinstateGrantResponse,
                ReinstateResult,
            ),
        )
        for entry_on_wire, entry in ((ENTRY_ON_WIRE, ENTRY), (None, None))
    ),
    (
        "refund_charge",
        ("alice", 5),
        {"idempotency_key": "k", "entry_seq": 3},
        metering.RefundChargeResponse(
            balance=BALANCE_ON_WIRE,
            entry=ENTRY_ON_WIRE,
            refunded_micros=5,
            charge_refunded_micros=9,
            replayed=True,
        ),
        RefundResult(
            balance=BALANCE,
            entry=ENTRY,
            refunded_micros=5,
            charge_refunded_micros=9,
            replayed=True,
        ),
    ),
    *(
        (method, ("alice",), {}, response(account=ACCOUNT_ON_WIRE), ACCOUNT)
        for method, response in (
            ("configure_account", admin.ConfigureAccountResponse),
            ("get_account", admin.GetAccountResponse),
        )
    ),
    (
        "balance",
        ("alice",),
        {"include_lots": True},
        metering.BalanceResponse(
            balance=BALANCE_ON_WIRE, lots=[LOT_ON_WIRE], pending=[PENDING_LOT_ON_WIRE]
        ),
        Balance(**_BALANCE_NUMBERS, lots=(LOT,), pending=(PENDING_LOT,)),
    ),
    *(
        (method, (), {}, response(defaults=DEFAULTS_ON_WIRE), DEFAULTS)
        for method, response in (
            ("configure_defaults", admin.ConfigureDefaultsResponse),
            ("get_defaults", admin.GetDefaultsResponse),
        )
    ),
    (
        "create_api_key",
        ("gateway",),
        {"scopes": [Scope.METER]},
        admin.CreateApiKeyResponse(credential=CREDENTIAL_ON_WIRE, api_key="mh_x_y"),
        CreatedApiKey(credential=CREDENTIAL, api_key="mh_x_y"),
    ),
    (
        "revoke_credential",
        ("mfzwizlnmfzwizln",),
        {},
        admin.RevokeCredentialResponse(credential=CREDENTIAL_ON_WIRE),
        CREDENTIAL,
    ),
    ("revoke_credential", ("none",), {}, admin.RevokeCredentialResponse(), None),
    (
        "get_stats",
        (),
        {},
        ledger.GetStatsResponse(**_STATS_VALUES, read_time=TIME_ON_WIRE),
        Stats(**_STATS_VALUES, read_time=TIME),
    ),
    (
        "spend_report",
        ("alice",),
        {},
        ledger.SpendReportResponse(
            rows=[ledger.SpendRow(values=["large", ""], **_SPEND_VALUES)],
            total=ledger.SpendRow(**_SPEND_VALUES),
            group_count=4,
            read_time=TIME_ON_WIRE,
        ),
        SpendReport(
            rows=(SpendRow(values=("large", ""), **_SPEND_VALUES),),
            total=SpendRow(values=(), **_SPEND_VALUES),
            group_count=4,
            read_time=TIME,
        ),
    ),
    (
        "verify_balance",
        ("alice",),
        {},
        admin.VerifyBalanceResponse(
            differences=[DIFFERENCE_ON_WIRE], balance=BALANCE_ON_WIRE, entry_count=12
        ),
        VerifyResult(differences=(DIFFERENCE,), balance=BALANCE, entry_count=12),
    ),
    (
        "rebuild_balance",
        ("alice",),
        {},
        admin.RebuildBalanceResponse(
            repaired=[DIFFERENCE_ON_WIRE] * 2,
            remaining=[DIFFERENCE_ON_WIRE],
            corrections=[ENTRY_ON_WIRE],
            balance=BALANCE_ON_WIRE,
        ),
        RebuildResult(
            repaired=(DIFFERENCE, DIFFERENCE),
            remaining=(DIFFERENCE,),
            corrections=(ENTRY,),
            balance=BALANCE,
        ),
    ),
    (
        "get_reservation",
        ("alice",),
        {"reservation_id": "job-7"},
        ledger.GetReservationResponse(reservation=RESERVATION_ON_WIRE),
        RESERVATION,
    ),
    (
        "get_entry",
        ("alice",),
        {"seq": 12},
        ledger.GetEntryResponse(entry=ENTRY_ON_WIRE),
        ENTRY,
    ),
]


@pytest.mark.parametrize(("method", "args", "kwargs", "response", "expected"), RESULTS)
async def test_call_answers_plain_values(
    client: AnyClient,
    server: ScriptedServer,
    method: str,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    response: Message,
    expected: object,
) -> None:
    server.answer(response)
    assert await client.call(method, *args, **kwargs) == expected


async def test_times_are_aware_and_in_utc(client: AnyClient, server: ScriptedServer) -> None:
    server.answer(ledger.GetEntryResponse(entry=ENTRY_ON_WIRE))
    entry = await client.call("get_entry", "alice", seq=12)
    assert entry.create_time.tzinfo is UTC


async def test_what_is_unset_is_none(client: AnyClient, server: ScriptedServer) -> None:
    server.answer(
        metering.BalanceResponse(lots=[types.Lot(seq=1)]),
        ledger.GetEntryResponse(entry=types.Entry(seq=1)),
        ledger.GetReservationResponse(reservation=types.Reservation(reservation_id="r")),
        admin.GetAccountResponse(account=admin.Account(account="alice")),
        admin.GetDefaultsResponse(defaults=admin.Defaults(allowance=types.Allowance())),
        admin.GetDefaultsResponse(defaults=admin.Defaults(signup_grant=admin.SignupGrant())),
    )
    (lot,) = (await client.call("balance", "alice")).lots
    entry = await client.call("get_entry", "alice", seq=1)
    reservation = await client.call("get_reservation", "alice", reservation_id="r")
    account = await client.call("get_account", "alice")
    without_grant = await client.call("get_defaults")
    without_allowance = await client.call("get_defaults")
    assert (lot.expire_time, lot.cash, lot.source, lot.effective_time) == (None, None, None, None)
    assert (entry.usage, entry.metadata) == (None, None)
    assert (reservation.end_time, reservation.metadata) == (None, None)
    assert (account.create_time, account.allowance, account.refill_time) == (None, None, None)
    assert without_grant.signup_grant is without_allowance.allowance is None
    assert without_allowance.signup_grant == SignupGrant.OFF
    allowance = without_grant.allowance
    assert (allowance.anchor_time, allowance.priority) == (None, None)


async def test_enum_values_of_a_newer_server_are_unknown(
    client: AnyClient, server: ScriptedServer
) -> None:
    server.answer(
        metering.BalanceResponse(lots=[types.Lot(category=99)]),
        metering.DebitResponse(status=99, entry=types.Entry(kind=99)),
        metering.ExtendResponse(on_expiry=99),
        ledger.GetReservationResponse(reservation=types.Reservation(state=99, on_expiry=99)),
        admin.GetAccountResponse(account=admin.Account(allowance=types.Allowance(period=99))),
    )
    (lot,) = (await client.call("balance", "alice")).lots
    debit = await client.call("debit", "alice", 1)
    extend = await client.call("extend", "alice", reservation_id="r")
    reservation = await client.call("get_reservation", "alice", reservation_id="r")
    assert lot.category is LotCategory.UNKNOWN
    assert debit.status is DebitStatus.UNKNOWN
    assert debit.entry.kind is EntryKind.UNKNOWN
    assert extend.on_expiry is OnExpiry.UNKNOWN
    assert reservation.state is ReservationState.UNKNOWN
    assert reservation.on_expiry is OnExpiry.UNKNOWN
    account = await client.call("get_account", "alice")
    assert account.allowance.period is AllowancePeriod.UNKNOWN


@pytest.mark.parametrize(
    ("method", "page_class", "items", "expected"),
    [
        ("list_reservations", ledger.ListReservationsResponse, "reservations", RESERVATION),
        ("list_entries", ledger.ListEntriesResponse, "entries", ENTRY),
        ("list_lots", ledger.ListLotsResponse, "lots", LOT),
        ("list_accounts", admin.ListAccountsResponse, "accounts", ACCOUNT),
    ],
)
async def test_pages_are_fetched_as_they_are_needed(
    client: AnyClient,
    server: ScriptedServer,
    method: str,
    page_class: type[Message],
    items: str,
    expected: object,
) -> None:
    item = {
        "reservations": RESERVATION_ON_WIRE,
        "entries": ENTRY_ON_WIRE,
        "lots": LOT_ON_WIRE,
        "accounts": ACCOUNT_ON_WIRE,
    }[items]
    server.answer(
        page_class(**{items: [item, item]}, next_page_token="two"),
        page_class(next_page_token="three"),
        page_class(**{items: [item]}),
    )
    iterator = client.items(method, "alice", page_size=2)
    assert server.calls == []
    assert [await anext(iterator), await anext(iterator)] == [expected, expected]
    assert len(server.calls) == 1
    assert [item async for item in iterator] == [expected]
    assert [call.request.page_token for call in server.calls] == ["", "two", "three"]
    field = "account_prefix" if items == "accounts" else "account"
    assert {(getattr(call.request, field), call.request.page_size) for call in server.calls} == {
        ("alice", 2)
    }
    remaining = [call.seconds_remaining for call in server.calls]
    assert remaining == pytest.approx([3, 3, 3], abs=1)
