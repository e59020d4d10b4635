"""Row 9: a grant once per account and reason, which may expire."""

from __future__ import annotations

from datetime import timedelta

import meterhold
from acceptance.watching import amounts, database_time, lots_left, until_balance
from meterhold import EntryKind, LotCategory


async def _give(client: meterhold.AsyncClient, account: str, reason: str) -> bool:
    """Give 50 for a reason; False if the account has had them."""
    key = f"{reason}:{account}"
    granted = await client.grant_once(account, 50, idempotency_key=key, reason=reason)
    return not granted.replayed


async def test_each_account_gets_it_once_for_each_reason(client: meterhold.AsyncClient) -> None:
    assert await _give(client, "alice", "signup")
    assert not await _give(client, "alice", "signup")
    assert await _give(client, "alice", "referral")
    assert await _give(client, "bob", "signup")

    reasons = [entry.reason async for entry in client.list_entries("alice")]
    assert reasons == ["referral", "signup"]
    balances = [await client.balance(account) for account in ("alice", "bob")]
    assert [balance.granted_micros for balance in balances] == [100, 50]


async def test_what_is_left_at_its_time_expires_and_what_was_spent_stays_spent(
    client: meterhold.AsyncClient,
) -> None:
    soon = await database_time(client) + timedelta(seconds=1)
    await client.grant_once("alice", 1000, idempotency_key="order")
    await client.grant_once(
        "alice",
        50,
        idempotency_key="trial",
        category=LotCategory.PROMOTIONAL,
        expire_time=soon,
    )
    await client.debit("alice", 20)
    assert await lots_left(client) == [("trial", 30, 0), ("order", 1000, 0)], "soonest first"

    await until_balance(client, "alice", available_micros=1000)
    assert (await client.balance("alice")).expired_micros == 30
    assert (await amounts(client))[-1] == (EntryKind.EXPIRY, -30)
    assert await database_time(client) >= soon, "never early"
