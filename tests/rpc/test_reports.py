"""Reports, and entries by label, time and key, on a real server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import grpc.aio
import psycopg
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from psycopg.types.json import Jsonb

import meterhold
from meterhold import OnExpiry, Overage, Usage
from meterhold.v1 import ledger_service_pb2 as pb
from meterhold.v1 import types_pb2
from meterhold.v1.ledger_service_pb2_grpc import LedgerServiceStub
from meterhold_server.core.model import AccountKey, account_id_of
from meterhold_server.storage import connection as connections
from meterhold_server.storage import entry_pages
from rpc.answers import METHODS, Told, call, refusal
from storage.made_up import store_account
from support.service import service

if TYPE_CHECKING:
    from meterhold.v1.ledger_service_pb2_grpc import LedgerServiceAsyncStub

ALICE = AccountKey("default", "alice", "credits")
BY_KEY = pb.SpendGroup(label="key")
BY_ACCOUNT = pb.SpendGroup(dimension=pb.SPEND_DIMENSION_ACCOUNT)
BY_MODEL = pb.SpendGroup(dimension=pb.SPEND_DIMENSION_MODEL)
BY_DAY = pb.SpendGroup(dimension=pb.SPEND_DIMENSION_DAY)
NOW = datetime.now(UTC)


@pytest.fixture
async def channel(address: str) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(address) as opened:
        yield opened


@pytest.fixture
async def ledger(channel: grpc.aio.Channel) -> LedgerServiceAsyncStub:
    return stub_of(channel)


def stub_of(channel: grpc.aio.Channel) -> LedgerServiceAsyncStub:
    stub: Any = LedgerServiceStub(channel)
    ready: LedgerServiceAsyncStub = stub
    return ready


@pytest.fixture
async def spent(client: meterhold.AsyncClient) -> None:
    """What three keys of alice, and bob, have spent on two models."""
    for account in ("alice", "bob"):
        await client.grant_once(account, 1000, idempotency_key=f"order-{account}")
    large, small = Usage(model="large"), Usage(model="small", provider="acme")
    await client.debit("alice", 30, labels={"key": "a", "run": "1"}, usage=large)
    await client.debit("alice", 20, labels={"key": "b", "run": "1"}, usage=small)
    await client.reserve("alice", 100, reservation_id="job")
    await client.settle("alice", 60, reservation_id="job", labels={"key": "b"}, usage=large)
    await client.debit("alice", 5)
    await client.debit("bob", 7, labels={"key": "a"}, usage=small)
    await client.grant_once("alice", 500, idempotency_key="tokens", unit="tokens")
    await client.debit("alice", 500, labels={"key": "a"}, unit="tokens")


def rows_of(report: pb.SpendReportResponse) -> list[tuple[tuple[str, ...], int, int, int]]:
    return [
        (tuple(row.values), row.charged_micros, row.refunded_micros, row.charge_count)
        for row in report.rows
    ]


@pytest.mark.usefixtures("spent")
class TestSpendReport:
    async def test_by_a_label_is_what_each_key_has_spent(
        self, ledger: LedgerServiceAsyncStub
    ) -> None:
        report = await ledger.SpendReport(
            pb.SpendReportRequest(account="alice", group_by=[BY_KEY]), timeout=10
        )
        assert rows_of(report) == [(("b",), 80, 0, 2), (("a",), 30, 0, 1), (("",), 5, 0, 1)]
        assert (report.total.charged_micros, report.total.charge_count) == (115, 4)
        assert list(report.total.values) == []
        assert report.group_count == 3
        assert abs(report.read_time.ToDatetime(UTC) - datetime.now(UTC)) < timedelta(minutes=1)

    async def test_what_was_refunded_stands_beside_what_was_charged(
        self, ledger: LedgerServiceAsyncStub, client: meterhold.AsyncClient
    ) -> None:
        await client.refund_charge("alice", 12, entry_seq=2, idempotency_key="sorry")
        await client.refund_charge(
            "alice", reservation_id="job", capture_id="", idempotency_key="sorry, too"
        )
        report = await ledger.SpendReport(
            pb.SpendReportRequest(account="alice", group_by=[BY_KEY]), timeout=10
        )
        assert rows_of(report)[:2] == [(("b",), 80, 60, 2), (("a",), 30, 12, 1)]
        assert report.total.refunded_micros == 72

    async def test_of_all_accounts_of_the_unit(self, ledger: LedgerServiceAsyncStub) -> None:
        report = await ledger.SpendReport(
            pb.SpendReportRequest(group_by=[BY_ACCOUNT, BY_MODEL, BY_DAY]), timeout=10
        )
        assert [(*row[0][:2], row[1]) for row in rows_of(report)] == [
            ("alice", "large", 90),
            ("alice", "small", 20),
            ("bob", "small", 7),
            ("alice", "", 5),
        ]
        days = {row.values[2] for row in report.rows}
        assert days <= {f"{NOW:%Y-%m-%d}", f"{NOW + timedelta(days=1):%Y-%m-%d}"}

    async def test_only_the_largest_groups_but_the_total_of_all(
        self, ledger: LedgerServiceAsyncStub
    ) -> None:
        request = pb.SpendReportRequest(account="alice", group_by=[BY_KEY], row_limit=1)
        report = await ledger.SpendReport(request, timeout=10)
        assert rows_of(report) == [(("b",), 80, 0, 2)]
        assert (report.total.charged_micros, report.group_count) == (115, 3)

    async def test_without_groups_is_the_total_alone(self, ledger: LedgerServiceAsyncStub) -> None:
        request = pb.SpendReportRequest(account="alice", labels={"key": "b", "run": "1"})
        report = await ledger.SpendReport(request, timeout=10)
        assert (rows_of(report), report.group_count) == ([], 0)
        assert (report.total.charged_micros, report.total.charge_count) == (20, 1)

    async def test_of_a_range_of_time(
        self, ledger: LedgerServiceAsyncStub, client: meterhold.AsyncClient
    ) -> None:
        """From an entry's time on it is in, up to its time it is not."""
        second = await client.get_entry("alice", seq=3)
        for account in ("alice", ""):
            since = pb.SpendReportRequest(account=account, labels={"run": "1"})
            since.start_time.FromDatetime(second.create_time)
            assert (await ledger.SpendReport(since, timeout=10)).total.charged_micros == 20
            until = pb.SpendReportRequest(account=account, labels={"run": "1"})
            until.end_time.FromDatetime(second.create_time)
            assert (await ledger.SpendReport(until, timeout=10)).total.charged_micros == 30

    async def test_of_an_unknown_account_is_empty(self, ledger: LedgerServiceAsyncStub) -> None:
        request = pb.SpendReportRequest(account="nobody", group_by=[BY_KEY])
        report = await ledger.SpendReport(request, timeout=10)
        assert (rows_of(report), report.total) == ([], pb.SpendRow())

    async def test_of_an_account_has_what_its_expired_holds_were_charged(
        self, ledger: LedgerServiceAsyncStub, client: meterhold.AsyncClient, database_url: str
    ) -> None:
        labels = {"key": "c"}
        await client.reserve(
            "alice", 44, reservation_id="lost", on_expiry=OnExpiry.CHARGE, labels=labels
        )
        with psycopg.connect(database_url) as connection:
            connection.execute(
                "UPDATE reservation SET expire_time = create_time WHERE state = 'ACTIVE'"
            )
            connection.execute("UPDATE account SET next_expire_time = create_time")
        request = pb.SpendReportRequest(account="alice", labels=labels)
        assert (await ledger.SpendReport(request, timeout=10)).total.charged_micros == 44


