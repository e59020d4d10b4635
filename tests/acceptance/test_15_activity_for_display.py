"""Row 15: an activity list that the account's owner may see: kinds, signed amounts, plain words."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import meterhold
from acceptance.watching import until_balance
from meterhold import Allowance, AllowancePeriod, OnExpiry

SECRET = "4711"
"""In every id, key, label, reason and metadata of the caller."""
LABELS = {f"key-{SECRET}": f"sk-{SECRET}"}
NOTES: dict[str, Any] = {"labels": LABELS, "metadata": {f"trace-{SECRET}": SECRET}}


async def _a_long_history(client: meterhold.AsyncClient) -> None:
    order, run = f"order-{SECRET}", f"run-{SECRET}"
    await client.grant_once(
        "alice", 1000, idempotency_key=order, reason=f"invoice {SECRET}", **NOTES
    )
    await client.debit_once("alice", 100, idempotency_key=f"call-{SECRET}", **NOTES)
    await client.refund_charge(
        "alice", 40, idempotency_key=f"back-{SECRET}", entry_seq=2, reason=SECRET, **NOTES
    )
    await client.reserve("alice", 300, reservation_id=run, **NOTES)
    await client.settle("alice", 200, reservation_id=run, **NOTES)
    await client.revoke_grant(order, amount_micros=150, reason=f"dispute {SECRET}", **NOTES)
    await client.reinstate_grant(order, reason=f"won {SECRET}", **NOTES)
    daily = Allowance(amount_micros=60, period=AllowancePeriod.DAILY)
    await client.configure_account("alice", allowance=daily)
    await client.reserve(
        "alice",
        10,
        reservation_id=f"dead-{SECRET}",
        ttl=timedelta(milliseconds=1),
        on_expiry=OnExpiry.CHARGE,
        **NOTES,
    )
    await until_balance(client, "alice", held_micros=0)


async def test_a_page_for_the_owner(client: meterhold.AsyncClient) -> None:
    await _a_long_history(client)
    page = [
        (entry.description, entry.amount_micros) async for entry in client.list_entries("alice")
    ]
    assert page == [
        ("Reserved credits charged", -10),
        ("Allowance renewed", 60),
        ("Purchase restored", 150),
        ("Purchase refunded", -150),
        ("Usage", -200),
        ("Refund", 40),
        ("Usage", -100),
        ("Credits added", 1000),
    ]


async def test_nothing_of_the_caller_s_is_in_it(client: meterhold.AsyncClient) -> None:
    await _a_long_history(client)
    entries = [entry async for entry in client.list_entries("alice")]
    assert any(SECRET in entry.key for entry in entries)
    assert not [entry for entry in entries if SECRET in entry.description]


async def test_what_cost_nothing_leaves_no_line(client: meterhold.AsyncClient) -> None:
    await client.grant_once("alice", 1000, idempotency_key="start")
    await client.reserve("alice", 300, reservation_id="free")
    await client.settle("alice", 0, reservation_id="free")
    assert [entry.description async for entry in client.list_entries("alice")] == ["Credits added"]
