"""The stub answers what is scripted, as a server would send it, and knows what it was asked."""

from __future__ import annotations

import dataclasses
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import meterhold
from meterhold import _errors
from meterhold.testing import Call, Stub, _failures, _messages
from meterhold.v1 import metering_service_pb2 as metering
from meterhold_server.rpc.errors import CODES

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)
BALANCE = meterhold.Balance(
    ledger_seq=2,
    available_micros=425,
    held_micros=75,
    remaining_micros=500,
    granted_micros=500,
    spent_micros=0,
    expired_micros=0,
    revoked_micros=0,
    refunded_micros=0,
    debt_micros=0,
    credit_limit_micros=0,
    pending_micros=5,
)
ENTRY = meterhold.Entry(
    seq=3,
    kind=meterhold.EntryKind.DEBIT,
    amount_micros=-60,
    remaining_after_micros=440,
    create_time=NOW,
    reservation_id="",
    key="invoice",
    related_seq=0,
    labels={"run": "r1"},
    usage=meterhold.Usage(model="large", input_tokens=9),
    metadata={"try": 1, "deep": [None, True]},
    reason="",
    description="Usage",
)
LOT = meterhold.Lot(
    seq=1,
    granted_micros=500,
    available_micros=425,
    held_micros=75,
    priority=50,
    category=meterhold.LotCategory.PAID,
    expire_time=None,
    create_time=NOW,
    idempotency_key="order",
    cash=meterhold.Cash(currency_code="EUR", minor_units=500),
    source=meterhold.Source(provider="acme", test_mode=True),
    expired_micros=60,
    revoked_micros=40,
    effective_time=NOW,
)
RESERVATION = meterhold.Reservation(
    reservation_id="job",
    state=meterhold.ReservationState.ACTIVE,
    held_micros=75,
    reserved_micros=75,
    captured_micros=0,
    released_micros=0,
    expiry_charged_micros=0,
    on_expiry=meterhold.OnExpiry.CHARGE,
    expire_time=NOW + timedelta(minutes=15),
    create_time=NOW,
    end_time=None,
    late=False,
    ttl=timedelta(minutes=15),
    labels={},
    metadata=None,
)
ALLOWANCE = meterhold.Allowance(
    amount_micros=5, period=meterhold.AllowancePeriod.WEEKLY, anchor_time=NOW, priority=10
)
ACCOUNT = meterhold.Account(
    account="alice",
    unit="credits",
    balance=BALANCE,
    holds_use_credit=True,
    frozen=False,
    create_time=NOW,
    allowance=ALLOWANCE,
    refill_time=NOW,
)
DEFAULTS = meterhold.Defaults(
    unit="credits",
    signup_grant=meterhold.SignupGrant(amount_micros=7, lifetime=timedelta(days=30)),
    allowance=ALLOWANCE,
)
DIFFERENCE = meterhold.Difference(
    what="lot 3 available", stored_micros=5, expected_micros=4, description="It is not 4."
)
DEBITED = meterhold.DebitResult(
    status=meterhold.DebitStatus.DEBITED, entry=ENTRY, replayed=False, balance=BALANCE
)

CREDENTIAL = meterhold.Credential(
    credential_id="mfzwizlnmfzwizln",
    name="gateway",
    scopes=(meterhold.Scope.METER,),
    certificate_name="",
    operations_per_second_max=5,
    create_time=NOW,
    last_use_time=NOW,
    revoke_time=None,
)

ARGUMENTS: dict[str, dict[str, Any]] = {
    "reserve": {"amount_micros": 75, "reservation_id": "job"},
    "settle": {"amount_micros": 60, "reservation_id": "job"},
    "release": {"reservation_id": "job"},
    "extend": {"reservation_id": "job", "add_amount_micros": 5},
    "debit": {"amount_micros": 60},
    "debit_once": {"amount_micros": 60, "idempotency_key": "invoice"},
    "grant_once": {"amount_micros": 500, "idempotency_key": "order"},
    "refund_charge": {"idempotency_key": "back", "entry_seq": 3},
    "revoke_grant": {"fraction_ppm": 500_000},
    "reinstate_grant": {},
    "balance": {},
    "get_reservation": {"reservation_id": "job"},
    "get_entry": {"seq": 3},
    "list_reservations": {},
    "list_entries": {},
    "list_lots": {},
    "get_stats": {},
    "spend_report": {"group_by": [meterhold.SpendDimension.MODEL]},
    "configure_account": {"frozen": True},
    "get_account": {},
    "list_accounts": {},
    "configure_defaults": {"allowance": meterhold.Allowance.OFF},
    "get_defaults": {},
    "verify_balance": {},
    "rebuild_balance": {},
    "create_api_key": {"scopes": [meterhold.Scope.METER]},
    "list_credentials": {},
    "revoke_credential": {},
}
"""Of a call of each method."""