class TestGetStats:
    async def test_sums_the_accounts_of_the_unit(
        self, ledger: LedgerServiceAsyncStub, client: meterhold.AsyncClient
    ) -> None:
        await client.grant_once("alice", 500, idempotency_key="a")
        await client.grant_once("bob", 100, idempotency_key="b")
        await client.grant_once("bob", 9, idempotency_key="c", unit="tokens")
        await client.debit("alice", 40)
        await client.debit("bob", 130, overage=Overage.OVERDRAFT)
        await client.refund_charge("alice", 10, entry_seq=2, idempotency_key="sorry")
        await client.reserve("alice", 70, reservation_id="job")
        found = await ledger.GetStats(pb.GetStatsRequest(), timeout=10)
        assert found.HasField("read_time")
        found.ClearField("read_time")
        assert found == pb.GetStatsResponse(
            unit="credits",
            account_count=2,
            granted_micros=600,
            spent_micros=170,
            refunded_micros=10,
            outstanding_micros=440,
            held_micros=70,
            debt_micros=30,
        )
        tokens = await ledger.GetStats(pb.GetStatsRequest(unit="tokens"), timeout=10)
        assert (tokens.unit, tokens.account_count, tokens.granted_micros) == ("tokens", 1, 9)

    async def test_a_sum_that_the_wire_cannot_carry_is_refused(
        self, channel: grpc.aio.Channel, database_url: str
    ) -> None:
        with psycopg.connect(database_url) as connection:
            for name in ("alice", "bob"):
                store_account(connection, ALICE._replace(account=name), granted=9 * 10**18)
        told = await refusal(channel, METHODS["GetStats"], pb.GetStatsRequest())
        assert (told.code, told.reason) == ("OUT_OF_RANGE", "BALANCE_OUT_OF_RANGE")
        assert told.info.metadata["field"] == "granted_micros"
        assert told.info.metadata["limitMicros"] == str(2**63 - 1)


