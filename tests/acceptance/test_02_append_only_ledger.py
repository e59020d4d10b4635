"""Row 2: an append-only ledger whose entries sum up to the balance, with one writer of truth."""

from __future__ import annotations

import asyncio

import meterhold
from meterhold import Overage
from support.service import service


async def _entries(client: meterhold.AsyncClient) -> list[meterhold.Entry]:
    return [entry async for entry in client.list_entries("alice", oldest_first=True)]


async def test_the_balance_is_the_sum_of_the_entries(client: meterhold.AsyncClient) -> None:
    await client.grant_once("alice", 500, idempotency_key="order")
    await client.debit_once("alice", 120, idempotency_key="call")
    await client.refund_charge("alice", 20, idempotency_key="refund", entry_seq=2)
    await client.reserve("alice", 200, reservation_id="job")
    await client.settle("alice", 150, reservation_id="job")
    await client.revoke_grant("order", amount_micros=400)

    total = 0
    for place, entry in enumerate(await _entries(client), start=1):
        total += entry.amount_micros
        assert (entry.seq, entry.remaining_after_micros) == (place, total)
    balance = await client.balance("alice")
    assert (balance.ledger_seq, balance.remaining_micros) == (place, total) == (5, -150)


async def test_an_entry_that_was_read_once_never_changes(client: meterhold.AsyncClient) -> None:
    await client.grant_once("alice", 500, idempotency_key="order")
    await client.debit("alice", 120, labels={"run": "7"})
    before = await _entries(client)

    await client.refund_charge("alice", idempotency_key="refund", entry_seq=2)
    await client.revoke_grant("order")
    await client.debit("alice", 1, overage=Overage.OVERDRAFT)
    assert (await _entries(client))[:2] == before


async def test_servers_beside_each_other_write_one_ledger(
    client: meterhold.AsyncClient, database_url: str
) -> None:
    await client.grant_once("alice", 500, idempotency_key="order")
    async with service(database_url) as address, meterhold.AsyncClient(address) as other:
        await asyncio.gather(*(writer.debit("alice", 1) for writer in [client, other] * 50))

    entries = await _entries(client)
    assert [entry.seq for entry in entries] == list(range(1, 102))
    assert [entry.remaining_after_micros for entry in entries] == list(range(500, 399, -1))
    assert (await client.balance("alice")).remaining_micros == 400