def _spend(*values: str) -> meterhold.SpendRow:
    return meterhold.SpendRow(values=values, charged_micros=5, refunded_micros=2, charge_count=3)


RESULTS = {
    "reserve": meterhold.ReserveResult(
        held_micros=75, expire_time=NOW, created=True, replayed=False, balance=BALANCE
    ),
    "settle": meterhold.SettleResult(
        charged_micros=60,
        from_hold_micros=50,
        overage_micros=10,
        shortfall_micros=0,
        released_micros=0,
        late=True,
        replayed=False,
        entry_seq=4,
        balance=BALANCE,
    ),
    "release": meterhold.ReleaseResult(changed=True, reservation=RESERVATION, balance=BALANCE),
    "extend": meterhold.ExtendResult(
        held_micros=80,
        expire_time=NOW,
        on_expiry=meterhold.OnExpiry.CHARGE,
        replayed=False,
        balance=BALANCE,
    ),
    "debit": DEBITED,
    "debit_once": DEBITED,
    "grant_once": meterhold.GrantResult(
        entry=ENTRY, debt_repaid_micros=1, replayed=True, balance=BALANCE, revoked_micros=2
    ),
    "refund_charge": meterhold.RefundResult(
        entry=ENTRY,
        refunded_micros=5,
        charge_refunded_micros=9,
        replayed=False,
        balance=BALANCE,
    ),
    "revoke_grant": meterhold.RevokeResult(
        account="alice",
        unit="credits",
        balance=BALANCE,
        entry=ENTRY,
        revoked_micros=5,
        grant_revoked_micros=9,
        tombstone=False,
    ),
    "reinstate_grant": meterhold.ReinstateResult(
        account="",
        unit="",
        balance=BALANCE,
        entry=None,
        reinstated_micros=0,
        grant_revoked_micros=9,
        tombstone=True,
    ),
    "balance": dataclasses.replace(BALANCE, lots=(LOT,), pending=(LOT, LOT)),
    "get_stats": meterhold.Stats(
        unit="credits",
        account_count=1,
        granted_micros=2,
        spent_micros=3,
        refunded_micros=4,
        expired_micros=5,
        revoked_micros=6,
        outstanding_micros=7,
        held_micros=8,
        debt_micros=9,
        pending_micros=10,
        read_time=NOW,
    ),
    "spend_report": meterhold.SpendReport(
        rows=(_spend("large"), _spend("")), total=_spend(), group_count=2, read_time=NOW
    ),
    "configure_defaults": DEFAULTS,
    "get_defaults": DEFAULTS,
    "verify_balance": meterhold.VerifyResult(
        differences=(DIFFERENCE,), balance=BALANCE, entry_count=3
    ),
    "rebuild_balance": meterhold.RebuildResult(
        repaired=(DIFFERENCE,), remaining=(), corrections=(ENTRY,), balance=BALANCE
    ),
    "get_reservation": RESERVATION,
    "get_entry": ENTRY,
    "configure_account": ACCOUNT,
    "get_account": ACCOUNT,
    "create_api_key": meterhold.CreatedApiKey(credential=CREDENTIAL, api_key="mh_x_y"),
    "revoke_credential": CREDENTIAL,
}


def call(client: meterhold.Client, method: str) -> Any:
    of_all = method in ("get_stats", "configure_defaults", "get_defaults", "list_credentials")
    answer = getattr(client, method)(*([] if of_all else ["alice"]), **ARGUMENTS[method])
    return list(answer) if method.startswith("list_") else answer


@pytest.fixture
def stub() -> Stub:
    return Stub()


def test_every_call_can_be_scripted(stub: Stub) -> None:
    assert set(ARGUMENTS) == set(_messages.METHODS)
    for method in ARGUMENTS:
        stub.answers(method)
        call(stub.client(), method)
    assert [asked.method for asked in stub.calls] == list(ARGUMENTS)


@pytest.mark.parametrize("method", RESULTS)
def test_the_client_answers_what_is_scripted(stub: Stub, method: str) -> None:
    result: Any = RESULTS[method]
    stub.answers(method, **{field.name: getattr(result, field.name) for field in fields(result)})
    assert call(stub.client(), method) == result


