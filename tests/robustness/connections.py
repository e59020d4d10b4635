"""Clients that share no connection, so that the kernel spreads them over the server's processes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import grpc.aio

import meterhold
from meterhold._channel import SERVICE_CONFIG

# gRPC keeps one connection for all channels of a process to one target, unless told otherwise.
_OWN_CONNECTION = ("grpc.use_local_subchannel_pool", 1)
_RECONNECT_SOON = (
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 200),
)


@asynccontextmanager
async def clients(
    address: str, number: int, *, retries: bool, timeout_seconds: float = 10.0
) -> AsyncIterator[list[meterhold.AsyncClient]]:
    """So many clients, each on a connection of its own.

    With `retries` the transport repeats calls, as it does for every user of the library. Without,
    each answer is that of one attempt.
    """
    options: list[tuple[str, str | int]] = [_OWN_CONNECTION, *_RECONNECT_SOON]
    if retries:
        options.append(("grpc.service_config", json.dumps(SERVICE_CONFIG)))
    else:
        options.append(("grpc.enable_retries", 0))
    async with AsyncExitStack() as stack:
        channels = [
            await stack.enter_async_context(grpc.aio.insecure_channel(address, options=options))
            for _ in range(number)
        ]
        yield [
            meterhold.AsyncClient(channel=channel, timeout_seconds=timeout_seconds)
            for channel in channels
        ]
