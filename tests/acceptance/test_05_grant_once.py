"""Row 5: a grant with a key credits once, also under an older key; cash is a note beside it."""

from __future__ import annotations

import pytest

import meterhold
from meterhold import Cash


async def test_the_same_payment_credits_once(client: meterhold.AsyncClient) -> None:
    first, again = [
        await client.grant_once("alice", 500, idempotency_key="payment-1") for _ in range(2)
    ]
    assert (first.replayed, again.replayed) == (False, True)
    assert (again.entry, again.balance) == (first.entry, first.balance)
    assert (await client.balance("alice")).granted_micros == 500


async def test_a_key_may_be_renamed_while_payments_are_under_way(
    client: meterhold.AsyncClient,
) -> None:
    """Granted under the old name before a deploy, retried under the new one after it."""
    first = await client.grant_once("alice", 500, idempotency_key="stripe:1")
    renamed = await client.grant_once(
        "alice", 500, idempotency_key="payment-1", legacy_keys=["stripe:1"]
    )
    assert (renamed.replayed, renamed.entry) == (True, first.entry)
    assert (await client.grant_once("alice", 500, idempotency_key="payment-1")).replayed
    assert await client.get_entry("alice", grant_key="payment-1") == first.entry
    assert (await client.balance("alice")).granted_micros == 500


async def test_cash_annotates_and_never_counts(client: meterhold.AsyncClient) -> None:
    cash = Cash(currency_code="EUR", minor_units=1999)
    await client.grant_once("alice", 500, idempotency_key="payment-1", cash=cash)
    await client.grant_once("alice", 20, idempotency_key="gift-1")
    balance = await client.balance("alice", include_lots=True)
    assert [lot.cash for lot in balance.lots] == [cash, None]
    assert balance.available_micros == 520


@pytest.mark.parametrize("amount", [0, -1, 10**15 + 1])
async def test_an_amount_that_is_not_positive_or_too_large_is_refused(
    client: meterhold.AsyncClient, amount: int
) -> None:
    with pytest.raises(meterhold.InvalidRequest) as refused:
        await client.grant_once("alice", amount, idempotency_key="payment-1")
    assert [field for field, _ in refused.value.field_violations] == ["amount_micros"]
    assert (await client.get_account("alice")).create_time is None


@pytest.mark.parametrize("amount", [1.5, float("nan"), float("inf"), "5", True])
async def test_what_is_not_an_integer_is_a_type_error(
    client: meterhold.AsyncClient, amount: int
) -> None:
    with pytest.raises(TypeError):
        await client.grant_once("alice", amount, idempotency_key="payment-1")
