"""Arguments → wire."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest
from google.protobuf import duration_pb2, struct_pb2, timestamp_pb2

from meterhold import (
    Allowance,
    AllowancePeriod,
    Cash,
    EntryKind,
    ExpectedSource,
    Label,
    LotCategory,
    OnExpiry,
    Overage,
    ReservationState,
    Scope,
    SignupGrant,
    Source,
    SpendDimension,
    Usage,
)
from meterhold.v1 import admin_service_pb2 as admin
from meterhold.v1 import ledger_service_pb2 as ledger
from meterhold.v1 import metering_service_pb2 as metering
from meterhold.v1 import types_pb2 as types

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from client.conftest import AnyClient
    from client.scripted_server import ScriptedServer

METADATA = {"note": "x", "n": 3, "ratio": 0.5, "ok": True, "none": None, "list": [1, {"a": "b"}]}
STRUCT = struct_pb2.Struct()
STRUCT.update(METADATA)

CHARGE = {
    "labels": {"model": "opus"},
    "usage": Usage(
        provider="anthropic",
        model="opus",
        input_tokens=1,
        output_tokens=2,
        cache_read_tokens=3,
        cache_write_tokens=4,
        provider_cost_micros=5,
        stop_reason="end_turn",
    ),
    "metadata": METADATA,
}
CHARGE_ON_WIRE = {
    "labels": {"model": "opus"},
    "usage": types.Usage(
        provider="anthropic",
        model="opus",
        input_tokens=1,
        output_tokens=2,
        cache_read_tokens=3,
        cache_write_tokens=4,
        provider_cost_micros=5,
        stop_reason="end_turn",
    ),
    "metadata": STRUCT,
}

SINCE = datetime(2026, 11, 1, tzinfo=UTC)
UNTIL = datetime(2026, 12, 1, 1, tzinfo=timezone(timedelta(hours=1)))
SINCE_ON_WIRE = timestamp_pb2.Timestamp(seconds=int(SINCE.timestamp()))
UNTIL_ON_WIRE = timestamp_pb2.Timestamp(seconds=int(datetime(2026, 12, 1, tzinfo=UTC).timestamp()))

WHY = {
    "revocation_id": "dispute-1",
    "expected_source": ExpectedSource(
        provider="stripe", store_id="s", test_mode=False, currency_code="EUR"
    ),
    "reason": "it was refunded",
    "labels": {"app": "a"},
    "metadata": METADATA,
}
WHY_ON_WIRE = {
    "revocation_id": "dispute-1",
    "expected_source": types.ExpectedSource(
        provider="stripe", store_id="s", test_mode=False, currency_code="EUR"
    ),
    "reason": "it was refunded",
    "labels": {"app": "a"},
    "metadata": STRUCT,
}

# method, positional, keyword, expected request
CALLS: list[tuple[str, tuple[Any, ...], dict[str, Any], Message]] = [
    (
        "reserve",
        ("alice", 75),
        {"reservation_id": "job-7"},
        metering.ReserveRequest(account="alice", amount_micros=75, reservation_id="job-7"),
    ),
    (
        "reserve",
        ("alice", 75),
        {
            "reservation_id": "job-7",
            "unit": "minutes",
            "ttl": timedelta(minutes=5, milliseconds=250),
            "min_amount_micros": 10,
            "min_available_micros": 20,
            "on_expiry": OnExpiry.CHARGE,
            "labels": {"run": "7"},
            "metadata": METADATA,
        },
        metering.ReserveRequest(
            account="alice",
            unit="minutes",
            amount_micros=75,
            reservation_id="job-7",
            ttl=duration_pb2.Duration(seconds=300, nanos=250_000_000),
            min_amount_micros=10,
            min_available_micros=20,
            on_expiry=types.ON_EXPIRY_CHARGE,
            labels={"run": "7"},
            metadata=STRUCT,
        ),
    ),
    (
        "settle",
        ("alice", 60),
        {"reservation_id": "job-7"},
        metering.SettleRequest(account="alice", amount_micros=60, reservation_id="job-7"),
    ),
    (
        "settle",
        ("alice", 60),
        {
            "reservation_id": "job-7",
            "unit": "minutes",
            "keep_open": True,
            "capture_id": "part-1",
            "overage": Overage.OVERDRAFT,
            **CHARGE,
        },
        metering.SettleRequest(
            account="alice",
            unit="minutes",
            amount_micros=60,
            reservation_id="job-7",
            keep_open=True,
            capture_id="part-1",
            overage=types.OVERAGE_OVERDRAFT,
            **CHARGE_ON_WIRE,
        ),
    ),
    (
        "release",
        ("alice",),
        {"reservation_id": "job-7", "unit": "minutes"},
        metering.ReleaseRequest(account="alice", unit="minutes", reservation_id="job-7"),
    ),
    (
        "extend",
        ("alice",),
        {"reservation_id": "job-7", "ttl": timedelta(minutes=5)},
        metering.ExtendRequest(
            account="alice", reservation_id="job-7", ttl=duration_pb2.Duration(seconds=300)
        ),
    ),
    (
        "extend",
        ("alice",),
        {
            "reservation_id": "job-7",
            "unit": "minutes",
            "add_amount_micros": 5,
            "on_expiry": OnExpiry.RELEASE,
            "extend_id": "grow-1",
        },
        metering.ExtendRequest(
            account="alice",
            unit="minutes",
            reservation_id="job-7",
            add_amount_micros=5,
            on_expiry=types.ON_EXPIRY_RELEASE,
            extend_id="grow-1",
        ),
    ),
    (
        "debit",
        ("alice", 5),
        {"unit": "minutes", "overage": Overage.REJECT, "request_id": "r-1", **CHARGE},
        metering.DebitRequest(
            account="alice",
            unit="minutes",
            amount_micros=5,
            overage=types.OVERAGE_REJECT,
            request_id="r-1",
            **CHARGE_ON_WIRE,
        ),
    ),
    (
        "debit_once",
        ("alice", 5),
        {"idempotency_key": "k-1", "unit": "minutes", "overage": Overage.CAP, **CHARGE},
        metering.DebitOnceRequest(
            account="alice",
            unit="minutes",
            idempotency_key="k-1",
            amount_micros=5,
            overage=types.OVERAGE_CAP,
            **CHARGE_ON_WIRE,
        ),
    ),
    (
        "grant_once",
        ("alice", 500),
        {"idempotency_key": "invoice-17"},
        metering.GrantOnceRequest(account="alice", amount_micros=500, idempotency_key="invoice-17"),
    ),
    (
        "grant_once",
        ("alice", 500),
        {
            "idempotency_key": "invoice-17",
            "unit": "minutes",
            "legacy_keys": ["17", "old-17"],
            "reason": "welcome",
            "category": LotCategory.PROMOTIONAL,
            "priority": 0,
            "effective_time": SINCE,
            "expire_time": datetime(2027, 1, 1, 1, tzinfo=timezone(timedelta(hours=1))),
            "cash": Cash(currency_code="EUR", minor_units=-1999),
            "source": Source(
                provider="stripe", order_id="o", store_id="s", test_mode=True, variant_id="v"
            ),
            "labels": {"app": "a"},
            "metadata": METADATA,
        },
        metering.GrantOnceRequest(
            account="alice",
            unit="minutes",
            amount_micros=500,
            idempotency_key="invoice-17",
            legacy_keys=["17", "old-17"],
            reason="welcome",
            category=types.LOT_CATEGORY_PROMOTIONAL,
            priority=0,
            effective_time=SINCE_ON_WIRE,
            expire_time=timestamp_pb2.Timestamp(
                seconds=int(datetime(2027, 1, 1, tzinfo=UTC).timestamp())
            ),
            cash=types.Cash(currency_code="EUR", minor_units=-1999),
            source=types.Source(
                provider="stripe", order_id="o", store_id="s", test_mode=True, variant_id="v"
            ),
            labels={"app": "a"},
            metadata=STRUCT,
        ),
    ),
    (
        "refund_charge",
        ("alice", 5),
        {
            "idempotency_key": "back-1",
            "entry_seq": 12,
            "unit": "minutes",
            "expired_lot_grace": timedelta(days=30),
            "reason": "it failed",
            "labels": {"app": "a"},
            "metadata": METADATA,
        },
        metering.RefundChargeRequest(
            account="alice",
            unit="minutes",
            idempotency_key="back-1",
            entry_seq=12,
            amount_micros=5,
            expired_lot_grace=duration_pb2.Duration(seconds=30 * 86_400),
            reason="it failed",
            labels={"app": "a"},
            metadata=STRUCT,
        ),
    ),
    (
        "refund_charge",
        ("alice",),
        {"idempotency_key": "back-1", "reservation_id": "job", "capture_id": "c"},
        metering.RefundChargeRequest(
            account="alice",
            idempotency_key="back-1",
            capture=metering.Capture(reservation_id="job", capture_id="c"),
        ),
    ),
    ("revoke_grant", ("order-7",), {}, metering.RevokeGrantRequest(grant_key="order-7")),
    (
        "revoke_grant",
        ("order-7",),
        {
            "amount_micros": 5,
            "account": "alice",
            "unit": "minutes",
            "allow_tombstone": True,
            **WHY,
        },
        metering.RevokeGrantRequest(
            grant_key="order-7",
            cumulative_amount_micros=5,
            account="alice",
            unit="minutes",
            allow_tombstone=True,
            **WHY_ON_WIRE,
        ),
    ),
    *(
        # Nothing of it is not all of it: the server has to see the 0, to refuse it.
        (
            "revoke_grant",
            ("order-7",),
            {name: number},
            metering.RevokeGrantRequest(grant_key="order-7", **{f"cumulative_{name}": number}),
        )
        for name, number in (("fraction_ppm", 250_000), ("fraction_ppm", 0), ("amount_micros", 0))
    ),
    (
        "revoke_grant",
        ("order-7",),
        {"expected_source": ExpectedSource(test_mode=None)},
        metering.RevokeGrantRequest(grant_key="order-7", expected_source=types.ExpectedSource()),
    ),
    (
        "reinstate_grant",
        ("order-7",),
        {"account": "alice", "unit": "minutes", **WHY},
        metering.ReinstateGrantRequest(
            grant_key="order-7", account="alice", unit="minutes", **WHY_ON_WIRE
        ),
    ),
    (
        "balance",
        ("alice",),
        {"unit": "minutes", "min_seq": 12, "include_lots": True},
        metering.BalanceRequest(account="alice", unit="minutes", min_seq=12, include_lots=True),
    ),
    (
        "get_reservation",
        ("alice",),
        {"reservation_id": "job-7", "unit": "minutes"},
        ledger.GetReservationRequest(account="alice", unit="minutes", reservation_id="job-7"),
    ),
    (
        "get_entry",
        ("alice",),
        {"seq": 12, "unit": "minutes"},
        ledger.GetEntryRequest(account="alice", unit="minutes", seq=12),
    ),
    (
        "get_entry",
        ("alice",),
        {"debit_key": "k-1"},
        ledger.GetEntryRequest(account="alice", debit_key="k-1"),
    ),
    (
        "get_entry",
        ("alice",),
        {"grant_key": "invoice-17"},
        ledger.GetEntryRequest(account="alice", grant_key="invoice-17"),
    ),
    (
        "get_entry",
        ("alice",),
        {"refund_key": "back-1"},
        ledger.GetEntryRequest(account="alice", refund_key="back-1"),
    ),
    ("get_stats", (), {"unit": "minutes"}, ledger.GetStatsRequest(unit="minutes")),
    ("spend_report", (), {}, ledger.SpendReportRequest()),
    (
        "spend_report",
        ("alice",),
        {
            "unit": "minutes",
            "start_time": SINCE,
            "end_time": UNTIL,
            "labels": {"app": "a"},
            "group_by": [Label("team"), SpendDimension.MODEL, "MONTH"],
            "row_limit": 7,
        },
        ledger.SpendReportRequest(
            account="alice",
            unit="minutes",
            start_time=SINCE_ON_WIRE,
            end_time=UNTIL_ON_WIRE,
            labels={"app": "a"},
            group_by=[
                ledger.SpendGroup(label="team"),
                ledger.SpendGroup(dimension=ledger.SPEND_DIMENSION_MODEL),
                ledger.SpendGroup(dimension=ledger.SPEND_DIMENSION_MONTH),
            ],
            row_limit=7,
        ),
    ),
    (
        "configure_account",
        ("alice",),
        {
            "unit": "minutes",
            "credit_limit_micros": 0,
            "holds_use_credit": False,
            "frozen": True,
            "allowance": Allowance(
                amount_micros=5,
                period=AllowancePeriod.MONTHLY,
                anchor_time=SINCE,
                priority=0,
            ),
        },
        admin.ConfigureAccountRequest(
            account="alice",
            unit="minutes",
            credit_limit_micros=0,
            holds_use_credit=False,
            frozen=True,
            allowance=types.Allowance(
                amount_micros=5,
                period=types.ALLOWANCE_PERIOD_MONTHLY,
                anchor_time=SINCE_ON_WIRE,
                priority=0,
            ),
        ),
    ),
    ("configure_account", ("alice",), {}, admin.ConfigureAccountRequest(account="alice")),
    (
        "configure_account",
        ("alice",),
        {"allowance": Allowance.OFF},
        admin.ConfigureAccountRequest(
            account="alice", allowance=types.Allowance(period=types.ALLOWANCE_PERIOD_OFF)
        ),
    ),
    (
        "configure_defaults",
        (),
        {
            "unit": "minutes",
            "signup_grant": SignupGrant(amount_micros=5, lifetime=timedelta(days=30)),
            "allowance": Allowance(amount_micros=7, period=AllowancePeriod.DAILY),
        },
        admin.ConfigureDefaultsRequest(
            unit="minutes",
            signup_grant=admin.SignupGrant(
                amount_micros=5, lifetime=duration_pb2.Duration(seconds=30 * 86_400)
            ),
            allowance=types.Allowance(amount_micros=7, period=types.ALLOWANCE_PERIOD_DAILY),
        ),
    ),
    (
        "configure_defaults",
        (),
        {"signup_grant": SignupGrant.OFF},
        admin.ConfigureDefaultsRequest(signup_grant=admin.SignupGrant()),
    ),
    (
        "create_api_key",
        ("gateway",),
        {"scopes": [Scope.METER, Scope.READ], "operations_per_second_max": 5},
        admin.CreateApiKeyRequest(
            name="gateway",
            scopes=[admin.SCOPE_METER, admin.SCOPE_READ],
            operations_per_second_max=5,
        ),
    ),
    (
        "revoke_credential",
        ("mfzwizlnmfzwizln",),
        {},
        admin.RevokeCredentialRequest(credential_id="mfzwizlnmfzwizln"),
    ),
    ("get_defaults", (), {"unit": "minutes"}, admin.GetDefaultsRequest(unit="minutes")),
    *(
        (method, ("alice",), {"unit": "minutes"}, request(account="alice", unit="minutes"))
        for method, request in (
            ("verify_balance", admin.VerifyBalanceRequest),
            ("rebuild_balance", admin.RebuildBalanceRequest),
        )
    ),
    (
        "get_account",
        ("alice",),
        {"unit": "minutes"},
        admin.GetAccountRequest(account="alice", unit="minutes"),
    ),
]

LISTS: list[tuple[str, dict[str, Any], Message, Message]] = [
    (
        "list_reservations",
        {"unit": "minutes", "states": [ReservationState.ACTIVE], "page_size": 7},
        ledger.ListReservationsRequest(
            account="alice",
            unit="minutes",
            states=[types.RESERVATION_STATE_ACTIVE],
            page_size=7,
        ),
        ledger.ListReservationsResponse(),
    ),
    (
        "list_entries",
        {
            "unit": "minutes",
            "kinds": {EntryKind.EXPIRY_CHARGE},
            "start_time": SINCE,
            "end_time": UNTIL,
            "labels": {"app": "a"},
            "oldest_first": True,
            "page_size": 7,
        },
        ledger.ListEntriesRequest(
            account="alice",
            unit="minutes",
            kinds=[types.ENTRY_KIND_EXPIRY_CHARGE],
            start_time=SINCE_ON_WIRE,
            end_time=UNTIL_ON_WIRE,
            labels={"app": "a"},
            oldest_first=True,
            page_size=7,
        ),
        ledger.ListEntriesResponse(),
    ),
    (
        "list_lots",
        {"unit": "minutes", "include_spent": True, "page_size": 7},
        ledger.ListLotsRequest(account="alice", unit="minutes", include_spent=True, page_size=7),
        ledger.ListLotsResponse(),
    ),
    (
        "list_accounts",
        {"page_size": 7},
        admin.ListAccountsRequest(account_prefix="alice", page_size=7),
        admin.ListAccountsResponse(),
    ),
]


# An attempt of these is not cut short.
LONG_CALLS = {
    *("get_stats", "spend_report", "verify_balance", "rebuild_balance"),
    "create_api_key",  # It has no key, and is made but once.
}


def _response_to(request: Message) -> Message:
    service = request.DESCRIPTOR.file.name.rpartition("/")[2].partition("_")[0]
    module = {"metering": metering, "ledger": ledger, "admin": admin}[service]
    response: Message = getattr(module, request.DESCRIPTOR.name.replace("Request", "Response"))()
    return response


@pytest.mark.parametrize(("method", "args", "kwargs", "expected"), CALLS)
async def test_call_sends_its_arguments(
    client: AnyClient,
    server: ScriptedServer,
    method: str,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    expected: Message,
) -> None:
    server.answer(_response_to(expected))
    await client.call(method, *args, **kwargs)
    assert server.request == expected
    seconds = 10 if method in LONG_CALLS else 3
    assert server.calls[0].seconds_remaining == pytest.approx(seconds, abs=1)


@pytest.mark.parametrize(("method", "kwargs", "expected", "response"), LISTS)
async def test_list_sends_its_arguments(
    client: AnyClient,
    server: ScriptedServer,
    method: str,
    kwargs: dict[str, Any],
    expected: Message,
    response: Message,
) -> None:
    server.answer(response)
    assert [item async for item in client.items(method, "alice", **kwargs)] == []
    assert server.request == expected
    assert server.calls[0].seconds_remaining == pytest.approx(3, abs=1)


async def test_list_credentials_sends_its_arguments(
    client: AnyClient, server: ScriptedServer
) -> None:
    server.answer(admin.ListCredentialsResponse())
    assert [item async for item in client.items("list_credentials", page_size=7)] == []
    assert server.request == admin.ListCredentialsRequest(page_size=7)


async def test_timeout_of_the_call_comes_before_that_of_the_client(
    client: AnyClient, server: ScriptedServer
) -> None:
    server.answer(metering.BalanceResponse())
    await client.call("balance", "alice", timeout_seconds=1.5)
    assert server.calls[0].seconds_remaining == pytest.approx(1.5, abs=0.5)


async def test_only_attempt_of_a_call_without_a_key_has_all_the_time(
    client: AnyClient, server: ScriptedServer
) -> None:
    server.answer(metering.DebitResponse())
    await client.call("debit", "alice", 5, request_id=None, timeout_seconds=100.0)
    assert server.calls[0].seconds_remaining == pytest.approx(100, abs=1)


@pytest.mark.parametrize("timeout_seconds", [0, -1.0, float("inf"), float("nan")])
async def test_timeout_must_be_positive_and_finite(
    client: AnyClient, server: ScriptedServer, timeout_seconds: float
) -> None:
    with pytest.raises(ValueError, match="timeout_seconds"):
        await client.call("balance", "alice", timeout_seconds=timeout_seconds)
    assert server.calls == []


@pytest.mark.parametrize(
    ("method", "args", "kwargs", "field"),
    [
        ("debit", ("alice", 5), {}, "request_id"),
        ("extend", ("alice",), {"reservation_id": "r", "add_amount_micros": 5}, "extend_id"),
        ("settle", ("alice", 5), {"reservation_id": "r", "keep_open": True}, "capture_id"),
    ],
)
async def test_missing_key_is_filled_in_once_per_call(
    client: AnyClient,
    server: ScriptedServer,
    method: str,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    field: str,
) -> None:
    server.last = getattr(metering, f"{method.capitalize()}Response")()
    await client.call(method, *args, **kwargs)
    await client.call(method, *args, **kwargs)
    keys = [getattr(call.request, field) for call in server.calls]
    assert [len(key) for key in keys] == [32, 32]
    assert keys[0] != keys[1]


@pytest.mark.parametrize("amount", [1.0, True, "1", None])
@pytest.mark.parametrize(
    ("method", "argument", "kwargs"),
    [
        ("reserve", "amount_micros", {"reservation_id": "r"}),
        ("reserve", "min_amount_micros", {"amount_micros": 1, "reservation_id": "r"}),
        ("reserve", "min_available_micros", {"amount_micros": 1, "reservation_id": "r"}),
        ("settle", "amount_micros", {"reservation_id": "r"}),
        ("extend", "add_amount_micros", {"reservation_id": "r"}),
        ("debit", "amount_micros", {}),
        ("debit_once", "amount_micros", {"idempotency_key": "k"}),
        ("grant_once", "amount_micros", {"idempotency_key": "k"}),
        ("refund_charge", "amount_micros", {"idempotency_key": "k", "entry_seq": 1}),
    ],
)
async def test_amount_that_is_not_an_int_is_refused(
    client: AnyClient,
    server: ScriptedServer,
    method: str,
    argument: str,
    kwargs: dict[str, Any],
    amount: object,
) -> None:
    with pytest.raises(TypeError, match=f"^{argument} must be an int"):
        await client.call(method, "alice", **kwargs, **{argument: amount})
    assert server.calls == []


@pytest.mark.parametrize(
    ("error", "match", "method", "kwargs"),
    [
        (
            ValueError,
            "expire_time.*no time zone",
            "grant_once",
            {"expire_time": datetime(2027, 1, 1)},
        ),
        (TypeError, "legacy_keys", "grant_once", {"legacy_keys": "old"}),
        (ValueError, "category.*PROMOTIONAL", "grant_once", {"category": LotCategory.UNKNOWN}),
        (
            TypeError,
            "minor_units",
            "grant_once",
            {"cash": Cash(currency_code="EUR", minor_units=1.5)},
        ),
        (TypeError, r"metadata\['a'\]\[1\].*set", "grant_once", {"metadata": {"a": [1, {2}]}}),
        (TypeError, "key must be a str", "grant_once", {"metadata": {1: "a"}}),
        (ValueError, "send it as a str", "grant_once", {"metadata": {"id": 2**53 + 1}}),
        (ValueError, "send it as a str", "grant_once", {"metadata": {"id": 10**400}}),
        (ValueError, "overage.*CAP", "debit_once", {"overage": "NO_SUCH"}),
        (
            TypeError,
            "provider_cost_micros",
            "debit_once",
            {"usage": Usage(provider_cost_micros=0.5)},
        ),
    ],
)
async def test_argument_that_cannot_be_sent_is_refused(
    client: AnyClient,
    server: ScriptedServer,
    error: type[Exception],
    match: str,
    method: str,
    kwargs: dict[str, Any],
) -> None:
    with pytest.raises(error, match=match):
        await client.call(method, "alice", 1, idempotency_key="k", **kwargs)
    assert server.calls == []


@pytest.mark.parametrize(
    ("error", "match", "method", "args", "kwargs"),
    [
        (
            ValueError,
            "fraction_ppm or amount_micros, not both",
            "revoke_grant",
            ("k",),
            {"fraction_ppm": 1, "amount_micros": 1},
        ),
        (TypeError, "^fraction_ppm must be an int", "revoke_grant", ("k",), {"fraction_ppm": 0.5}),
        (
            TypeError,
            "^amount_micros must be an int",
            "revoke_grant",
            ("k",),
            {"amount_micros": 5.0},
        ),
        (ValueError, "account is empty; None", "revoke_grant", ("k",), {"account": ""}),
        (ValueError, "account is empty; None", "reinstate_grant", ("k",), {"account": ""}),
        (ValueError, "account is empty; None", "spend_report", ("",), {}),
        (TypeError, "group_by", "spend_report", (), {"group_by": SpendDimension.MODEL}),
        (ValueError, "group_by.*ACCOUNT, MODEL", "spend_report", (), {"group_by": ["team"]}),
        (
            ValueError,
            "start_time.*no time zone",
            "spend_report",
            (),
            {"start_time": datetime(2027, 1, 1)},
        ),
        (
            ValueError,
            "effective_time.*no time zone",
            "grant_once",
            ("alice", 1),
            {"idempotency_key": "k", "effective_time": datetime(2027, 1, 1)},
        ),
        (
            TypeError,
            "^amount_micros must be an int",
            "configure_account",
            ("alice",),
            {"allowance": Allowance(amount_micros=1.0, period=AllowancePeriod.DAILY)},
        ),
        (
            ValueError,
            "period must be one of OFF, DAILY, WEEKLY, MONTHLY, not",
            "configure_defaults",
            (),
            {"allowance": Allowance(amount_micros=1, period=AllowancePeriod.UNKNOWN)},
        ),
        (
            TypeError,
            "^lifetime must be a timedelta",
            "configure_defaults",
            (),
            {"signup_grant": SignupGrant(amount_micros=1, lifetime=30)},
        ),
    ],
)
async def test_terms_that_cannot_be_sent_are_refused(
    client: AnyClient,
    server: ScriptedServer,
    error: type[Exception],
    match: str,
    method: str,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> None:
    with pytest.raises(error, match=match):
        await client.call(method, *args, **kwargs)
    assert server.calls == []


async def test_ttl_must_be_a_timedelta(client: AnyClient) -> None:
    with pytest.raises(TypeError, match=r"^ttl must be a timedelta"):
        await client.call("reserve", "alice", 1, reservation_id="r", ttl=900)


@pytest.mark.parametrize("selectors", [{}, {"seq": 1, "debit_key": "k"}])
async def test_get_entry_wants_one_selector(client: AnyClient, selectors: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="exactly one"):
        await client.call("get_entry", "alice", **selectors)
