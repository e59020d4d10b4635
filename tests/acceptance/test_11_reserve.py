"""Row 11: a hold with a time to live and a floor, once per run; expired ones make room."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

import meterhold
from acceptance.watching import amounts, database_time
from meterhold import EntryKind, ReservationState
from support.service import service
from support.waiting import until


async def test_a_hold_has_a_time_to_live(client: meterhold.AsyncClient) -> None:
    await client.grant_once("alice", 500, idempotency_key="start")
    before = await database_time(client)
    held = await client.reserve("alice", 75, reservation_id="run", ttl=timedelta(minutes=5))
    lifetime = held.expire_time - timedelta(minutes=5)
    assert before <= lifetime <= await database_time(client)
    assert (held.balance.available_micros, held.balance.held_micros) == (425, 75)
    assert await amounts(client) == [(EntryKind.GRANT, 500)], "a hold is no entry"


@pytest.mark.parametrize(("floor", "admitted"), [(0, True), (500, True), (501, False)])
async def test_the_floor_is_what_must_be_there_before(
    client: meterhold.AsyncClient, floor: int, admitted: bool
) -> None:
    await client.grant_once("alice", 500, idempotency_key="start")
    reserving = client.reserve("alice", 75, reservation_id="run", min_available_micros=floor)
    if admitted:
        assert (await reserving).held_micros == 75
    else:
        with pytest.raises(meterhold.InsufficientCredits) as refused:
            await reserving
        assert (refused.value.required_micros, refused.value.reservable_micros) == (501, 500)


async def test_a_run_is_held_for_once(client: meterhold.AsyncClient) -> None:
    await client.grant_once("alice", 500, idempotency_key="start")
    answers = await asyncio.gather(
        *(client.reserve("alice", 75, reservation_id="run") for _ in range(10))
    )
    assert sorted(held.created for held in answers) == [False] * 9 + [True]
    assert {held.held_micros for held in answers} == {75}
    assert (await client.balance("alice")).held_micros == 75
    with pytest.raises(meterhold.IdempotencyMismatch):
        await client.reserve("alice", 76, reservation_id="run")


async def test_of_20_holds_of_75_on_500_exactly_6_are_admitted(
    client: meterhold.AsyncClient,
) -> None:
    await client.grant_once("alice", 500, idempotency_key="start")
    answers = await asyncio.gather(
        *(client.reserve("alice", 75, reservation_id=f"run-{number}") for number in range(20)),
        return_exceptions=True,
    )
    admitted = [answer for answer in answers if isinstance(answer, meterhold.ReserveResult)]
    refused = [answer for answer in answers if isinstance(answer, meterhold.InsufficientCredits)]
    assert (len(admitted), len(refused)) == (6, 14)
    assert (await client.balance("alice")).available_micros == 50


async def test_an_expired_hold_is_freed_when_the_next_one_asks(database_url: str) -> None:
    """Nobody sweeps here, and nobody reads the account."""
    async with (
        service(database_url, sweep=False) as address,
        meterhold.AsyncClient(address) as client,
    ):
        await client.grant_once("alice", 100, idempotency_key="start")
        dead = await client.reserve("alice", 100, reservation_id="dead", ttl=timedelta(seconds=1))

        async def admitted() -> bool:
            try:
                return (await client.reserve("alice", 100, reservation_id="next")).created
            except meterhold.InsufficientCredits:
                return False

        assert not await admitted()
        await until(admitted)
        assert await database_time(client) >= dead.expire_time, "never early"
        found = await client.get_reservation("alice", reservation_id="dead")
        assert (found.state, found.released_micros) == (ReservationState.EXPIRED, 100)