class TestSlowReports:
    async def test_one_that_takes_too_long_says_so(
        self, database_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(connections._READ_SETTINGS, "statement_timeout", "50ms")
        async with (
            service(database_url, sweep=False) as address,
            grpc.aio.insecure_channel(address) as channel,
        ):
            with psycopg.connect(database_url) as locking:
                locking.execute("LOCK TABLE entry IN ACCESS EXCLUSIVE MODE")
                told = await refusal(channel, METHODS["SpendReport"], pb.SpendReportRequest())
            assert (told.code, told.reason) == ("DEADLINE_EXCEEDED", "DEADLINE_PASSED")
            assert told.applied == "NO"
            assert "ask for less" in told.message
            again = await call(channel, METHODS["SpendReport"], pb.SpendReportRequest())
            assert not isinstance(again, Told)

    async def test_no_other_read_waits_for_one(
        self, ledger: LedgerServiceAsyncStub, client: meterhold.AsyncClient, database_url: str
    ) -> None:
        await client.grant_once("alice", 500, idempotency_key="a")
        with psycopg.connect(database_url) as locking:
            locking.execute("LOCK TABLE charge_refund IN ACCESS EXCLUSIVE MODE")
            reports = [
                asyncio.ensure_future(ledger.SpendReport(pb.SpendReportRequest(), timeout=20))
                for _ in range(5)
            ]
            await asyncio.wait_for(_entries(ledger, pb.ListEntriesRequest(account="alice")), 5)
            assert (await client.balance("alice")).available_micros == 500
            assert not any(report.done() for report in reports)
        for report in await asyncio.gather(*reports):
            assert report.total.charge_count == 0


class TestEntries:
    async def test_by_labels_and_time(
        self, ledger: LedgerServiceAsyncStub, client: meterhold.AsyncClient
    ) -> None:
        await client.grant_once("alice", 500, idempotency_key="a", labels={"run": "1"})
        for number in range(6):
            await client.debit("alice", 1, labels={"run": str(number % 2), "key": "k"})
        request = pb.ListEntriesRequest(account="alice", labels={"run": "1"}, page_size=2)
        assert [entry.seq for entry in await _entries(ledger, request)] == [7, 5, 3, 1]
        request.labels["key"] = "k"
        assert [entry.seq for entry in await _entries(ledger, request)] == [7, 5, 3]
        request.end_time.FromDatetime((await client.get_entry("alice", seq=7)).create_time)
        request.start_time.FromDatetime((await client.get_entry("alice", seq=5)).create_time)
        assert [entry.seq for entry in await _entries(ledger, request)] == [5]
        request.oldest_first = True
        request.ClearField("end_time")
        assert [entry.seq for entry in await _entries(ledger, request)] == [5, 7]
        request.kinds.append(types_pb2.ENTRY_KIND_GRANT)
        assert await _entries(ledger, request) == []

    @pytest.mark.parametrize("oldest_first", [True, False])
    @pytest.mark.parametrize("page_size", [1, 7])
    async def test_begun_before_others_write_have_no_gap_and_nothing_twice(
        self,
        ledger: LedgerServiceAsyncStub,
        client: meterhold.AsyncClient,
        monkeypatch: pytest.MonkeyPatch,
        oldest_first: bool,
        page_size: int,
    ) -> None:
        monkeypatch.setattr(entry_pages, "LOOKED_AT_MAX", 5)
        await client.grant_once("alice", 500, idempotency_key="a")
        for number in range(20):
            await client.debit("alice", 1, labels={"run": str(number % 3)})
        request = pb.ListEntriesRequest(
            account="alice", labels={"run": "1"}, page_size=page_size, oldest_first=oldest_first
        )
        before = [entry.seq for entry in await _entries(ledger, request)]
        seen = list[int]()
        while True:
            page = await ledger.ListEntries(request, timeout=10)
            seen += [entry.seq for entry in page.entries]
            await client.debit("alice", 1, labels={"run": "1"})
            request.page_token = page.next_page_token
            if not page.next_page_token or len(seen) > 60:
                break
        assert seen[: len(before)] == before
        if oldest_first:
            # What was added meanwhile comes last, for as long as there is a next page.
            assert seen == sorted(set(seen))
        else:
            assert seen == before

    async def test_a_token_belongs_to_all_filters(
        self, ledger: LedgerServiceAsyncStub, client: meterhold.AsyncClient, channel: Any
    ) -> None:
        await client.grant_once("alice", 500, idempotency_key="a")
        for _ in range(3):
            await client.debit("alice", 1, labels={"run": "1"})
        start, end = Timestamp(seconds=1), Timestamp(seconds=4_000_000_000)
        request = pb.ListEntriesRequest(
            account="alice", labels={"run": "1"}, start_time=start, end_time=end, page_size=1
        )
        page = await ledger.ListEntries(request, timeout=10)
        request.page_token = page.next_page_token
        assert [entry.seq for entry in await _entries(ledger, request)] == [3, 2]
        other_times = {"start_time": Timestamp(seconds=2), "end_time": Timestamp(seconds=4 * 10**9)}
        changes: list[dict[str, Any]] = [
            {"labels": {"run": "2"}},
            {"labels": {"run": "1", "key": "k"}},
            {"start_time": other_times["start_time"]},
            {"end_time": Timestamp(seconds=4_000_000_001)},
            {"oldest_first": True},
            {"kinds": [types_pb2.ENTRY_KIND_DEBIT]},
        ]
        for change in changes:
            other = pb.ListEntriesRequest()
            other.CopyFrom(request)
            for name in change:
                other.ClearField(name)  # type: ignore[arg-type]
            other.MergeFrom(pb.ListEntriesRequest(**change))
            told = await refusal(channel, METHODS["ListEntries"], other)
            assert told.fields == {"page_token"}, change

    async def test_say_what_they_are_to_anybody(
        self, ledger: LedgerServiceAsyncStub, client: meterhold.AsyncClient
    ) -> None:
        await client.grant_once("alice", 500, idempotency_key="order-7", reason="secret")
        await client.debit("alice", 1, labels={"run": "1"})
        found = await _entries(ledger, pb.ListEntriesRequest(account="alice"))
        assert [entry.description for entry in found] == ["Usage", "Credits added"]


class TestGetEntry:
    async def test_by_the_key_of_its_refund(
        self, ledger: LedgerServiceAsyncStub, client: meterhold.AsyncClient, channel: Any
    ) -> None:
        await client.grant_once("alice", 500, idempotency_key="same")
        await client.debit_once("alice", 40, idempotency_key="same")
        refunded = await client.refund_charge("alice", entry_seq=2, idempotency_key="same")
        request = pb.GetEntryRequest(account="alice", refund_key="same")
        found = (await ledger.GetEntry(request, timeout=10)).entry
        assert (found.seq, found.related_seq) == (refunded.entry.seq, 2)
        for account, key in (("alice", "other"), ("bob", "same")):
            other = pb.GetEntryRequest(account=account, refund_key=key)
            told = await refusal(channel, METHODS["GetEntry"], other)
            assert told.reason == "ENTRY_NOT_FOUND"

    async def test_of_a_grant_that_came_after_its_revocation(
        self, ledger: LedgerServiceAsyncStub, client: meterhold.AsyncClient, database_url: str
    ) -> None:
        await client.grant_once("alice", 500, idempotency_key="first")
        _claim(database_url, "GRANT_ONCE", "late", None, {})
        _claim(database_url, "GRANT_AFTER_TOMBSTONE", "late", 1, {})
        request = pb.GetEntryRequest(account="alice", grant_key="late")
        assert (await ledger.GetEntry(request, timeout=10)).entry.seq == 1

    @pytest.mark.parametrize("state", ["PENDING", "LANDED"])
    async def test_of_a_grant_that_was_pending_once_it_has_landed(
        self, client: meterhold.AsyncClient, channel: Any, database_url: str, state: str
    ) -> None:
        """By each of its keys."""
        await client.grant_once("alice", 500, idempotency_key="other")
        for kind, key in (
            ("GRANT_ONCE", "gift"),
            ("GRANT_ONCE", "alias"),
            ("GRANT_AFTER_TOMBSTONE", "late alias"),
        ):
            _claim(database_url, kind, key, None, {"pending_key": "gift"})
        _pending(database_url, "gift", state, entry_seq=1 if state == "LANDED" else 0)
        for key in ("gift", "alias", "late alias"):
            request = pb.GetEntryRequest(account="alice", grant_key=key)
            answer = await call(channel, METHODS["GetEntry"], request)
            if state == "PENDING":
                assert isinstance(answer, Told)
                assert answer.reason == "ENTRY_NOT_FOUND"
            else:
                assert isinstance(answer, bytes)
                assert pb.GetEntryResponse.FromString(answer).entry.seq == 1


async def _entries(
    ledger: LedgerServiceAsyncStub, asked: pb.ListEntriesRequest
) -> list[types_pb2.Entry]:
    """Of all pages."""
    request, found = pb.ListEntriesRequest(), list[types_pb2.Entry]()
    request.CopyFrom(asked)
    while True:
        page = await ledger.ListEntries(request, timeout=10)
        found += page.entries
        request.page_token = page.next_page_token
        if not page.next_page_token:
            return found


def _claim(
    database_url: str, kind: str, key: str, entry_seq: int | None, answer: dict[str, Any]
) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "INSERT INTO claim (namespace, kind, key, account_id, entry_seq, request, answer,"
            " create_time) VALUES ('default', %s, %s, %s, %s, '{}', %s, now())",
            (kind, key, account_id_of(ALICE), entry_seq, Jsonb(answer)),
        )


def _pending(database_url: str, key: str, state: str, *, entry_seq: int) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "INSERT INTO pending_grant (account_id, idempotency_key, amount_micros, state,"
            " effective_time, entry_seq, priority, category, create_time, reason, revocations)"
            " VALUES (%s, %s, 500, %s, now(), %s, 50, 'PAID', now(), '', '{}')",
            (account_id_of(ALICE), key, state, entry_seq),
        )
