"""Row 10: a purchase counts once for its order, and is taken back by cumulative refunds.

A refund may come before its purchase, and only that of the very purchase is taken.
"""

from __future__ import annotations

from typing import Any

import pytest

import meterhold
from acceptance.watching import amounts, lots_left
from meterhold import Cash, EntryKind, ExpectedSource, Source

SOURCE = Source(provider="lemon", order_id="1001", store_id="shop-1", variant_id="large")
CASH = Cash(currency_code="EUR", minor_units=999)
HALF, QUARTER = 500_000, 250_000
"""Millionths."""


async def _buy(
    client: meterhold.AsyncClient, account: str = "alice", micros: int = 1000
) -> meterhold.GrantResult:
    return await client.grant_once(
        account, micros, idempotency_key="order-1001", source=SOURCE, cash=CASH
    )


@pytest.mark.parametrize(
    ("account", "micros", "field", "original"),
    [("bob", 1000, "account", "alice"), ("alice", 2000, "amount_micros", "1000")],
)
async def test_an_order_counts_once_whatever_a_retry_says(
    client: meterhold.AsyncClient, account: str, micros: int, field: str, original: str
) -> None:
    assert not (await _buy(client)).replayed
    assert (await _buy(client)).replayed
    with pytest.raises(meterhold.IdempotencyMismatch) as refused:
        await _buy(client, account, micros)
    assert (refused.value.field, refused.value.original) == (field, original)
    stats = await client.get_stats()
    assert (stats.account_count, stats.granted_micros) == (1, 1000)


async def test_partial_refunds_are_cumulative(client: meterhold.AsyncClient) -> None:
    """A webhook that comes twice, or late, takes nothing more. It need not know the account."""
    await _buy(client)
    taken = [
        (await client.revoke_grant("order-1001", fraction_ppm=fraction)).revoked_micros
        for fraction in (QUARTER, QUARTER, HALF, QUARTER, None, None)
    ]
    assert taken == [250, 0, 250, 0, 500, 0]
    balance = await client.balance("alice")
    assert (balance.revoked_micros, balance.available_micros) == (1000, 0)
    assert (await amounts(client))[1:] == [
        (EntryKind.REVOCATION, -250),
        (EntryKind.REVOCATION, -250),
        (EntryKind.REVOCATION, -500),
    ]


@pytest.mark.parametrize(("fraction", "taken"), [(333_333, 1), (500_000, 2), (166_666, 0)])
async def test_a_fraction_is_rounded_half_up(
    client: meterhold.AsyncClient, fraction: int, taken: int
) -> None:
    await _buy(client, micros=3)
    revoked = await client.revoke_grant("order-1001", fraction_ppm=fraction)
    assert revoked.revoked_micros == taken


async def test_what_was_spent_already_becomes_debt(client: meterhold.AsyncClient) -> None:
    await _buy(client)
    await client.grant_once("alice", 50, idempotency_key="gift")
    await client.debit("alice", 800)
    revoked = await client.revoke_grant("order-1001")
    assert (revoked.account, revoked.revoked_micros) == ("alice", 1000)
    assert (revoked.balance.available_micros, revoked.balance.debt_micros) == (-750, 750)
    with pytest.raises(meterhold.InsufficientCredits):
        await client.reserve("alice", 1, reservation_id="next-run")
    paid = await client.grant_once("alice", 900, idempotency_key="order-1002")
    assert (paid.debt_repaid_micros, paid.balance.available_micros) == (750, 150)


async def test_the_lots_of_other_purchases_are_touched_last(client: meterhold.AsyncClient) -> None:
    await client.grant_once("alice", 500, idempotency_key="other", priority=0)
    await _buy(client)
    await client.revoke_grant("order-1001", amount_micros=400)
    assert await lots_left(client) == [("other", 500, 0), ("order-1001", 600, 0)]


class TestARefundBeforeItsPurchase:
    async def test_of_all_of_it_blocks_the_purchase(self, client: meterhold.AsyncClient) -> None:
        revoked = await client.revoke_grant("order-1001", allow_tombstone=True)
        assert (revoked.tombstone, revoked.revoked_micros) == (True, 0)
        for _ in range(2):
            with pytest.raises(meterhold.GrantRevoked) as refused:
                await _buy(client)
        assert refused.value.grant_key == "order-1001"
        assert (await client.balance("alice")).ledger_seq == 0

    async def test_of_a_part_is_taken_when_the_purchase_comes(
        self, client: meterhold.AsyncClient
    ) -> None:
        for fraction in (QUARTER, HALF, QUARTER):
            await client.revoke_grant("order-1001", fraction_ppm=fraction, allow_tombstone=True)
        bought = await _buy(client)
        assert (bought.revoked_micros, bought.balance.available_micros) == (500, 500)
        again = await client.revoke_grant("order-1001", fraction_ppm=HALF, allow_tombstone=True)
        assert (again.revoked_micros, again.grant_revoked_micros) == (0, 500)

    async def test_is_refused_unless_it_is_allowed(self, client: meterhold.AsyncClient) -> None:
        with pytest.raises(meterhold.GrantNotFound):
            await client.revoke_grant("order-1001")
        assert (await _buy(client)).balance.available_micros == 1000

    async def test_of_another_purchase_is_not_taken_for_one_of_this(
        self, client: meterhold.AsyncClient
    ) -> None:
        elsewhere = ExpectedSource(store_id="shop-2")
        await client.revoke_grant("order-1001", allow_tombstone=True, expected_source=elsewhere)
        with pytest.raises(meterhold.SourceMismatch) as refused:
            await _buy(client)
        assert (refused.value.field, refused.value.original) == ("source.store_id", "shop-2")


@pytest.mark.parametrize(
    ("expected", "field", "original"),
    [
        ({"provider": "stripe"}, "provider", "lemon"),
        ({"store_id": "shop-2"}, "store_id", "shop-1"),
        ({"test_mode": True}, "test_mode", "false"),
        ({"currency_code": "USD"}, "currency_code", "EUR"),
    ],
)
async def test_a_refund_of_another_purchase_takes_nothing(
    client: meterhold.AsyncClient, expected: dict[str, Any], field: str, original: str
) -> None:
    await _buy(client)
    with pytest.raises(meterhold.SourceMismatch) as refused:
        await client.revoke_grant("order-1001", expected_source=ExpectedSource(**expected))
    assert (refused.value.field, refused.value.original) == (f"expected_source.{field}", original)
    with pytest.raises(meterhold.SourceMismatch):
        await client.revoke_grant("order-1001", account="bob")
    assert (await client.balance("alice")).available_micros == 1000

    same = ExpectedSource(provider="lemon", store_id="shop-1", test_mode=False, currency_code="EUR")
    revoked = await client.revoke_grant("order-1001", account="alice", expected_source=same)
    assert revoked.revoked_micros == 1000


async def test_a_dispute_that_was_won_gives_back_what_it_took(
    client: meterhold.AsyncClient,
) -> None:
    await _buy(client)
    await client.debit("alice", 900)
    await client.revoke_grant("order-1001", fraction_ppm=QUARTER)
    disputed = await client.revoke_grant("order-1001", revocation_id="dispute-1")
    assert (disputed.revoked_micros, disputed.balance.available_micros) == (750, -900)

    won = [await client.reinstate_grant("order-1001", revocation_id="dispute-1") for _ in range(2)]
    assert [result.reinstated_micros for result in won] == [750, 0]
    assert won[0].grant_revoked_micros == 250, "the refund stays"
    assert (await client.balance("alice")).available_micros == -150
    assert (await amounts(client))[-1] == (EntryKind.REINSTATEMENT, 750)
