"""Row 8: a permanent and a refillable bucket; the refillable one is spent first and refilled."""

from __future__ import annotations

from calendar import monthrange
from datetime import UTC, datetime, timedelta

import pytest

import meterhold
from acceptance.watching import amounts, database_time, lots_left, until_balance
from meterhold import Allowance, AllowancePeriod, EntryKind, SignupGrant

DAY = timedelta(days=1)


async def test_spent_first_forfeited_and_full_again(client: meterhold.AsyncClient) -> None:
    """The allowance was anchored almost a day ago, so that its next boundary is near."""
    anchor = await database_time(client) - DAY + timedelta(seconds=2)
    await client.grant_once("alice", 1000, idempotency_key="permanent")
    daily = Allowance(amount_micros=100, period=AllowancePeriod.DAILY, anchor_time=anchor)
    account = await client.configure_account("alice", allowance=daily)
    assert account.refill_time == anchor + DAY

    await client.debit("alice", 30)
    assert await lots_left(client) == [("", 70, 0), ("permanent", 1000, 0)]
    await until_balance(client, "alice", expired_micros=70)
    assert await lots_left(client) == [("", 100, 0), ("permanent", 1000, 0)]
    await client.debit("alice", 120)
    assert await lots_left(client) == [("permanent", 980, 0)]

    assert await amounts(client) == [
        (EntryKind.GRANT, 1000),
        (EntryKind.ALLOWANCE, 100),
        (EntryKind.DEBIT, -30),
        (EntryKind.EXPIRY, -70),
        (EntryKind.ALLOWANCE, 100),
        (EntryKind.DEBIT, -120),
    ]
    balance = await client.balance("alice")
    assert (balance.granted_micros, balance.spent_micros) == (1200, 150), "lifetime totals"
    assert (await client.get_account("alice")).refill_time == anchor + 2 * DAY, "it does not drift"


async def test_periods_that_were_missed_give_one_refill(client: meterhold.AsyncClient) -> None:
    anchor = await database_time(client) - 500 * DAY - timedelta(hours=1)
    daily = Allowance(amount_micros=100, period=AllowancePeriod.DAILY, anchor_time=anchor)
    account = await client.configure_account("alice", allowance=daily)
    assert await amounts(client) == [(EntryKind.ALLOWANCE, 100)]
    assert account.refill_time == anchor + 501 * DAY


@pytest.mark.parametrize("day", [1, 28, 29, 30, 31])
async def test_a_month_without_the_day_is_refilled_on_its_last_and_does_not_drift(
    client: meterhold.AsyncClient, day: int
) -> None:
    """Many a February has passed since the anchor, and the day is still that of the anchor."""
    anchor = datetime(1971, 1, day, 13, 30, tzinfo=UTC)
    monthly = Allowance(amount_micros=100, period=AllowancePeriod.MONTHLY, anchor_time=anchor)
    refill_time = (await client.configure_account("alice", allowance=monthly)).refill_time

    assert refill_time is not None
    last_day = monthrange(refill_time.year, refill_time.month)[1]
    assert (refill_time.day, refill_time.time()) == (min(day, last_day), anchor.time())
    until_refill = refill_time - await database_time(client)
    assert timedelta(0) < until_refill <= timedelta(days=31)


async def test_a_change_counts_from_the_next_period(client: meterhold.AsyncClient) -> None:
    weekly = Allowance(amount_micros=100, period=AllowancePeriod.WEEKLY)
    before = await client.configure_account("alice", allowance=weekly)
    more = Allowance(amount_micros=500, period=AllowancePeriod.WEEKLY)
    after = await client.configure_account("alice", allowance=more)
    assert (after.balance.available_micros, after.refill_time) == (100, before.refill_time)
    off = await client.configure_account("alice", allowance=Allowance.OFF)
    assert (off.balance.available_micros, off.refill_time) == (100, None)


async def test_a_new_account_starts_with_both_buckets_once(client: meterhold.AsyncClient) -> None:
    await client.configure_defaults(
        signup_grant=SignupGrant(amount_micros=50),
        allowance=Allowance(amount_micros=100, period=AllowancePeriod.MONTHLY),
    )
    assert (await client.balance("alice")).available_micros == 0, "looking creates nothing"
    for key in ("first", "second"):
        await client.grant_once("alice", 1000, idempotency_key=key)
    assert sorted(await amounts(client)) == [
        (EntryKind.ALLOWANCE, 100),
        (EntryKind.GRANT, 50),
        (EntryKind.GRANT, 1000),
        (EntryKind.GRANT, 1000),
    ]
