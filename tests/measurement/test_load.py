"""The load does what it says and counts what was done: the books agree with its figures."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import meterhold
from benchmarks.load import WORKLOADS, Call, Orders, closed_loop, measure, open_loop

CHARGED_MICROS = {
    "debit": 5,
    "batch_debit": 5,
    "pair": 350,
    "batch_pair": 350,
    "client_pair": 350,
    "balance": 0,
}
"""By an operation, of which a pair has two."""


def orders(address: str = "", workload: str = "", **other: Any) -> Orders:
    wanted: dict[str, Any] = {
        "run": "test",
        "accounts": 3,
        "callers": 4,
        "seconds": 0.2,
        "warm_up_seconds": 0.05,
        "batch": 10,
        **other,
    }
    return Orders(address, workload, **wanted)


async def spent(client: meterhold.AsyncClient) -> int:
    balances = [await client.balance(f"bench-{number}") for number in range(3)]
    return sum(balance.spent_micros for balance in balances)


@pytest.fixture
async def funded(client: meterhold.AsyncClient) -> meterhold.AsyncClient:
    for number in range(3):
        await client.grant_once(f"bench-{number}", 10**12, idempotency_key=f"grant-{number}")
    return client


@pytest.mark.parametrize("workload", sorted(WORKLOADS))
async def test_what_it_counts_is_in_the_books(
    workload: str, address: str, funded: meterhold.AsyncClient
) -> None:
    found = await measure(orders(address, workload))
    charged = found["operations_in_all"] * CHARGED_MICROS[workload]
    assert await spent(funded) == charged
    assert 0 < found["operations"] <= found["operations_in_all"]
    assert found["per_second"] > 0
    assert 0 < found["p50_milliseconds"] <= found["p99_milliseconds"] <= found["max_milliseconds"]


async def test_an_open_loop_sends_at_its_rate(address: str, funded: meterhold.AsyncClient) -> None:
    found = await measure(orders(address, "debit", rate=200.0, seconds=0.5, seed=1))
    assert found["unanswered"] == 0
    assert 60 < found["operations"] < 140
    assert await spent(funded) >= found["operations"] * 5


async def test_a_refused_operation_of_a_batch_ends_the_load(address: str) -> None:
    with pytest.raises(RuntimeError, match="refused"):
        await measure(orders(address, "batch_debit"))


async def test_a_stall_shows_in_all_that_arrive_in_it_only_in_an_open_loop() -> None:
    """A caller that waits asks nothing meanwhile: that would hide what others would have met."""

    def stalling() -> Any:
        released = asyncio.Event()
        asyncio.get_running_loop().call_later(0.3, released.set)

        async def job(call: Call, number: int) -> None:
            async def answer() -> None:
                await released.wait()
                await asyncio.sleep(0)

            await call(1, answer())

        return job

    stalled = orders(seconds=0.4, warm_up_seconds=0.0, callers=1)
    closed = await closed_loop(stalled, stalling())
    stalled.rate, stalled.seed = 500.0, 7
    opened = await open_loop(stalled, stalling())
    assert closed["max_milliseconds"] > 200
    assert closed["p90_milliseconds"] < 50
    assert opened["p50_milliseconds"] > 50


async def test_what_is_never_answered_counts_as_long_as_was_waited(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("benchmarks.load.UNANSWERED_SECONDS", 0.1)

    async def job(call: Call, number: int) -> None:
        if number % 2:
            await asyncio.Event().wait()
        await call(1, asyncio.sleep(0))

    found = await open_loop(orders(rate=200.0, warm_up_seconds=0.0, seed=3), job)
    assert found["unanswered"] > 0
    assert found["max_milliseconds"] >= 100


async def test_a_job_that_fails_ends_an_open_loop() -> None:
    async def job(call: Call, number: int) -> None:
        raise ValueError(f"job {number} is wrong")

    with pytest.raises(ValueError, match="is wrong"):
        await open_loop(orders(rate=200.0, seed=3), job)


async def test_a_closed_loop_waits_for_an_answer() -> None:
    async def job(call: Call, number: int) -> None:
        await asyncio.sleep(0.3)
        await call(1, asyncio.sleep(0))

    found = await closed_loop(orders(callers=1), job)
    assert found["per_second"] < 1 / 0.2


async def test_without_an_arrival_there_are_no_figures() -> None:
    async def job(call: Call, number: int) -> None:
        await call(1, asyncio.sleep(0))

    with pytest.raises(RuntimeError, match="measure for longer"):
        await open_loop(orders(rate=0.001, seed=1), job)
