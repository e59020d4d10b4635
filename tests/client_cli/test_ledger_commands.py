"""Taking back, terms, reports and audits: what is asked of the server, and what is printed."""

from __future__ import annotations

import shlex
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

import meterhold
from meterhold.v1 import admin_service_pb2 as admin
from meterhold.v1 import ledger_service_pb2 as ledger
from meterhold.v1 import metering_service_pb2 as metering
from meterhold.v1 import types_pb2 as types

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from client.scripted_server import ScriptedServer
    from client_cli.conftest import Run

TIME = Timestamp(seconds=int(datetime(2030, 1, 31, 12, tzinfo=UTC).timestamp()))
BALANCE = types.Balance(ledger_seq=3, available_micros=2_000_000, remaining_micros=2_000_000)
ENTRY = types.Entry(seq=3, kind=types.ENTRY_KIND_REVOCATION, create_time=TIME)
EXPECTED = types.ExpectedSource(
    provider="stripe", store_id="shop", test_mode=False, currency_code="EUR"
)
EXPECT = "--expect-provider stripe --expect-store-id shop --expect-live-mode --expect-currency EUR"
ALLOWANCE = types.Allowance(
    amount_micros=5_000_000, period=types.ALLOWANCE_PERIOD_MONTHLY, anchor_time=TIME, priority=10
)
DIFFERENCE = admin.Difference(
    what="lot 3 available",
    stored_micros=5_000_000,
    expected_micros=4_000_000,
    description="Lot 3 has more than it should.",
)
SPENT = {"charged_micros": 5_000_000, "refunded_micros": 1_000_000, "charge_count": 3}
REPORT = ledger.SpendReportResponse(
    rows=[
        ledger.SpendRow(values=["large", "blue"], **SPENT),
        ledger.SpendRow(values=["", "blue"], **SPENT),
    ],
    total=ledger.SpendRow(charged_micros=12_000_000, refunded_micros=0, charge_count=9),
    group_count=4,
    read_time=TIME,
)

