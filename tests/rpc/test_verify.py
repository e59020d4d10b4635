"""VerifyBalance and RebuildBalance on a real server, over damage done behind its back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import grpc
import grpc.aio
import psycopg
import pytest

import meterhold
from meterhold.v1 import admin_service_pb2 as pb
from meterhold.v1 import types_pb2
from meterhold.v1.admin_service_pb2_grpc import AdminServiceStub
from meterhold_server.batching import reader
from meterhold_server.core.charge_blocks import BlockKey
from meterhold_server.core.model import AccountKey, account_id_of
from meterhold_server.rpc import admin as admin_servicer
from meterhold_server.storage import verify
from meterhold_server.storage.charge_blocks import make_block
from meterhold_server.storage.connection import connect_summarizer
from rpc.answers import METHODS, Told, call, refusal
from support.service import service

if TYPE_CHECKING:
    from meterhold.v1.admin_service_pb2_grpc import AdminServiceAsyncStub

ALICE = pb.VerifyBalanceRequest(account="alice")
ALICE_ID = account_id_of(AccountKey("default", "alice", "credits"))
REBUILD = pb.RebuildBalanceRequest(account="alice")


@pytest.fixture
async def channel(address: str) -> AsyncIterator[grpc.aio.Channel]:
    """Of a server where alice was granted 100, charged 30, and holds 20."""
    async with meterhold.AsyncClient(address) as client:
        await client.grant_once("alice", 100, idempotency_key="order")
        await client.debit_once("alice", 30, idempotency_key="fee")
        await client.reserve("alice", 20, reservation_id="job")
    async with grpc.aio.insecure_channel(address) as opened:
        yield opened


@pytest.fixture
def admin(channel: grpc.aio.Channel) -> AdminServiceAsyncStub:
    return AdminServiceStub(channel)


def damage(database_url: str, *statements: str) -> None:
    """Done by the owner of the tables, with the fences down."""
    with psycopg.connect(database_url) as connection:
        connection.execute("ALTER TABLE entry DISABLE TRIGGER ALL")
        for statement in statements:
            assert connection.execute(statement.encode()).rowcount == 1
        connection.execute("ALTER TABLE entry ENABLE ALWAYS TRIGGER entry_keeps_rows")


async def test_a_sound_account_has_no_differences_and_is_left_alone(
    admin: AdminServiceAsyncStub,
) -> None:
    found = await admin.VerifyBalance(ALICE)
    assert (list(found.differences), found.entry_count) == ([], 2)
    assert (found.balance.available_micros, found.balance.held_micros) == (50, 20)
    rebuilt = await admin.RebuildBalance(REBUILD)
    assert rebuilt == pb.RebuildBalanceResponse(balance=found.balance)
    assert await admin.VerifyBalance(ALICE) == found


async def test_an_unknown_account_is_empty(admin: AdminServiceAsyncStub) -> None:
    nothing = types_pb2.Balance()
    found = await admin.VerifyBalance(pb.VerifyBalanceRequest(account="nobody"))
    assert found == pb.VerifyBalanceResponse(balance=nothing)
    rebuilt = await admin.RebuildBalance(pb.RebuildBalanceRequest(account="alice", unit="minutes"))
    assert rebuilt == pb.RebuildBalanceResponse(balance=nothing)


async def test_totals_are_computed_again(admin: AdminServiceAsyncStub, database_url: str) -> None:
    damage(database_url, "UPDATE account SET spent_micros = 20, expired_micros = 10")
    found = await admin.VerifyBalance(ALICE)
    told = {each.what: (each.stored_micros, each.expected_micros) for each in found.differences}
    assert told == {"spent_micros": (20, 30), "expired_micros": (10, 0)}
    assert found.differences[0].description == "spent_micros 20 ≠ sum of its entries 30"

    rebuilt = await admin.RebuildBalance(REBUILD)
    assert list(rebuilt.repaired) == list(found.differences)
    assert (list(rebuilt.remaining), list(rebuilt.corrections)) == ([], [])
    assert rebuilt.balance.spent_micros == 30
    assert not (await admin.VerifyBalance(ALICE)).differences


async def test_wrong_sums_of_charges_are_removed(
    admin: AdminServiceAsyncStub, address: str, database_url: str
) -> None:
    async with meterhold.AsyncClient(address) as client:
        for _ in range(8):
            await client.debit("alice", 1)
    with connect_summarizer(database_url) as connection:
        assert make_block(connection, BlockKey(ALICE_ID, 1, 8))
    assert not (await admin.VerifyBalance(ALICE)).differences
    damage(database_url, "UPDATE charge_summary SET charged_micros = 37, charge_count = 6")
    found = await admin.VerifyBalance(ALICE)
    (told,) = found.differences
    assert (told.what, told.stored_micros, told.expected_micros) == (
        *("summary of entries 1 to 8", 37, 36),
    )

    rebuilt = await admin.RebuildBalance(REBUILD)
    assert list(rebuilt.repaired) == [told]
    assert (list(rebuilt.remaining), list(rebuilt.corrections)) == ([], [])
    assert not (await admin.VerifyBalance(ALICE)).differences
    with connect_summarizer(database_url) as connection:
        assert make_block(connection, BlockKey(ALICE_ID, 1, 8)), "it can be made again"


async def test_a_lost_entry_is_stood_in_for(
    admin: AdminServiceAsyncStub, address: str, database_url: str
) -> None:
    """And its key goes on answering, so that nothing is charged twice."""
    damage(database_url, "DELETE FROM entry WHERE seq = 2")
    rebuilt = await admin.RebuildBalance(REBUILD)
    (correction,) = rebuilt.corrections
    assert (correction.kind, correction.seq) == (types_pb2.ENTRY_KIND_CORRECTION, 2)
    assert (correction.amount_micros, correction.remaining_after_micros) == (-30, 70)
    assert correction.reason == "entry 2 was missing"
    assert dict(correction.metadata) == {"stored_micros": "0", "expected_micros": "-30"}
    assert not rebuilt.remaining
    assert rebuilt.balance.available_micros == 50
    async with meterhold.AsyncClient(address) as client:
        again = await client.debit_once("alice", 30, idempotency_key="fee")
        assert again.replayed
        settled = await client.settle("alice", 20, reservation_id="job")
        assert settled.balance.available_micros == 50
    assert not (await admin.VerifyBalance(ALICE)).differences


async def test_what_a_server_may_not_repair_is_told(
    admin: AdminServiceAsyncStub, database_url: str
) -> None:
    damage(
        database_url,
        "UPDATE lot SET available_micros = 51",
        "INSERT INTO claim SELECT 'default', 'DEBIT_ONCE', 'lost', account_id, 9, '{}', '{}',"
        " now() FROM account",
    )
    rebuilt = await admin.RebuildBalance(REBUILD)
    assert {each.what for each in rebuilt.repaired} == {
        "lots available",
        "lot 1 available + held + repaid",
    }
    (left,) = rebuilt.remaining
    assert left.description == (
        "the key 'lost' of DEBIT_ONCE names entry 9, which does not exist:"
        " `meterhold-server verify --repair` removes it"
    )


async def test_numbers_past_int64_are_cut(admin: AdminServiceAsyncStub, database_url: str) -> None:
    damage(
        database_url,
        f"UPDATE entry SET parts = '[[1, {2**63 - 1}], [1, {2**63 - 1}]]' WHERE seq = 2",
    )
    found = await admin.VerifyBalance(ALICE)
    assert [each.expected_micros for each in found.differences] == [-(2**63)]


@pytest.mark.slow
async def test_a_check_that_takes_too_long_is_given_up_and_starves_nobody(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "VERIFY_SECONDS_MAX", 1.0)
    monkeypatch.setattr(verify, "CHECKS", {"slow": "SELECT pg_sleep(30), %(first)s, %(last)s"})
    async with (
        service(database_url) as address,
        meterhold.AsyncClient(address) as client,
        grpc.aio.insecure_channel(address) as channel,
    ):
        await client.grant_once("alice", 100, idempotency_key="order")
        checks = [
            asyncio.create_task(call(channel, METHODS["VerifyBalance"], ALICE)) for _ in range(2)
        ]
        while not all(check.done() for check in checks):
            assert (await client.balance("alice")).available_micros == 100
        for check in checks:
            answer = check.result()
            assert isinstance(answer, Told)
            assert (answer.reason, answer.applied) == ("DEADLINE_PASSED", "NO")
            assert "run `meterhold-server verify --account` instead" in answer.message


async def test_a_long_ledger_is_not_rebuilt_between_other_work(
    channel: grpc.aio.Channel, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admin_servicer, "_REBUILT_ENTRIES_MAX", 1)
    damage(database_url, "UPDATE account SET seq = 1")
    told = await refusal(channel, METHODS["RebuildBalance"], REBUILD)
    assert (told.reason, told.fields) == ("INVALID_FIELD", {"account"})
    assert "verify --repair --account" in told.violations[0][1]
