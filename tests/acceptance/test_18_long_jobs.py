"""Row 18: long jobs: captures, extensions, smaller holds if need be, shortfalls, earmarked lots."""

from __future__ import annotations

from datetime import timedelta

import pytest

import meterhold
from acceptance.watching import amounts, database_time, lots_left, until_balance
from meterhold import EntryKind, Overage


@pytest.fixture
async def funded(client: meterhold.AsyncClient) -> meterhold.AsyncClient:
    await client.grant_once("alice", 500, idempotency_key="start")
    return client


async def test_captures_are_charged_as_the_work_goes_on(funded: meterhold.AsyncClient) -> None:
    await funded.reserve("alice", 200, reservation_id="job")
    for turn, micros in (("1", 30), ("2", 50), ("2", 50)):
        done = await funded.settle(
            "alice", micros, reservation_id="job", keep_open=True, capture_id=f"turn-{turn}"
        )
    assert done.replayed, "each turn is charged once"
    running = await funded.get_reservation("alice", reservation_id="job")
    assert (running.captured_micros, running.held_micros) == (80, 120)

    final = await funded.settle("alice", 20, reservation_id="job")
    assert (final.charged_micros, final.released_micros) == (20, 100)
    assert (await amounts(funded))[1:] == [
        (EntryKind.CAPTURE, -30),
        (EntryKind.CAPTURE, -50),
        (EntryKind.CAPTURE, -20),
    ]


async def test_time_and_amount_are_extended(funded: meterhold.AsyncClient) -> None:
    held = await funded.reserve("alice", 200, reservation_id="job", ttl=timedelta(minutes=1))
    for _ in range(2):
        longer = await funded.extend(
            "alice",
            reservation_id="job",
            ttl=timedelta(hours=1),
            add_amount_micros=100,
            extend_id="more",
        )
    assert longer.replayed, "it grows once"
    assert longer.held_micros == (await funded.balance("alice")).held_micros == 300
    assert longer.expire_time - held.expire_time > timedelta(minutes=58)
    with pytest.raises(meterhold.InsufficientCredits) as refused:
        await funded.extend("alice", reservation_id="job", add_amount_micros=201)
    assert refused.value.reservable_micros == 200


@pytest.mark.parametrize(("least", "held"), [(0, None), (501, None), (500, 500), (1, 500)])
async def test_a_smaller_hold_is_admitted_down_to_a_minimum(
    funded: meterhold.AsyncClient, least: int, held: int | None
) -> None:
    reserving = funded.reserve("alice", 800, reservation_id="job", min_amount_micros=least)
    if held is None:
        with pytest.raises(meterhold.InsufficientCredits):
            await reserving
    else:
        assert (await reserving).held_micros == held


async def test_a_late_settle_finds_other_holds_untouched(funded: meterhold.AsyncClient) -> None:
    await funded.reserve("alice", 200, reservation_id="job", ttl=timedelta(milliseconds=1))
    await until_balance(funded, "alice", held_micros=0, available_micros=500)
    await funded.reserve("alice", 400, reservation_id="other")
    late = await funded.settle("alice", 150, reservation_id="job")
    assert (late.late, late.charged_micros, late.shortfall_micros) == (True, 100, 50)
    assert (late.balance.available_micros, late.balance.held_micros) == (0, 400)


@pytest.mark.parametrize(
    ("overage", "charged", "shortfall", "available"),
    [(Overage.CAP, 500, 120, 0), (Overage.OVERDRAFT, 620, 0, -120)],
)
async def test_a_cost_past_the_balance_is_reported_or_owed(
    funded: meterhold.AsyncClient,
    overage: Overage,
    charged: int,
    shortfall: int,
    available: int,
) -> None:
    await funded.reserve("alice", 200, reservation_id="job")
    done = await funded.settle("alice", 620, reservation_id="job", overage=overage)
    assert (done.charged_micros, done.shortfall_micros) == (charged, shortfall)
    assert (done.from_hold_micros, done.overage_micros) == (200, charged - 200)
    assert done.balance.available_micros == available


async def test_a_cost_past_the_balance_may_be_refused(funded: meterhold.AsyncClient) -> None:
    await funded.reserve("alice", 200, reservation_id="job")
    with pytest.raises(meterhold.InsufficientCredits):
        await funded.settle("alice", 620, reservation_id="job", overage=Overage.REJECT)
    assert (await funded.balance("alice")).held_micros == 200, "the hold is kept"


async def test_a_lot_that_expires_during_the_job_stays_earmarked_for_it(
    funded: meterhold.AsyncClient,
) -> None:
    soon = await database_time(funded) + timedelta(seconds=1)
    await funded.grant_once("alice", 100, idempotency_key="trial", expire_time=soon)
    await funded.reserve("alice", 80, reservation_id="job")
    assert await lots_left(funded) == [("trial", 20, 80), ("start", 500, 0)]

    await until_balance(funded, "alice", expired_micros=20)
    assert await lots_left(funded) == [("trial", 0, 80), ("start", 500, 0)]
    done = await funded.settle("alice", 70, reservation_id="job")
    assert done.from_hold_micros == 70
    assert (await amounts(funded))[2:] == [
        (EntryKind.EXPIRY, -20),
        (EntryKind.CAPTURE, -70),
        (EntryKind.EXPIRY, -10),
    ]
    assert await lots_left(funded) == [("start", 500, 0)]
