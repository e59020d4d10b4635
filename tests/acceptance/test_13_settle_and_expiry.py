"""Row 13: a hold is settled, released, settled late, or ended by its time, charged if asked for."""

from __future__ import annotations

from datetime import timedelta

import pytest

import meterhold
from acceptance.watching import amounts, until_balance
from meterhold import EntryKind, OnExpiry, ReservationState
from support.service import ServerProcess
from support.waiting import until

SOON = timedelta(seconds=1)
AT_ONCE = timedelta(milliseconds=1)


@pytest.fixture
async def funded(client: meterhold.AsyncClient) -> meterhold.AsyncClient:
    await client.grant_once("alice", 500, idempotency_key="start")
    return client


async def test_a_settle_charges_the_cost_and_frees_the_rest(
    funded: meterhold.AsyncClient,
) -> None:
    await funded.reserve("alice", 100, reservation_id="run")
    done, again = [await funded.settle("alice", 60, reservation_id="run") for _ in range(2)]
    assert (done.charged_micros, done.released_micros, done.late) == (60, 40, False)
    assert (again.replayed, again.balance) == (True, done.balance)
    assert done.balance.available_micros == 440


async def test_a_release_charges_nothing(funded: meterhold.AsyncClient) -> None:
    await funded.reserve("alice", 100, reservation_id="run")
    done, again = [await funded.release("alice", reservation_id="run") for _ in range(2)]
    assert (done.changed, again.changed) == (True, False)
    assert done.balance.available_micros == 500
    with pytest.raises(meterhold.ReservationReleased):
        await funded.settle("alice", 60, reservation_id="run")


async def test_a_settle_after_the_expiry_is_still_charged(funded: meterhold.AsyncClient) -> None:
    await funded.reserve("alice", 100, reservation_id="run", ttl=AT_ONCE)
    await until_balance(funded, "alice", held_micros=0, available_micros=500)
    late = await funded.settle("alice", 60, reservation_id="run")
    assert (late.late, late.charged_micros, late.from_hold_micros) == (True, 60, 0)
    found = await funded.get_reservation("alice", reservation_id="run")
    assert (found.state, found.late) == (ReservationState.SETTLED, True)
    assert late.balance.spent_micros == 60


async def test_work_that_has_started_is_charged_up_to_the_hold(
    funded: meterhold.AsyncClient,
) -> None:
    """The top-up counts what this reservation has captured already: 30 and 70 are the hold."""
    await funded.reserve("alice", 100, reservation_id="run", ttl=SOON)
    await funded.extend("alice", reservation_id="run", on_expiry=OnExpiry.CHARGE)
    await funded.settle("alice", 30, reservation_id="run", keep_open=True, capture_id="turn-1")
    await until_balance(funded, "alice", spent_micros=100)
    found = await funded.get_reservation("alice", reservation_id="run")
    assert (found.captured_micros, found.expiry_charged_micros) == (30, 70)
    assert await amounts(funded) == [
        (EntryKind.GRANT, 500),
        (EntryKind.CAPTURE, -30),
        (EntryKind.EXPIRY_CHARGE, -70),
    ]


async def test_captures_alone_are_no_reason_to_charge_the_rest(
    funded: meterhold.AsyncClient,
) -> None:
    await funded.reserve("alice", 100, reservation_id="run", ttl=SOON)
    await funded.settle("alice", 30, reservation_id="run", keep_open=True, capture_id="turn-1")
    await until_balance(funded, "alice", held_micros=0)
    assert (await funded.balance("alice")).spent_micros == 30


@pytest.mark.parametrize(
    ("cost", "entry"),
    [
        (60, [(EntryKind.REFUND, 40)]),
        (100, []),
        (120, [(EntryKind.CAPTURE, -20)]),
    ],
)
async def test_a_late_settle_trues_up_what_the_expiry_charged(
    funded: meterhold.AsyncClient, cost: int, entry: list[tuple[EntryKind, int]]
) -> None:
    await funded.reserve("alice", 100, reservation_id="run", ttl=AT_ONCE, on_expiry=OnExpiry.CHARGE)
    await until_balance(funded, "alice", spent_micros=100)
    done = await funded.settle("alice", cost, reservation_id="run")
    assert (done.late, done.charged_micros) == (True, cost)
    assert done.balance.remaining_micros == 500 - cost
    assert (await amounts(funded))[2:] == entry


@pytest.mark.slow
async def test_the_mark_to_charge_outlives_the_server(database_url: str) -> None:
    """It is durable as soon as the call has answered: the server is killed right then."""
    with ServerProcess(database_url) as server, meterhold.Client(server.address) as client:
        client.grant_once("alice", 500, idempotency_key="start")
        client.reserve("alice", 100, reservation_id="run", ttl=SOON)
        client.extend("alice", reservation_id="run", on_expiry=OnExpiry.CHARGE)
        server.kill()
        server.restart()
        await until(lambda: client.get_stats().held_micros == 0)
        assert client.balance("alice").spent_micros == 100