@pytest.mark.parametrize(
    ("method", "items"),
    [
        ("list_reservations", {"reservations": [RESERVATION]}),
        ("list_entries", {"entries": [ENTRY, ENTRY]}),
        ("list_lots", {"lots": [LOT]}),
        ("list_accounts", {"accounts": [ACCOUNT]}),
    ],
)
def test_a_list_is_scripted_page_by_page(stub: Stub, method: str, items: dict[str, Any]) -> None:
    ((_, page),) = items.items()
    stub.answers(method, **items, next_page_token="more")
    stub.answers(method, **items)
    assert call(stub.client(), method) == page * 2
    assert stub.calls[1].request.page_token == "more"


def test_what_is_left_out_is_empty_and_parts_may_be_dicts(stub: Stub) -> None:
    stub.answers("debit", entry={"seq": 3, "kind": "DEBIT"}, balance={"available_micros": 4})
    stub.answers("balance", lots=[{"seq": 1}], available_micros=5)
    stub.answers("get_entry", entry={"seq": 6})
    client = stub.client()
    debited = client.debit("alice", 60)
    assert (debited.entry.seq, debited.entry.kind) == (3, meterhold.EntryKind.DEBIT)
    assert (debited.balance.available_micros, debited.balance.held_micros) == (4, 0)
    balance = client.balance("alice")
    assert ([lot.seq for lot in balance.lots], balance.available_micros) == ([1], 5)
    assert client.get_entry("alice", seq=6).seq == 6


@pytest.mark.parametrize("replayed", [False, True])
def test_what_a_server_never_contradicts_follows(stub: Stub, replayed: bool) -> None:
    for method in ("reserve", "debit", "debit_once"):
        stub.answers(method, replayed=replayed)
    client = stub.client()
    assert call(client, "reserve").created is not replayed
    status = meterhold.DebitStatus.REPLAYED if replayed else meterhold.DebitStatus.DEBITED
    assert call(client, "debit").status == call(client, "debit_once").status == status


def test_a_grant_has_an_entry_unless_it_is_pending(stub: Stub) -> None:
    stub.answers("grant_once")
    stub.answers("grant_once", pending=True)
    client = stub.client()
    now, later = call(client, "grant_once"), call(client, "grant_once")
    assert (now.entry.seq, now.pending) == (0, False)
    assert (later.entry, later.pending) == (None, True)


def test_answers_come_in_order_and_then_the_one_for_always(stub: Stub) -> None:
    stub.answers("balance", available_micros=0, always=True)
    stub.answers("balance", available_micros=1)
    stub.fails("balance", meterhold.ServerError)
    stub.answers("balance", available_micros=2)
    client = stub.client()
    assert client.balance("alice").available_micros == 1
    with pytest.raises(meterhold.ServerError):
        client.balance("alice")
    assert [client.balance("alice").available_micros for _ in range(3)] == [2, 0, 0]


async def test_the_twin_is_answered_as_well(stub: Stub) -> None:
    stub.answers("reserve", held_micros=75)
    stub.fails("settle", meterhold.ReservationReleased, reservation_id="job", end_time=NOW)
    stub.answers("list_lots", lots=[LOT])
    async with stub.async_client() as client:
        assert (await client.reserve("alice", 75, reservation_id="job")).held_micros == 75
        with pytest.raises(meterhold.ReservationReleased) as refused:
            await client.settle("alice", 60, reservation_id="job")
        assert [lot async for lot in client.list_lots("alice")] == [LOT]
    assert (refused.value.reservation_id, refused.value.end_time) == ("job", NOW)


def test_calls_are_what_was_sent(stub: Stub) -> None:
    stub.answers("debit")
    stub.client().debit("alice", 60, request_id="r", labels={"run": "r1"})
    assert stub.calls == [
        Call(
            "debit",
            metering.DebitRequest(
                account="alice", amount_micros=60, request_id="r", labels={"run": "r1"}
            ),
        )
    ]


NUMBERS: dict[type[meterhold.MeterholdError], dict[str, Any]] = {
    meterhold.InsufficientCredits: {
        "available_micros": 3,
        "required_micros": 75,
        "reservable_micros": 2,
    },
    meterhold.BalanceOutOfRange: {"field": "granted_micros", "limit_micros": 9 * 10**18},
    meterhold.IdempotencyMismatch: {"field": "amount_micros", "original": "60"},
    meterhold.ReservationSettled: {"reservation_id": "job", "end_time": NOW},
    meterhold.ReservationReleased: {"reservation_id": "job", "end_time": NOW},
    meterhold.ReservationExpired: {"reservation_id": "job", "end_time": NOW},
    meterhold.ReservationNotFound: {"reservation_id": "job"},
    meterhold.GrantNotFound: {"grant_key": "order"},
    meterhold.GrantRevoked: {"grant_key": "order"},
    meterhold.SourceMismatch: {"field": "expected_source.store_id", "original": "shop"},
    meterhold.ChainRefused: {"index": 7},
    meterhold.ServerError: {"error_id": "5f0c"},
}


