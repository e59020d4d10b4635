"""Row 1: the calls of a job over gRPC on a PostgreSQL ledger in micros, and a sweeper behind them.

The server is the command that users start, as a process of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest

import meterhold
from meterhold import DebitStatus, EntryKind
from support.service import ServerProcess
from support.waiting import until

pytestmark = pytest.mark.slow

CREDIT = 1_000_000
"""Micros."""


@pytest.fixture
def own_client(database_url: str) -> Iterator[meterhold.Client]:
    with ServerProcess(database_url) as server, meterhold.Client(server.address) as connected:
        yield connected


def test_a_job_is_held_for_charged_and_the_rest_is_free_again(own_client: meterhold.Client) -> None:
    client = own_client
    client.grant_once("alice", 500 * CREDIT, idempotency_key="invoice-17")

    held = client.reserve("alice", 75 * CREDIT, reservation_id="job-7")
    assert held.balance.available_micros == 425 * CREDIT
    settled = client.settle("alice", 60 * CREDIT, reservation_id="job-7")
    assert (settled.charged_micros, settled.released_micros) == (60 * CREDIT, 15 * CREDIT)

    client.reserve("alice", 75 * CREDIT, reservation_id="job-8")
    assert client.release("alice", reservation_id="job-8").changed

    assert client.debit("alice", 1).entry.amount_micros == -1
    once = [client.debit_once("alice", 9, idempotency_key="call-1") for _ in range(2)]
    assert [done.status for done in once] == [DebitStatus.DEBITED, DebitStatus.REPLAYED]

    balance = client.balance("alice")
    assert (balance.available_micros, balance.held_micros) == (440 * CREDIT - 10, 0)
    assert [(entry.kind, entry.amount_micros) for entry in client.list_entries("alice")] == [
        (EntryKind.DEBIT, -9),
        (EntryKind.DEBIT, -1),
        (EntryKind.CAPTURE, -60 * CREDIT),
        (EntryKind.GRANT, 500 * CREDIT),
    ]


async def test_the_sweeper_frees_holds_that_nobody_ends(own_client: meterhold.Client) -> None:
    """Stats count holds as they are stored, due or not: when they are gone, it was the sweeper."""
    client = own_client
    client.grant_once("alice", 100, idempotency_key="start")
    client.reserve("alice", 75, reservation_id="dead", ttl=timedelta(milliseconds=1))
    await until(lambda: client.get_stats().held_micros == 0)
    assert client.balance("alice").available_micros == 100
