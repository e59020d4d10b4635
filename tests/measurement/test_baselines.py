"""The baselines do honest work: what they charge is in their books, and no more than is there."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import psycopg
import pytest

from benchmarks import ceiling
from benchmarks.servers import printing_its_port
from meterhold.v1 import metering_service_pb2 as pb
from meterhold.v1.metering_service_pb2_grpc import MeteringServiceStub
from support.database import DatabaseServer, name_of

ACCOUNTS = 4
BALANCE = 10**15


@pytest.fixture
def empty_url(database_server: DatabaseServer) -> Iterator[str]:
    url = database_server.create_database()
    yield url
    database_server.drop_database(name_of(url))


def one(url: str, query: str) -> Any:
    with psycopg.connect(url) as connection:
        row = connection.execute(query.encode()).fetchone()
    assert row is not None
    return row[0]


def orders(url: str, workload: str) -> ceiling.Orders:
    return ceiling.Orders(url, workload, ACCOUNTS, 10, 0.1, 0.02)


def test_bare_debits_are_in_the_ledger(empty_url: str) -> None:
    ceiling.prepare(empty_url, ACCOUNTS)
    found = ceiling.measure(orders(empty_url, "debit"))
    charged = -one(empty_url, "SELECT sum(delta)::bigint FROM ledger")
    assert charged >= found["operations"] * 5
    assert one(empty_url, "SELECT sum(balance)::bigint FROM account") == (
        ACCOUNTS * BALANCE - charged
    )


def test_bare_pairs_leave_no_hold_behind(empty_url: str) -> None:
    ceiling.prepare(empty_url, ACCOUNTS)
    found = ceiling.measure(orders(empty_url, "pair"))
    assert one(empty_url, "SELECT count(*) FROM ledger") * 2 >= found["operations"] > 0
    assert one(empty_url, "SELECT sum(held)::bigint FROM account") == 0
    assert one(empty_url, "SELECT count(*) FROM hold WHERE active") == 0
    assert one(empty_url, "SELECT sum(balance)::bigint FROM account") == (
        ACCOUNTS * BALANCE - 700 * one(empty_url, "SELECT count(*) FROM hold")
    )


def test_a_bare_commit_is_one(empty_url: str) -> None:
    ceiling.prepare(empty_url, ACCOUNTS)
    found = ceiling.measure(orders(empty_url, "commit"))
    assert one(empty_url, "SELECT value FROM counter") >= found["operations"] > 0


def test_bare_sets_never_overspend(empty_url: str) -> None:
    ceiling.prepare(empty_url, ACCOUNTS)
    with psycopg.connect(empty_url) as connection:
        connection.execute("UPDATE account SET balance = 52")
    with pytest.raises(RuntimeError, match="a set was not covered"):
        ceiling.measure(orders(empty_url, "debit"))
    assert one(empty_url, "SELECT min(balance) FROM account") >= 0


@pytest.fixture
def naive(empty_url: str) -> Iterator[Any]:
    with (
        printing_its_port("benchmarks.naive_server", empty_url) as (address, _),
        grpc.insecure_channel(address) as channel,
    ):
        yield MeteringServiceStub(channel)


@pytest.mark.slow
def test_the_naive_server_is_correct_for_what_it_does(naive: Any) -> None:
    grant = pb.GrantOnceRequest(account="alice", amount_micros=1000, idempotency_key="order-1")
    assert naive.GrantOnce(grant).balance.available_micros == 1000
    assert naive.GrantOnce(grant).balance.available_micros == 1000

    debit = pb.DebitRequest(account="alice", amount_micros=5, request_id="once")
    assert naive.Debit(debit).status == pb.DEBIT_STATUS_DEBITED
    assert naive.Debit(debit).status == pb.DEBIT_STATUS_REPLAYED

    hold = pb.ReserveRequest(account="alice", reservation_id="job", amount_micros=900)
    assert naive.Reserve(hold).balance.available_micros == 95
    assert naive.Reserve(hold).replayed
    settle = pb.SettleRequest(account="alice", reservation_id="job", amount_micros=600)
    assert naive.Settle(settle).released_micros == 300
    assert naive.Settle(settle).replayed
    assert naive.Settle(settle).balance.available_micros == 395

    with pytest.raises(grpc.RpcError) as refused:
        naive.Debit(pb.DebitRequest(account="alice", amount_micros=396))
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION

    start = threading.Barrier(8)

    def spend(_: int) -> bool:
        start.wait()
        try:
            naive.Debit(pb.DebitRequest(account="alice", amount_micros=100))
        except grpc.RpcError:
            return False
        return True

    with ThreadPoolExecutor(8) as callers:
        assert sum(callers.map(spend, range(8))) == 3
