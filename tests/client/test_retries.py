"""What the transport repeats by itself, and with which key."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import pytest

import meterhold
from client.scripted_server import Abort, ScriptedServer, error_info
from meterhold import AsyncClient, Client, _channel
from meterhold.v1 import metering_service_pb2 as metering

if TYPE_CHECKING:
    from client.conftest import AnyClient

UNAVAILABLE = Abort(grpc.StatusCode.UNAVAILABLE, details=(error_info("DATABASE_UNAVAILABLE"),))


@pytest.mark.parametrize(
    ("method", "args", "kwargs", "field"),
    [
        ("debit", ("alice", 5), {}, "request_id"),
        ("extend", ("alice",), {"reservation_id": "r", "add_amount_micros": 5}, "extend_id"),
        ("settle", ("alice", 5), {"reservation_id": "r", "keep_open": True}, "capture_id"),
    ],
)
async def test_retries_send_the_same_key(
    client: AnyClient,
    server: ScriptedServer,
    method: str,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    field: str,
) -> None:
    answer = getattr(metering, f"{method.capitalize()}Response")(replayed=True)
    server.answer(UNAVAILABLE, UNAVAILABLE, answer)
    result = await client.call(method, *args, **kwargs)
    assert result.replayed
    assert len(server.calls) == 3
    assert len({call.request.SerializeToString(deterministic=True) for call in server.calls}) == 1
    assert getattr(server.calls[0].request, field)
    assert [call.metadata.get("grpc-previous-rpc-attempts") for call in server.calls] == [
        None,
        "1",
        "2",
    ]


async def test_four_attempts_at_most(client: AnyClient, server: ScriptedServer) -> None:
    server.last = UNAVAILABLE
    with pytest.raises(meterhold.Unavailable):
        await client.call("balance", "alice")
    assert len(server.calls) == 4


async def test_retries_stop_when_calls_keep_failing(
    client: AnyClient, server: ScriptedServer
) -> None:
    """Ten tokens above the threshold: each failed attempt takes one, whichever call it is of."""
    server.last = UNAVAILABLE
    for _ in range(10):
        with pytest.raises(meterhold.Unavailable):
            await client.call("balance", "alice")
    seen = len(server.calls)
    with pytest.raises(meterhold.Unavailable):
        await client.call("balance", "alice")
    assert len(server.calls) == seen + 1


async def test_retries_end_with_the_deadline(client: AnyClient, server: ScriptedServer) -> None:
    server.last = Abort(
        grpc.StatusCode.UNAVAILABLE,
        details=(error_info("DATABASE_UNAVAILABLE"),),
        trailing_metadata=(("grpc-retry-pushback-ms", "60000"),),
    )
    with pytest.raises(meterhold.OutcomeUnknown) as raised:
        await client.call("balance", "alice", timeout_seconds=0.1)
    assert raised.value.code == "DEADLINE_EXCEEDED"
    assert len(server.calls) == 1


async def test_server_can_forbid_retries(client: AnyClient, server: ScriptedServer) -> None:
    server.last = Abort(
        grpc.StatusCode.UNAVAILABLE,
        details=(error_info("SHUTTING_DOWN"),),
        trailing_metadata=(("grpc-retry-pushback-ms", "-1"),),
    )
    with pytest.raises(meterhold.Unavailable):
        await client.call("balance", "alice")
    assert len(server.calls) == 1


def test_service_config_never_sets_a_timeout() -> None:
    assert '"timeout"' not in json.dumps(_channel.SERVICE_CONFIG)


def test_channel_that_was_handed_in_stays_open(server: ScriptedServer) -> None:
    server.last = metering.BalanceResponse()
    with grpc.insecure_channel(server.target) as channel:
        for _ in range(2):
            with Client(channel=channel) as client:
                client.balance("alice")
    assert len(server.calls) == 2


async def test_aio_channel_that_was_handed_in_stays_open(server: ScriptedServer) -> None:
    server.last = metering.BalanceResponse()
    async with grpc.aio.insecure_channel(server.target) as channel:
        for _ in range(2):
            async with AsyncClient(channel=channel) as client:
                await client.balance("alice")
    assert len(server.calls) == 2