# command, what the server is asked, what it answers, exit code, what is printed
COMMANDS: list[tuple[str, Message, Message, int, str]] = [
    (
        "grant alice 10cr --key order-7 --effective-time 2030-01-31T12:00:00Z",
        metering.GrantOnceRequest(
            account="alice",
            amount_micros=10_000_000,
            idempotency_key="order-7",
            effective_time=TIME,
        ),
        metering.GrantOnceResponse(balance=BALANCE, pending=True, revoked_micros=500_000),
        0,
        """\
Granted 10.000000.
key        order-7
effective  2030-01-31 12:00:00Z
revoked    0.500000
available  2.000000
""",
    ),
    (
        "grant alice 10cr --key order-7",
        metering.GrantOnceRequest(
            account="alice", amount_micros=10_000_000, idempotency_key="order-7"
        ),
        metering.GrantOnceResponse(balance=BALANCE, pending=True, replayed=True),
        0,
        """\
Granted 10.000000 before; nothing now.
key        order-7
available  2.000000
""",
    ),
    (
        (
            "revoke order-7 --fraction-ppm 250000 --account alice --unit tokens "
            f"--allow-tombstone --revocation-id d-1 --reason dispute --label a=b {EXPECT}"
        ),
        metering.RevokeGrantRequest(
            grant_key="order-7",
            cumulative_fraction_ppm=250_000,
            account="alice",
            unit="tokens",
            allow_tombstone=True,
            revocation_id="d-1",
            expected_source=EXPECTED,
            reason="dispute",
            labels={"a": "b"},
        ),
        metering.RevokeGrantResponse(
            account="alice",
            unit="tokens",
            balance=types.Balance(available_micros=-1_000_000, debt_micros=1_000_000),
            entry=ENTRY,
            revoked_micros=2_500_000,
            grant_revoked_micros=5_000_000,
        ),
        0,
        """\
Revoked 2.500000.
account        alice (tokens)
entry          3
revoked of it  5.000000
debt           1.000000
available      -1.000000
""",
    ),
    (
        (
            "refund alice 1.5cr --key back-1 --reservation job --capture-id c --unit tokens "
            "--expired-lot-grace 30d --reason bad --label a=b"
        ),
        metering.RefundChargeRequest(
            account="alice",
            amount_micros=1_500_000,
            idempotency_key="back-1",
            capture=metering.Capture(reservation_id="job", capture_id="c"),
            unit="tokens",
            expired_lot_grace=Duration(seconds=30 * 86_400),
            reason="bad",
            labels={"a": "b"},
        ),
        metering.RefundChargeResponse(
            balance=BALANCE,
            entry=types.Entry(seq=5, key="back-1"),
            refunded_micros=1_500_000,
            charge_refunded_micros=2_000_000,
        ),
        0,
        """\
Refunded 1.500000.
entry           5
key             back-1
refunded of it  2.000000
available       2.000000
""",
    ),
    (
        "revoke order-7 --amount 2cr",
        metering.RevokeGrantRequest(grant_key="order-7", cumulative_amount_micros=2_000_000),
        metering.RevokeGrantResponse(
            account="alice", unit="credits", balance=BALANCE, grant_revoked_micros=2_000_000
        ),
        0,
        """\
Revoked 0.000000.
account        alice (credits)
revoked of it  2.000000
available      2.000000
""",
    ),
    (
        "revoke order-7 --allow-tombstone",
        metering.RevokeGrantRequest(grant_key="order-7", allow_tombstone=True),
        metering.RevokeGrantResponse(tombstone=True),
        0,
        """\
Noted: it counts when the grant becomes effective.
revoked of it  0.000000
""",
    ),
    (
        f"reinstate order-7 --account alice --revocation-id d-1 --reason won --label a=b {EXPECT}",
        metering.ReinstateGrantRequest(
            grant_key="order-7",
            account="alice",
            revocation_id="d-1",
            expected_source=EXPECTED,
            reason="won",
            labels={"a": "b"},
        ),
        metering.ReinstateGrantResponse(
            account="alice",
            unit="credits",
            balance=BALANCE,
            entry=ENTRY,
            reinstated_micros=1_500_000,
        ),
        0,
        """\
Reinstated 1.500000.
account        alice (credits)
entry          3
revoked of it  0.000000
available      2.000000
""",
    ),
    (
        (
            "configure alice --allowance 5cr --allowance-period monthly --allowance-priority 0 "
            "--allowance-anchor 2030-01-31T12:00:00Z"
        ),
        admin.ConfigureAccountRequest(
            account="alice",
            allowance=types.Allowance(
                amount_micros=5_000_000,
                period=types.ALLOWANCE_PERIOD_MONTHLY,
                anchor_time=TIME,
                priority=0,
            ),
        ),
        admin.ConfigureAccountResponse(
            account=admin.Account(
                account="alice",
                unit="credits",
                balance=BALANCE,
                create_time=TIME,
                allowance=ALLOWANCE,
                refill_time=TIME,
            )
        ),
        0,
        """\
account    alice (credits)
available  2.000000
held       0.000000
remaining  2.000000
granted    0.000000
spent      0.000000
entries           3
allowance  5.000000 monthly, from 2030-01-31 12:00:00Z, priority 10
renewed    2030-01-31 12:00:00Z
created    2030-01-31 12:00:00Z
""",
    ),
    (
        "defaults",
        admin.GetDefaultsRequest(),
        admin.GetDefaultsResponse(defaults=admin.Defaults(unit="credits")),
        0,
        """\
unit          credits
signup grant  none
allowance     none
""",
    ),
    (
        "defaults --unit tokens --signup-grant 7cr --signup-lifetime 30d --allowance-period off",
        admin.ConfigureDefaultsRequest(
            unit="tokens",
            signup_grant=admin.SignupGrant(
                amount_micros=7_000_000, lifetime=Duration(seconds=30 * 86_400)
            ),
            allowance=types.Allowance(period=types.ALLOWANCE_PERIOD_OFF),
        ),
        admin.ConfigureDefaultsResponse(
            defaults=admin.Defaults(
                unit="tokens",
                signup_grant=admin.SignupGrant(
                    amount_micros=7_000_000, lifetime=Duration(seconds=30 * 86_400)
                ),
                allowance=ALLOWANCE,
            )
        ),
        0,
        """\
unit          tokens
signup grant  7.000000, expires after 30d
allowance     5.000000 monthly, from 2030-01-31 12:00:00Z, priority 10
""",
    ),
    (
        "defaults --signup-grant 0cr",
        admin.ConfigureDefaultsRequest(signup_grant=admin.SignupGrant()),
        admin.ConfigureDefaultsResponse(
            defaults=admin.Defaults(
                unit="credits", allowance=types.Allowance(period=types.ALLOWANCE_PERIOD_OFF)
            )
        ),
        0,
        """\
unit          credits
signup grant  none
allowance     off
""",
    ),
    (
        "stats --unit tokens",
        ledger.GetStatsRequest(unit="tokens"),
        ledger.GetStatsResponse(
            unit="tokens",
            account_count=12,
            granted_micros=10_000_000,
            spent_micros=3_000_000,
            refunded_micros=1_000_000,
            expired_micros=500_000,
            revoked_micros=250_000,
            outstanding_micros=7_250_000,
            held_micros=1,
            debt_micros=2,
            pending_micros=3,
            read_time=TIME,
        ),
        0,
        """\
unit         tokens
accounts            12
granted      10.000000
spent         3.000000
refunded      1.000000
expired       0.500000
revoked       0.250000
outstanding   7.250000
held          0.000001
debt          0.000002
pending       0.000003
time         2030-01-31 12:00:00Z
""",
    ),
    (
        (
            "spend alice --by model --by label:team --since 2030-01-31T12:00:00Z "
            "--until 2030-01-31T12:00:00Z --label app=a --limit 2"
        ),
        ledger.SpendReportRequest(
            account="alice",
            start_time=TIME,
            end_time=TIME,
            labels={"app": "a"},
            group_by=[
                ledger.SpendGroup(dimension=ledger.SPEND_DIMENSION_MODEL),
                ledger.SpendGroup(label="team"),
            ],
            row_limit=2,
        ),
        REPORT,
        0,
        """\
model  team    charged  refunded  charges
─────────────────────────────────────────
large  blue   5.000000  1.000000        3
       blue   5.000000  1.000000        3
total        12.000000  0.000000        9
2 more; --limit shows them
""",
    ),
    (
        "spend",
        ledger.SpendReportRequest(row_limit=50),
        ledger.SpendReportResponse(rows=[REPORT.total], total=REPORT.total, group_count=1),
        0,
        """\
  charged  refunded  charges
────────────────────────────
12.000000  0.000000        9
""",
    ),
    (
        "verify alice",
        admin.VerifyBalanceRequest(account="alice"),
        admin.VerifyBalanceResponse(balance=BALANCE, entry_count=12),
        0,
        "12 entries checked: every invariant holds.\n",
    ),
    (
        "verify alice --unit tokens",
        admin.VerifyBalanceRequest(account="alice", unit="tokens"),
        admin.VerifyBalanceResponse(differences=[DIFFERENCE], balance=BALANCE, entry_count=12),
        8,
        """\
12 entries checked: 1 difference

what               stored  expected
───────────────────────────────────────────────────────────────────
lot 3 available  5.000000  4.000000  Lot 3 has more than it should.
""",
    ),
    (
        "rebuild alice --yes",
        admin.RebuildBalanceRequest(account="alice"),
        admin.RebuildBalanceResponse(
            repaired=[DIFFERENCE] * 2, corrections=[ENTRY], balance=BALANCE
        ),
        0,
        """\
2 differences found, 0 differences left.

seq  time                  kind          amount  remaining  reservation, key
────────────────────────────────────────────────────────────────────────────
  3  2030-01-31 12:00:00Z  REVOCATION  0.000000   0.000000
""",
    ),
    (
        "rebuild alice --yes --unit tokens",
        admin.RebuildBalanceRequest(account="alice", unit="tokens"),
        admin.RebuildBalanceResponse(
            repaired=[DIFFERENCE], remaining=[DIFFERENCE], balance=BALANCE
        ),
        8,
        """\
1 difference found, 1 difference left.

what               stored  expected
───────────────────────────────────────────────────────────────────
lot 3 available  5.000000  4.000000  Lot 3 has more than it should.
""",
    ),
    (
        "entry alice --refund-key back-1 --micros",
        ledger.GetEntryRequest(account="alice", refund_key="back-1"),
        ledger.GetEntryResponse(entry=ENTRY),
        0,
        """\
seq        3
kind       REVOCATION
amount     0
remaining  0
time       2030-01-31 12:00:00Z
""",
    ),
]


