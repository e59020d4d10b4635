"""Connections that are shared out evenly among the processes of a server.

The kernel gives each connection to one of the processes that listen on a port, by a hash. Many
connections come out nearly even; of four, as likely as not, one process has three or all, and a
round would measure that draw.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack, suppress
from typing import Any, Final

import grpc.aio
import psutil

_OWN: Final = (("grpc.use_local_subchannel_pool", 1),)
_TRIES_MAX: Final = 100


async def channels(address: str, count: int, opened: AsyncExitStack) -> list[grpc.aio.Channel]:
    """Open `count` channels, connected, as many to each process of the server as to any other.

    Raises RuntimeError if the kernel does not give them out so in a hundred tries.
    """
    port = int(address.rpartition(":")[2])
    most = -(-count // len(_listening(port)))
    known = set(_connected(port))
    each: Counter[int] = Counter()
    found: list[grpc.aio.Channel] = []
    for _ in range(_TRIES_MAX):
        if len(found) == count:
            return found
        channel = grpc.aio.insecure_channel(address, _OWN)
        opened.push_async_callback(channel.close)
        await channel.channel_ready()
        connected = _connected(port)
        (new,) = connected.keys() - known
        known.add(new)
        if each[connected[new]] < most:
            each[connected[new]] += 1
            found.append(channel)
        else:
            await channel.close()
    raise RuntimeError(f"{count} connections to {address} are not evenly spread: {each}")


def _listening(port: int) -> set[int]:
    """The processes that listen on a port."""
    return {
        process_id
        for process_id, connection in _connections(port)
        if connection.status == psutil.CONN_LISTEN
    }


def _connected(port: int) -> dict[int, int]:
    """The process at the server's end of each connection, by the port of the client's end."""
    return {
        connection.raddr.port: process_id
        for process_id, connection in _connections(port)
        if connection.raddr
    }


def _connections(port: int) -> Iterator[tuple[int, Any]]:
    """Those at a port of whoever runs this load, and of all that it has started.

    Those of other processes are not for everybody to see, on some systems.
    """
    runner = psutil.Process().parent()
    assert runner is not None, "a load is run by somebody"
    for process in (runner, *runner.children(recursive=True)):
        with suppress(psutil.Error):
            for connection in process.net_connections("tcp"):
                if connection.laddr and connection.laddr.port == port:
                    yield process.pid, connection
