"""The load on a server: callers in a process of their own, in a closed or an open loop.

Closed: each of `callers` waits for its answer and goes on, which finds the most that a server does.
Open: calls arrive when they arrive, whatever has been answered, as users do. Their latency counts
from the time they were meant to be sent, so that a server that falls behind cannot hide it by
slowing the load down. (Timers of the event loop have milliseconds, which counts as latency too.)

As a module it takes its orders as JSON in its first argument; `benchmarks.rounds` reads the rest.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import count
from typing import Any, Final

import grpc
import uvloop
from google.protobuf.duration_pb2 import Duration

import meterhold
from benchmarks.rounds import BEGIN, END, figures, mark
from benchmarks.spread import channels
from meterhold.v1 import metering_service_pb2 as pb
from meterhold.v1.metering_service_pb2_grpc import MeteringServiceStub

Call = Callable[[int, Awaitable[Any]], Awaitable[None]]
"""Awaits the answer to a call of so many operations, and notes how long it took."""

Job = Callable[[Call, int], Awaitable[None]]
"""What a caller does again and again: one or more calls, told apart by a number."""

HOLD_SECONDS: Final = 600

_TIMEOUT_SECONDS: Final = 30
UNANSWERED_SECONDS: Final = 2.0
# Coprime with the number of accounts: goes through all of them in an order that is not theirs.
_STRIDE: Final = 7919


@dataclass(slots=True)
class Orders:
    """`seconds` are measured after `warm_up_seconds`. `accounts` 1 = one hot account.

    The callers share `connections`, each staying with one: with one process of the server, that is.
    `rate` 0 is the closed loop. Else so many jobs arrive a second, at random times drawn from
    `seed`, and `callers` has no meaning. `batch` is for the jobs of a Batch: its operations.
    """

    address: str
    workload: str
    run: str
    accounts: int
    callers: int
    seconds: float
    warm_up_seconds: float
    connections: int = 1
    batch: int = 100
    rate: float = 0.0
    seed: int = 0
    prefix: str = "bench-"

    def account(self, number: int) -> str:
        return f"{self.prefix}{number * _STRIDE % self.accounts}"


@dataclass(slots=True)
class _Noted:
    """What was answered so far. Latencies, in seconds, are those of the measured time."""

    operations: int = 0
    latencies: list[float] = field(default_factory=list)


@dataclass(slots=True)
class _Arrivals(_Noted):
    """Those of the measured time; `failures` are of any time."""

    unanswered: int = 0
    refused: int = 0
    failures: list[Exception] = field(default_factory=list)


async def measure(orders: Orders) -> dict[str, Any]:
    async with AsyncExitStack() as opened:
        job = await WORKLOADS[orders.workload](orders, opened)
        return await (open_loop if orders.rate else closed_loop)(orders, job)


async def closed_loop(orders: Orders, job: Job) -> dict[str, Any]:
    """Goes on beyond its time until there is an answer."""
    numbers, finished, noted = count(), asyncio.Event(), _Noted()

    async def timed(operations: int, answer: Awaitable[Any]) -> None:
        started = time.perf_counter()
        _check(await answer)
        noted.latencies.append(time.perf_counter() - started)
        noted.operations += operations

    async def caller() -> None:
        while not finished.is_set():
            await job(timed, next(numbers))

    callers = [asyncio.create_task(caller()) for _ in range(orders.callers)]
    await _while_all_run(callers, orders.warm_up_seconds)
    mark(BEGIN)
    before, noted.latencies = noted.operations, []
    started = time.perf_counter()
    await _while_all_run(callers, orders.seconds)
    while not noted.latencies:
        await _while_all_run(callers, orders.seconds)
    elapsed = time.perf_counter() - started
    operations, latencies = noted.operations - before, noted.latencies.copy()
    mark(END)
    finished.set()
    await asyncio.gather(*callers)
    return figures(operations, elapsed, latencies) | {"operations_in_all": noted.operations}


async def _while_all_run(callers: list[asyncio.Task[None]], seconds: float) -> None:
    """Wait so long, or raise at once what ended a caller."""
    done, _ = await asyncio.wait(callers, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
    for ended in done:
        ended.result()


async def open_loop(orders: Orders, job: Job) -> dict[str, Any]:
    """Raises what ends a call, unless it was told to come again: such calls are `refused`."""
    arrivals = random.Random(orders.seed)
    under_way: set[asyncio.Task[None]] = set()
    intended = time.perf_counter()
    begin = intended + orders.warm_up_seconds
    end = begin + orders.seconds
    noted, marked = _Arrivals(), False
    for number in count():
        intended += arrivals.expovariate(orders.rate)
        if intended >= begin and not marked:
            marked = True
            mark(BEGIN)
        if intended >= end:
            break
        await asyncio.sleep(max(0.0, intended - time.perf_counter()))
        task = asyncio.create_task(_arrival(job, number, intended, (begin, end), noted))
        under_way.add(task)
        task.add_done_callback(under_way.discard)
    await asyncio.sleep(max(0.0, end - time.perf_counter()))
    mark(END)
    await _end(under_way)
    for failure in noted.failures:
        raise failure
    found = figures(noted.operations, orders.seconds, noted.latencies)
    return found | {
        "offered_per_second": orders.rate,
        "unanswered": noted.unanswered,
        "refused": noted.refused,
    }


async def _arrival(
    job: Job, number: int, intended: float, measured: tuple[float, float], noted: _Arrivals
) -> None:
    """Do a job. Note its answers in the measured time, and its latency if meant for that time."""
    begin, end = measured
    meant = intended >= begin

    async def counted(operations: int, answer: Awaitable[Any]) -> None:
        _check(await answer)
        noted.operations += operations if begin <= time.perf_counter() < end else 0

    try:
        await job(counted, number)
    except asyncio.CancelledError:
        noted.unanswered += meant
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.CANCELLED:
            # What `_end` cancels can also end so.
            noted.unanswered += meant
            return
        if error.code() is not grpc.StatusCode.UNAVAILABLE:
            noted.failures.append(error)
        noted.refused += meant
        return
    except Exception as error:
        noted.failures.append(error)
        return
    if meant:
        noted.latencies.append(time.perf_counter() - intended)


async def _end(under_way: set[asyncio.Task[None]]) -> None:
    """Wait a little for the last answers. What is not answered then took that long at least."""
    if under_way:
        _, late = await asyncio.wait(under_way, timeout=UNANSWERED_SECONDS)
        for task in late:
            task.cancel()
        await asyncio.gather(*late)


def _check(answer: Any) -> None:
    if any(result.HasField("error") for result in getattr(answer, "results", ())):
        raise RuntimeError("an operation of a Batch was refused: it would count as done")


async def _stubs(orders: Orders, opened: AsyncExitStack) -> Callable[[int], Any]:
    """The stub for the job of a number: the connections take turns."""
    count = min(orders.connections, orders.callers)
    stubs = [MeteringServiceStub(each) for each in await channels(orders.address, count, opened)]
    return lambda number: stubs[number % len(stubs)]


async def debit(orders: Orders, opened: AsyncExitStack) -> Job:
    stub = await _stubs(orders, opened)

    async def job(call: Call, number: int) -> None:
        await call(1, stub(number).Debit(_debit(orders, number), timeout=_TIMEOUT_SECONDS))

    return job


async def pair(orders: Orders, opened: AsyncExitStack) -> Job:
    stub = await _stubs(orders, opened)

    async def job(call: Call, number: int) -> None:
        await call(1, stub(number).Reserve(_reserve(orders, number), timeout=_TIMEOUT_SECONDS))
        await call(1, stub(number).Settle(_settle(orders, number), timeout=_TIMEOUT_SECONDS))

    return job


async def balance(orders: Orders, opened: AsyncExitStack) -> Job:
    stub = await _stubs(orders, opened)

    async def job(call: Call, number: int) -> None:
        request = pb.BalanceRequest(account=orders.account(number))
        await call(1, stub(number).Balance(request, timeout=_TIMEOUT_SECONDS))

    return job


async def batch_debit(orders: Orders, opened: AsyncExitStack) -> Job:
    """A Batch of Debits."""
    stub = await _stubs(orders, opened)

    async def job(call: Call, number: int) -> None:
        debits = [pb.BatchOperation(debit=_debit(orders, n)) for n in _numbers(orders, number)]
        await call(orders.batch, _batch(stub(number), debits))

    return job


async def batch_pair(orders: Orders, opened: AsyncExitStack) -> Job:
    """A Batch of Reserves, and then one of the Settles of these."""
    stub = await _stubs(orders, opened)

    async def job(call: Call, number: int) -> None:
        numbers = _numbers(orders, number)
        holds = [pb.BatchOperation(reserve=_reserve(orders, n)) for n in numbers]
        await call(orders.batch, _batch(stub(number), holds))
        charges = [pb.BatchOperation(settle=_settle(orders, n)) for n in numbers]
        await call(orders.batch, _batch(stub(number), charges))

    return job


async def client_pair(orders: Orders, opened: AsyncExitStack) -> Job:
    """Reserve and Settle through the client library, as it comes."""
    client = await opened.enter_async_context(meterhold.AsyncClient(orders.address))
    ttl = timedelta(seconds=HOLD_SECONDS)

    async def job(call: Call, number: int) -> None:
        account, hold = orders.account(number), f"{orders.run}-{number}"
        await call(1, client.reserve(account, 1000, reservation_id=hold, ttl=ttl))
        await call(1, client.settle(account, 700, reservation_id=hold))

    return job


def _debit(orders: Orders, number: int) -> pb.DebitRequest:
    return pb.DebitRequest(account=orders.account(number), amount_micros=5)


def _reserve(orders: Orders, number: int) -> pb.ReserveRequest:
    return pb.ReserveRequest(
        account=orders.account(number),
        reservation_id=f"{orders.run}-{number}",
        amount_micros=1000,
        ttl=Duration(seconds=HOLD_SECONDS),
    )


def _settle(orders: Orders, number: int) -> pb.SettleRequest:
    return pb.SettleRequest(
        account=orders.account(number),
        reservation_id=f"{orders.run}-{number}",
        amount_micros=700,
    )


def _numbers(orders: Orders, number: int) -> range:
    return range(number * orders.batch, (number + 1) * orders.batch)


def _batch(stub: Any, operations: list[pb.BatchOperation]) -> Awaitable[Any]:
    answer: Awaitable[Any] = stub.Batch(
        pb.BatchRequest(operations=operations), timeout=_TIMEOUT_SECONDS
    )
    return answer


WORKLOADS: Final = {
    "debit": debit,
    "pair": pair,
    "balance": balance,
    "batch_debit": batch_debit,
    "batch_pair": batch_pair,
    "client_pair": client_pair,
}


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        result = runner.run(measure(Orders(**json.loads(sys.argv[1]))))
    print(json.dumps(result))