@pytest.mark.parametrize(
    ("command", "asked", "answer", "code", "printed"), COMMANDS, ids=[row[0] for row in COMMANDS]
)
async def test_a_command(
    run_scripted: Run,
    scripted: ScriptedServer,
    command: str,
    asked: Message,
    answer: Message,
    code: int,
    printed: str,
) -> None:
    scripted.answer(answer)
    done = await run_scripted(*shlex.split(command))
    assert scripted.request == asked
    assert (done.code, done.out, done.err) == (code, printed, "")


@pytest.mark.parametrize(
    ("command", "answer", "result"),
    [
        ("revoke k", metering.RevokeGrantResponse(), meterhold.RevokeResult),
        ("reinstate k", metering.ReinstateGrantResponse(), meterhold.ReinstateResult),
        ("defaults", admin.GetDefaultsResponse(), meterhold.Defaults),
        ("defaults --signup-grant 1cr", admin.ConfigureDefaultsResponse(), meterhold.Defaults),
        ("stats", ledger.GetStatsResponse(), meterhold.Stats),
        ("spend --by model", REPORT, meterhold.SpendReport),
        ("verify alice", admin.VerifyBalanceResponse(), meterhold.VerifyResult),
        ("rebuild alice --yes", admin.RebuildBalanceResponse(), meterhold.RebuildResult),
    ],
)
async def test_the_fields_of_json_are_those_of_the_api(
    run_scripted: Run, scripted: ScriptedServer, command: str, answer: Message, result: type[Any]
) -> None:
    scripted.answer(answer)
    done = await run_scripted(*command.split(), "--json")
    assert set(done.value) == {field.name for field in fields(result)}


