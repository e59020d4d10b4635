"""Row 7: a log of what happened, one row of it, and what all accounts together have and had."""

from __future__ import annotations

import pytest

import meterhold
from meterhold import EntryKind, Overage


async def test_the_log_is_newest_first_in_pages(client: meterhold.AsyncClient) -> None:
    await client.grant_once("alice", 500, idempotency_key="start", reason="welcome")
    for micros in range(1, 8):
        await client.debit("alice", micros, request_id=f"call-{micros}")

    log = [entry async for entry in client.list_entries("alice", page_size=3)]
    assert [entry.amount_micros for entry in log] == [-7, -6, -5, -4, -3, -2, -1, 500]
    assert (log[0].key, log[0].remaining_after_micros) == ("call-7", 500 - 28)
    assert (log[-1].key, log[-1].reason) == ("start", "welcome")
    times = [entry.create_time for entry in log]
    assert times == sorted(times, reverse=True)


async def test_one_row_is_found_by_its_place_and_by_its_key(client: meterhold.AsyncClient) -> None:
    granted = await client.grant_once("alice", 500, idempotency_key="start")
    debited = await client.debit_once("alice", 120, idempotency_key="call")
    refunded = await client.refund_charge("alice", 20, idempotency_key="back", entry_seq=2)

    assert await client.get_entry("alice", grant_key="start") == granted.entry
    assert await client.get_entry("alice", debit_key="call") == debited.entry
    assert await client.get_entry("alice", refund_key="back") == refunded.entry
    row = await client.get_entry("alice", seq=2)
    assert (row.kind, row.amount_micros, row.key) == (EntryKind.DEBIT, -120, "call")
    with pytest.raises(meterhold.EntryNotFound):
        await client.get_entry("alice", seq=4)
    with pytest.raises(meterhold.EntryNotFound):
        await client.get_entry("bob", debit_key="call")


async def test_stats_say_what_was_issued_spent_and_is_outstanding(
    client: meterhold.AsyncClient,
) -> None:
    await client.grant_once("alice", 500, idempotency_key="alice")
    await client.grant_once("bob", 300, idempotency_key="bob")
    await client.grant_once("bob", 9, idempotency_key="other", unit="minutes")
    await client.reserve("alice", 200, reservation_id="job")
    await client.debit_once("alice", 120, idempotency_key="call")
    await client.refund_charge("alice", 20, idempotency_key="back", entry_seq=2)
    await client.debit("bob", 310, overage=Overage.OVERDRAFT)

    stats = await client.get_stats()
    assert stats.account_count == 2
    assert (stats.granted_micros, stats.spent_micros, stats.refunded_micros) == (800, 430, 20)
    assert stats.outstanding_micros == 800 + 20 - 430
    assert (stats.held_micros, stats.debt_micros) == (200, 10)
    assert (await client.get_stats(unit="minutes")).granted_micros == 9
