"""AdminService on a real server: settings that last, and pages of accounts."""

from __future__ import annotations

from datetime import timedelta

import psycopg
import pytest

import meterhold
from meterhold_server.storage import pages


async def test_what_is_set_lasts_and_rules(client: meterhold.AsyncClient) -> None:
    unknown = await client.get_account("alice")
    assert (unknown.create_time, unknown.balance.ledger_seq, unknown.frozen) == (None, 0, False)

    made = await client.configure_account("alice", credit_limit_micros=50)
    assert (made.balance.credit_limit_micros, made.holds_use_credit) == (50, False)
    assert await client.get_account("alice") == made
    assert made.create_time is not None

    await client.debit("alice", 30)
    with pytest.raises(meterhold.InsufficientCredits):
        await client.reserve("alice", 5, reservation_id="job")
    await client.configure_account("alice", holds_use_credit=True)
    await client.reserve("alice", 5, reservation_id="job")

    await client.configure_account("alice", frozen=True)
    with pytest.raises(meterhold.AccountFrozen) as refused:
        await client.debit("alice", 1)
    assert refused.value.applied == "NO"
    await client.settle("alice", 5, reservation_id="job")
    found = await client.get_account("alice")
    assert (found.frozen, found.holds_use_credit, found.balance.debt_micros) == (True, True, 35)


async def test_accounts_are_listed_by_name_and_unit_in_pages(
    client: meterhold.AsyncClient,
) -> None:
    names = ["bob", "alice", "al", "alicé", "b%b", "b_b", "zoë"]
    for name in names:
        await client.configure_account(name)
    await client.configure_account("alice", unit="minutes")
    everything = [(a.account, a.unit) async for a in client.list_accounts(page_size=2)]
    expected = sorted([*((name, "credits") for name in names), ("alice", "minutes")])
    assert everything == expected

    for prefix in ("al", "alice", "b", "b%", "b_", "x"):
        found = {a.account async for a in client.list_accounts(prefix, page_size=1)}
        assert found == {name for name in names if name.startswith(prefix)}, prefix


async def test_what_is_due_has_expired_in_a_list(
    client: meterhold.AsyncClient, database_url: str
) -> None:
    """Swept or not. Here nobody sweeps: the account is made due behind the server's back."""
    await client.grant_once("alice", 100, idempotency_key="order")
    await client.reserve("alice", 60, reservation_id="job", ttl=timedelta(minutes=5))
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE reservation SET expire_time = create_time")
        connection.execute("UPDATE account SET next_expire_time = create_time")
    [found] = [account async for account in client.list_accounts()]
    assert (found.balance.held_micros, found.balance.available_micros) == (0, 100)


async def test_plan_of_a_page_is_a_range_of_the_index(
    client: meterhold.AsyncClient, database_url: str
) -> None:
    await client.configure_account("alice")
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "INSERT INTO account SELECT md5(n::text)::uuid, 'default', 'user-' || n, 'credits',"
            " 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, false, NULL, now(), false"
            " FROM generate_series(1, 5000) n"
        )
        connection.execute("ANALYZE account")
        wanted = {
            "namespace": "default",
            "account_prefix": "user-4",
            "account_prefix_end": "user-5",
            "account": "user-42",
            "unit": "credits",
            "limit": 50,
        }
        for query in (pages._ACCOUNTS, pages._ACCOUNTS_AFTER):
            plan = connection.execute(f"EXPLAIN {query}", wanted).fetchall()
            assert "ix_account_by_name" in str(plan)
            assert "Sort" not in str(plan)
            assert "Filter" not in str(plan)