def test_the_codes_are_those_of_the_server() -> None:
    assert _failures.CODES == CODES
    assert set(CODES) == set(_errors.BY_REASON)


@pytest.mark.parametrize("reason", _errors.BY_REASON)
def test_every_reason_can_be_sent(stub: Stub, reason: str) -> None:
    error = _errors.BY_REASON[reason]
    numbers = NUMBERS.get(error, {})
    stub.fails("settle", error, reason=reason, message="no", always=True, **numbers)
    with pytest.raises(error) as failed:
        stub.client(timeout_seconds=0.02).settle("alice", 60, reservation_id="job")
    assert type(failed.value) is error
    assert (failed.value.reason, failed.value.code) == (reason, _failures.CODES[reason].name)
    assert failed.value.applied == ("UNKNOWN" if reason == "OUTCOME_UNKNOWN" else "NO")
    assert str(failed.value) == "no"
    assert {name: getattr(failed.value, name) for name in numbers} == numbers


def test_advice_and_violations_are_sent(stub: Stub) -> None:
    stub.fails("settle", meterhold.Unavailable, retry_delay_seconds=0.25)
    stub.fails("settle", meterhold.InvalidRequest, field_violations=[("account", "is required")])
    client = stub.client()
    with pytest.raises(meterhold.Unavailable) as unavailable:
        client.settle("alice", 60, reservation_id="job")
    assert unavailable.value.retry_delay_seconds == 0.25
    with pytest.raises(meterhold.InvalidRequest) as invalid:
        client.settle("", 60, reservation_id="job")
    assert invalid.value.field_violations == [("account", "is required")]


@pytest.mark.parametrize(
    ("error", "applied"),
    [(meterhold.OutcomeUnknown, None), (meterhold.ServerError, "UNKNOWN")],
)
def test_an_unknown_outcome_is_replayed_with_the_same_key(
    stub: Stub, error: type[meterhold.MeterholdError], applied: _errors.Applied | None
) -> None:
    stub.fails("debit", error, applied=applied)
    stub.answers("debit", status="REPLAYED")
    assert stub.client().debit("alice", 60).status == meterhold.DebitStatus.REPLAYED
    first, second = stub.calls
    assert first == second
    assert first.request.request_id, "the client made up a key"


def test_a_call_without_a_script_tells_how_to_write_it(stub: Stub) -> None:
    stub.answers("settle")
    with pytest.raises(
        AssertionError,
        match=r"extend was called \(account: \"alice\"[^)]*\) and no answer is scripted for it: "
        r"stub\.answers\('extend', \.\.\.\) or stub\.fails\('extend', \.\.\.\)",
    ):
        stub.client().extend("alice", reservation_id="job", ttl=timedelta(minutes=1))
    assert [asked.method for asked in stub.calls] == ["extend"]


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (lambda stub: stub.answers("hold"), "there is no call 'hold'; choose of reserve, settle"),
        (
            lambda stub: stub.fails("Reserve", meterhold.Unavailable),
            "there is no call 'Reserve'; choose of reserve, settle",
        ),
        (
            lambda stub: stub.answers("release", held_micros=1),
            "ReleaseResponse has no held_micros; its fields: balance, changed, reservation",
        ),
        (
            lambda stub: stub.answers("balance", available=1),
            "Balance has no available; its fields: ledger_seq, available_micros",
        ),
        (
            lambda stub: stub.answers("get_reservation", state="OPEN"),
            "state must be one of ACTIVE, SETTLED, RELEASED, EXPIRED, not 'OPEN'",
        ),
        (
            lambda stub: stub.fails("reserve", meterhold.Rejected),
            "no call raises Rejected itself; choose of AccountFrozen, BalanceOutOfRange",
        ),
        (
            lambda stub: stub.fails("reserve", meterhold.Unavailable, reason="INTERNAL"),
            "Unavailable is raised for OVERLOADED, SHUTTING_DOWN, DATABASE_UNAVAILABLE",
        ),
        (
            lambda stub: stub.fails("reserve", meterhold.InsufficientCredits, available=1),
            "InsufficientCredits has no available; its numbers: available_micros, required_micros",
        ),
        (
            lambda stub: stub.fails("reserve", meterhold.Unavailable, seconds=1),
            "Unavailable has no seconds; its numbers: none",
        ),
    ],
)
def test_a_script_that_cannot_be_is_refused(stub: Stub, script: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        script(stub)