async def test_the_values_of_json(run_scripted: Run, scripted: ScriptedServer) -> None:
    scripted.answer(REPORT)
    report = (await run_scripted("spend", "--by", "model", "--json")).value
    assert report["rows"][1] == {"values": ["", "blue"], **SPENT}
    assert (report["group_count"], report["read_time"]) == (4, "2030-01-31T12:00:00Z")


async def test_the_books_that_are_wrong_are_told_in_json_by_the_exit_code_too(
    run_scripted: Run, scripted: ScriptedServer
) -> None:
    scripted.answer(admin.VerifyBalanceResponse(differences=[DIFFERENCE]))
    done = await run_scripted("verify", "alice", "--json")
    assert (done.code, '"what": "lot 3 available"' in done.out) == (8, True)


async def test_entries_are_asked_for_by_time_and_label(
    run_scripted: Run, scripted: ScriptedServer
) -> None:
    scripted.answer(
        ledger.ListEntriesResponse(next_page_token="on"),
        ledger.ListEntriesResponse(entries=[ENTRY], next_page_token="on"),
        ledger.ListEntriesResponse(),
    )
    done = await run_scripted(
        *("entries", "alice", "--since", "7d", "--until", "2100-01-31T00:00:00Z", "--json"),
        *("--label", "team=blue", "--label", "app=a", "--kind", "revocation"),
    )
    assert [entry["seq"] for entry in done.values] == [3]
    asked = scripted.calls[0].request
    assert (dict(asked.labels), list(asked.kinds)) == ({"team": "blue", "app": "a"}, [8])
    since = datetime.now(UTC) - asked.start_time.ToDatetime(UTC)
    assert timedelta(days=7) <= since < timedelta(days=7, minutes=1)
    assert asked.end_time.ToDatetime(UTC) == datetime(2100, 1, 31, tzinfo=UTC)


LOT = types.Lot(
    seq=2, granted_micros=5_000_000, available_micros=4_000_000, priority=50, idempotency_key="a"
)
PENDING = types.Lot(
    granted_micros=3_000_000, effective_time=TIME, priority=50, idempotency_key="later"
)


