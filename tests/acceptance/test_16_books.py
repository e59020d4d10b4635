"""Row 16: a balance that costs the same whatever its history, a ledger by time, and sound books.

How long a balance takes is measured by the benchmarks.
"""

from __future__ import annotations

import asyncio
import os
import sys

import meterhold
from acceptance.watching import database_time
from meterhold import Label


async def _a_history(client: meterhold.AsyncClient) -> None:
    await client.grant_once("alice", 1000, idempotency_key="order")
    await client.debit_once("alice", 100, idempotency_key="call")
    await client.refund_charge("alice", 40, idempotency_key="back", entry_seq=2)
    await client.reserve("alice", 300, reservation_id="run")
    await client.settle("alice", 50, reservation_id="run", keep_open=True, capture_id="turn-1")
    await client.revoke_grant("order", fraction_ppm=250_000)


async def test_the_answer_does_not_grow_with_the_history(client: meterhold.AsyncClient) -> None:
    await client.grant_once("alice", 1000, idempotency_key="order")
    await asyncio.gather(*(client.debit("alice", 1) for _ in range(300)))
    balance = await client.balance("alice", include_lots=True)
    assert (balance.ledger_seq, balance.available_micros) == (301, 700)
    assert len(balance.lots) == 1


async def test_entries_of_a_range_of_time(client: meterhold.AsyncClient) -> None:
    """From its begin on, and before its end."""
    entries = [(await client.grant_once("alice", 1000, idempotency_key="order")).entry]
    for micros in (1, 2, 3):
        entries.append((await client.debit("alice", micros)).entry)
    _, first, second, third = [entry.create_time for entry in entries if entry]
    found = [
        entry.amount_micros
        async for entry in client.list_entries("alice", start_time=first, end_time=third)
    ]
    assert found == [-2, -1]
    after = client.list_entries("alice", start_time=await database_time(client))
    assert [entry async for entry in after] == []
    report = await client.spend_report("alice", start_time=second)
    assert (report.total.charged_micros, report.total.charge_count) == (5, 2)


async def test_metadata_is_kept_as_it_was_sent(client: meterhold.AsyncClient) -> None:
    metadata = {"prompt": {"version": 3, "tags": ["a", None, True]}, "größe": 1.5}
    await client.grant_once("alice", 1000, idempotency_key="order", metadata=metadata)
    await client.debit("alice", 1, metadata=metadata)
    assert [e.metadata async for e in client.list_entries("alice")] == [metadata, metadata]


async def test_several_apps_spend_from_one_pool(client: meterhold.AsyncClient) -> None:
    await client.grant_once("alice", 1000, idempotency_key="order")
    await client.debit("alice", 30, labels={"app": "chat"})
    await client.debit("alice", 500, labels={"app": "video"})
    await client.reserve("alice", 100, reservation_id="run", labels={"app": "chat"})
    await client.settle("alice", 70, reservation_id="run", labels={"app": "chat"})

    report = await client.spend_report("alice", group_by=[Label("app")])
    assert [(row.values, row.charged_micros) for row in report.rows] == [
        (("video",), 500),
        (("chat",), 100),
    ]
    chat = [e.amount_micros async for e in client.list_entries("alice", labels={"app": "chat"})]
    assert chat == [-70, -30]
    assert (await client.balance("alice")).available_micros == 400


async def test_the_books_of_an_account_are_verified(client: meterhold.AsyncClient) -> None:
    await _a_history(client)
    verified = await client.verify_balance("alice")
    assert (verified.differences, verified.entry_count) == ((), 5)
    assert verified.balance == await client.balance("alice")


async def test_a_rebuild_leaves_sound_books_as_they_are(client: meterhold.AsyncClient) -> None:
    await _a_history(client)
    before = await client.balance("alice", include_lots=True)
    rebuilt = await client.rebuild_balance("alice")
    assert (rebuilt.repaired, rebuilt.remaining, rebuilt.corrections) == ((), (), ())
    assert await client.balance("alice", include_lots=True) == before


async def test_the_command_verifies_all_accounts(
    client: meterhold.AsyncClient, database_url: str
) -> None:
    await _a_history(client)
    verify = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "meterhold_server", "verify"),
        env=os.environ | {"METERHOLD_DATABASE_URL": database_url},
        stdout=asyncio.subprocess.PIPE,
    )
    printed, _ = await verify.communicate()
    assert verify.returncode == 0
    assert printed.decode() == "1 accounts, 5 entries: every invariant holds\n"
