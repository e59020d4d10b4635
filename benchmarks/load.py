"""The load: concurrent callers in a process of their own, each waiting for its answer.

As a module it takes its orders as JSON in its first argument and prints what it measured as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from itertools import count
from typing import Any, Final

import grpc
import uvloop
from google.protobuf.duration_pb2 import Duration

from meterhold.v1 import metering_service_pb2 as pb
from meterhold.v1.metering_service_pb2_grpc import MeteringServiceStub

Call = Callable[[Any, Any], Awaitable[None]]
"""Makes one call of a stub's method with a request, and times it."""

Job = Callable[[Call, Any, int], Awaitable[None]]
"""What a caller does with a stub again and again: one or more calls, told apart by a number."""

BATCH_OPERATIONS: Final = 100

# Coprime with the number of accounts: goes through all of them in an order that is not theirs.
_STRIDE = 7919


@dataclass(slots=True)
class Orders:
    """`seconds` are measured after `warm_up_seconds`. `accounts` 1 = one hot account."""

    address: str
    workload: str
    run: str
    accounts: int
    callers: int
    channels: int
    seconds: float
    warm_up_seconds: float


@dataclass(slots=True)
class Measurement:
    calls_per_second: float
    p50_milliseconds: float
    p99_milliseconds: float
    client_cpu_seconds: float


def account(number: int) -> str:
    return f"bench-{number}"


async def measure(orders: Orders) -> Measurement:
    channels = [
        grpc.aio.insecure_channel(orders.address, options=(("grpc.use_local_subchannel_pool", 1),))
        for _ in range(orders.channels)
    ]
    stubs: list[Any] = [MeteringServiceStub(channel) for channel in channels]
    job = _JOBS[orders.workload](orders)
    numbers, finished = count(), asyncio.Event()
    latencies: list[float] = []

    async def timed(method: Any, request: Any) -> None:
        started = time.perf_counter()
        response = await method(request, timeout=30)
        latencies.append(time.perf_counter() - started)
        if any(result.HasField("error") for result in getattr(response, "results", ())):
            raise RuntimeError("an operation of a Batch was refused: it would count as done")

    async def caller(stub: Any) -> None:
        while not finished.is_set():
            await job(timed, stub, next(numbers))

    callers = [
        asyncio.create_task(caller(stubs[number % len(stubs)])) for number in range(orders.callers)
    ]
    await asyncio.sleep(orders.warm_up_seconds)
    latencies.clear()
    started, cpu = time.perf_counter(), time.process_time()
    await asyncio.sleep(orders.seconds)
    measured = sorted(latencies)
    elapsed, cpu = time.perf_counter() - started, time.process_time() - cpu
    finished.set()
    await asyncio.gather(*callers)
    for channel in channels:
        await channel.close()
    p50, p99 = (measured[len(measured) * percent // 100] * 1000 for percent in (50, 99))
    return Measurement(len(measured) / elapsed, p50, p99, cpu)


def debit(orders: Orders) -> Job:
    requests = [
        pb.DebitRequest(account=account(number), amount_micros=5)
        for number in range(orders.accounts)
    ]

    async def job(call: Call, stub: Any, number: int) -> None:
        await call(stub.Debit, requests[number * _STRIDE % orders.accounts])

    return job


def batch(orders: Orders) -> Job:
    operations = [
        pb.BatchOperation(debit=pb.DebitRequest(account=account(number), amount_micros=5))
        for number in range(orders.accounts)
    ]

    async def job(call: Call, stub: Any, number: int) -> None:
        first = number * BATCH_OPERATIONS
        await call(
            stub.Batch,
            pb.BatchRequest(
                operations=[
                    operations[each * _STRIDE % orders.accounts]
                    for each in range(first, first + BATCH_OPERATIONS)
                ]
            ),
        )

    return job


def pair(orders: Orders) -> Job:
    ttl = Duration(seconds=600)

    async def job(call: Call, stub: Any, number: int) -> None:
        name = account(number * _STRIDE % orders.accounts)
        held = f"{orders.run}-{number}"
        await call(
            stub.Reserve,
            pb.ReserveRequest(account=name, reservation_id=held, amount_micros=1000, ttl=ttl),
        )
        await call(
            stub.Settle, pb.SettleRequest(account=name, reservation_id=held, amount_micros=700)
        )

    return job


_JOBS: Final = {"noop": debit, "debit": debit, "batch": batch, "pair": pair}


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        result = runner.run(measure(Orders(**json.loads(sys.argv[1]))))
    print(json.dumps(asdict(result)))