async def test_pending_grants_are_shown(run_scripted: Run, scripted: ScriptedServer) -> None:
    pending = types.Balance(pending_micros=3_000_000)
    scripted.last = metering.BalanceResponse(balance=pending, lots=[LOT], pending=[PENDING])
    shown = (await run_scripted("balance", "alice", "--lots")).out
    assert "pending    3.000000\n" in shown
    assert (
        """\
seq   granted  available      held  category  priority  expires  effective             key
──────────────────────────────────────────────────────────────────────────────────────────
     3.000000   0.000000  0.000000  UNKNOWN         50  never    2030-01-31 12:00:00Z  later
""".splitlines()[2]
        in shown
    )
    found = (await run_scripted("balance", "alice", "--lots", "--json")).value
    assert [lot["idempotency_key"] for lot in found["pending"]] == ["later"]
    assert found["pending"][0]["effective_time"] == "2030-01-31T12:00:00Z"
    assert "pending" not in (await run_scripted("balance", "alice", "--json")).value


async def test_pending_grants_are_listed_before_the_lots(
    run_scripted: Run, scripted: ScriptedServer
) -> None:
    scripted.answer(
        metering.BalanceResponse(pending=[PENDING]), ledger.ListLotsResponse(lots=[LOT])
    )
    assert (
        (await run_scripted("lots", "alice")).out
        == """\
seq   granted  available      held  category  priority  expires  effective             key
────────────────────────────────────────────────────────────────────────────────────────────
     3.000000   0.000000  0.000000  UNKNOWN         50  never    2030-01-31 12:00:00Z  later
  2  5.000000   4.000000  0.000000  UNKNOWN         50  never                          a
"""
    )


@pytest.mark.parametrize(
    ("typed", "code", "calls"),
    [
        ("y\n", 0, ["VerifyBalance", "RebuildBalance"]),
        ("n\n", 2, ["VerifyBalance"]),
        ("", 2, ["VerifyBalance"]),
    ],
)
async def test_rebuild_shows_what_is_wrong_and_asks(
    run_scripted: Run, scripted: ScriptedServer, typed: str, code: int, calls: list[str]
) -> None:
    scripted.answer(
        admin.VerifyBalanceResponse(differences=[DIFFERENCE]),
        admin.RebuildBalanceResponse(repaired=[DIFFERENCE]),
    )
    done = await run_scripted("rebuild", "alice", TYPED=typed)
    assert done.code == code
    assert "Lot 3 has more than it should." in done.out
    assert "Set this right?" in done.err
    assert [call.method for call in scripted.calls] == calls
    assert ("1 difference found, 0 differences left." in done.out) == (code == 0)
    assert ("nothing was changed; --yes goes on without asking" in done.err) == (code == 2)


async def test_rebuild_does_not_ask_a_program(run_scripted: Run, scripted: ScriptedServer) -> None:
    error = (await run_scripted("rebuild", "alice", "--json")).error
    assert (error["exit_code"], error["message"]) == (2, "--json does not ask: give --yes")
    assert scripted.calls == []


async def test_rebuild_does_not_ask_about_a_sound_account(
    run_scripted: Run, scripted: ScriptedServer
) -> None:
    scripted.answer(admin.VerifyBalanceResponse(), admin.RebuildBalanceResponse())
    done = await run_scripted("rebuild", "alice")
    assert (done.code, done.out, done.err) == (0, "0 differences found, 0 differences left.\n", "")


async def test_refund(run: Run, client: meterhold.AsyncClient) -> None:
    await client.grant_once("alice", 10_000_000, idempotency_key="order-1")
    await client.debit("alice", 4_000_000)
    await client.reserve("alice", 1_000_000, reservation_id="job")
    await client.settle("alice", 250_000, reservation_id="job")
    command = ("refund", "alice", "1.5cr", "--key", "back-1", "--entry", "2", "--reason", "bad")
    assert (await run(*command)).out == (
        "Refunded 1.500000.\n"
        "entry           4\n"
        "key             back-1\n"
        "refunded of it  1.500000\n"
        "available       7.250000\n"
    )
    assert "Refunded 1.500000 before; nothing now." in (await run(*command)).out
    entry = await client.get_entry("alice", seq=4)
    assert (entry.reason, entry.related_seq) == ("bad", 2)

    rest = await run("refund", "alice", "--key", "back-2", "--entry", "2", "--json")
    assert set(rest.value) == {field.name for field in fields(meterhold.RefundResult)}
    assert rest.value["refunded_micros"] == 2_500_000
    settled = await run("refund", "alice", "--reservation", "job", "--key", "back-3", "--json")
    assert settled.value["refunded_micros"] == 250_000
    assert (await client.balance("alice")).available_micros == 10_000_000
