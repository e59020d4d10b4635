"""Row 4: a debit with a key is debited, replayed or insufficient; a replay has the old amounts."""

from __future__ import annotations

import asyncio

import pytest

import meterhold
from meterhold import DebitStatus


async def test_debited_once_then_replayed_with_the_original_amounts(
    client: meterhold.AsyncClient,
) -> None:
    await client.grant_once("alice", 500, idempotency_key="start")
    first = await client.debit_once("alice", 120, idempotency_key="call-1")
    await client.debit("alice", 380)

    again = await client.debit_once("alice", 120, idempotency_key="call-1")
    assert (first.status, again.status) == (DebitStatus.DEBITED, DebitStatus.REPLAYED)
    assert (again.entry, again.balance) == (first.entry, first.balance)
    assert again.balance.available_micros == 380, "not today's, which is 0"
    assert (await client.balance("alice")).spent_micros == 500


async def test_insufficient_is_not_remembered(client: meterhold.AsyncClient) -> None:
    await client.grant_once("alice", 100, idempotency_key="start")
    with pytest.raises(meterhold.InsufficientCredits) as refused:
        await client.debit_once("alice", 120, idempotency_key="call-1")
    assert (refused.value.available_micros, refused.value.required_micros) == (100, 120)
    with pytest.raises(meterhold.EntryNotFound):
        await client.get_entry("alice", debit_key="call-1")

    await client.grant_once("alice", 20, idempotency_key="top-up")
    done = await client.debit_once("alice", 120, idempotency_key="call-1")
    assert done.status is DebitStatus.DEBITED


async def test_retries_at_once_charge_once(client: meterhold.AsyncClient) -> None:
    await client.grant_once("alice", 500, idempotency_key="start")
    answers = await asyncio.gather(
        *(client.debit_once("alice", 120, idempotency_key="call-1") for _ in range(20))
    )
    assert sorted(done.status for done in answers) == ["DEBITED", *["REPLAYED"] * 19]
    assert (await client.balance("alice")).spent_micros == 120


@pytest.mark.parametrize(
    ("account", "amount", "field", "original"),
    [("alice", 121, "amount_micros", "120"), ("bob", 120, "account", "alice")],
)
async def test_a_key_never_charges_a_second_time(
    client: meterhold.AsyncClient, account: str, amount: int, field: str, original: str
) -> None:
    for name in ("alice", "bob"):
        await client.grant_once(name, 500, idempotency_key=name)
    await client.debit_once("alice", 120, idempotency_key="call-1")
    with pytest.raises(meterhold.IdempotencyMismatch) as refused:
        await client.debit_once(account, amount, idempotency_key="call-1")
    assert (refused.value.field, refused.value.original) == (field, original)
    balances = [await client.balance(name) for name in ("alice", "bob")]
    assert [balance.available_micros for balance in balances] == [380, 500]
