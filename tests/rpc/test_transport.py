"""When gRPC ends by itself, the server serves again: on the same port, with the same answers."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from typing import Any

import grpc.aio
import pytest
import structlog.testing
from grpc_health.v1 import health_pb2, health_pb2_grpc

import meterhold
from fuzz.hostile import Damage, Target, paths_that_are_no_text
from support.service import service
from support.waiting import until


def end_grpc(address: str) -> Damage:
    """Call a method whose name is not UTF-8, once. Anybody can."""
    host, _, port = address.rpartition(":")
    soon = time.monotonic() + 0.01
    return paths_that_are_no_text(Target(host, int(port), soon, random.Random(0)))


@pytest.mark.parametrize("auth", ["none", "keys"])
async def test_it_serves_again(database_url: str, auth: str) -> None:
    with structlog.testing.capture_logs() as logs:
        async with service(database_url, auth=auth) as address:
            for times in (1, 2):
                assert end_grpc(address).strokes == 1
                await until(lambda: _ended(logs) == times)  # noqa: B023 - it is awaited at once
                async with grpc.aio.insecure_channel(address) as channel:
                    health = health_pb2_grpc.HealthStub(channel)
                    request = health_pb2.HealthCheckRequest()
                    await health.Check(request, timeout=10, wait_for_ready=True)


def _ended(logs: Sequence[Mapping[str, Any]]) -> int:
    return sum(each["event"] == "transport_ended" for each in logs)


async def test_calls_under_way_are_made_again(address: str) -> None:
    """A stream that is open does not keep it from ending, and so from beginning again."""
    async with (
        grpc.aio.insecure_channel(address) as channel,
        meterhold.AsyncClient(address) as client,
    ):
        watching = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        await watching.read()
        await client.grant_once("alice", 9, idempotency_key="gift")
        end_grpc(address)
        charged = await client.debit_once("alice", 5, idempotency_key="job")
        assert charged.balance.available_micros == 4
        with pytest.raises(grpc.aio.AioRpcError):
            await watching.read()
