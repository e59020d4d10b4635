"""A TCP proxy that cuts, stalls and refuses connections at random, by a seed. It knows no protocol.

What befalls a connection depends on the seed, its number, and how many bytes have passed: the more
it is used, the sooner it breaks.
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from collections import Counter
from contextlib import suppress
from enum import Enum, auto
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from collections.abc import Mapping

_CHUNK: Final = 1 << 16
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)


class ConnectionFault(Enum):
    """What becomes of a connection."""

    RESET = auto()
    """Both ends are reset. What was on the way is lost."""
    CLOSED = auto()
    """Both ends are closed in order. What was passed on already arrives."""
    STALLED = auto()
    """Nothing passes for a while, in either direction; then all of it does."""
    OUTAGE = auto()
    """All connections are reset, and new ones are too, for a while."""


class ConnectionProxy:
    """Use it as an async context manager. `addresses` are where it listens, all for one target."""

    def __init__(
        self,
        target: str,
        *,
        seed: int,
        chances: Mapping[ConnectionFault, float],
        bytes_between_faults: int,
        listeners: int = 1,
        seconds_max: float = 0.5,
    ) -> None:
        """Stand before `target`, host:port. `chances` are relative to each other.

        `bytes_between_faults` is the mean, for a connection; `seconds_max` bounds a stall and an
        outage.
        """
        host, _, port = target.rpartition(":")
        self._target = host, int(port)
        self._seed = seed
        self._faults = [*chances]
        self._weights = [*chances.values()]
        self._bytes_between_faults = bytes_between_faults
        self._listeners = listeners
        self._seconds_max = seconds_max
        self._links: set[_Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._connections = 0
        self._calm = False
        self._outage_until = 0.0
        self.counts: Counter[ConnectionFault] = Counter()
        """How many faults of each kind there were."""
        self.refused = 0
        """How many connections were refused during outages."""

    async def __aenter__(self) -> Self:
        self._servers = [
            await asyncio.start_server(self._begin, "127.0.0.1", 0) for _ in range(self._listeners)
        ]
        ports = [server.sockets[0].getsockname()[1] for server in self._servers]
        self.addresses = [f"127.0.0.1:{port}" for port in ports]
        return self

    async def __aexit__(self, *_: object) -> None:
        for server in self._servers:
            server.close()
        self._reset_all()
        await asyncio.gather(*self._tasks)
        for server in self._servers:
            await server.wait_closed()

    def calm(self) -> None:
        """End all faults."""
        self._calm = True
        self._outage_until = 0.0

    def next_fault(self, chance: random.Random) -> tuple[float, ConnectionFault]:
        """After how many more bytes a connection meets what."""
        (fault,) = chance.choices(self._faults, self._weights)
        return chance.expovariate(1 / self._bytes_between_faults), fault

    async def meet(self, fault: ConnectionFault, link: _Link, chance: random.Random) -> None:
        """Let that happen to a connection, now."""
        if self._calm:
            return
        self.counts[fault] += 1
        seconds = chance.uniform(0, self._seconds_max)
        match fault:
            case ConnectionFault.RESET:
                link.reset()
            case ConnectionFault.CLOSED:
                link.close()
            case ConnectionFault.STALLED:
                await asyncio.sleep(seconds)
            case ConnectionFault.OUTAGE:
                self._outage_until = asyncio.get_running_loop().time() + seconds
                self._reset_all()

    def _reset_all(self) -> None:
        for link in list(self._links):
            link.reset()

    def _begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if asyncio.get_running_loop().time() < self._outage_until:
            self.refused += 1
            _reset(writer)
            return
        number = self._connections
        self._connections += 1
        try:
            from_target, to_target = await asyncio.open_connection(*self._target)
        except OSError:
            _reset(writer)
            return
        link = _Link(self, random.Random(f"{self._seed} {number}"), writer, to_target)
        self._links.add(link)
        try:
            await link.run(reader, from_target)
        finally:
            self._links.discard(link)


class _Link:
    """One connection of a client and one to the target."""

    def __init__(
        self,
        proxy: ConnectionProxy,
        chance: random.Random,
        to_client: asyncio.StreamWriter,
        to_target: asyncio.StreamWriter,
    ) -> None:
        self._proxy = proxy
        self._chance = chance
        self._to_client = to_client
        self._to_target = to_target
        self._bytes_left, self._fault = proxy.next_fault(chance)
        self._passing = asyncio.Lock()

    async def run(
        self, from_client: asyncio.StreamReader, from_target: asyncio.StreamReader
    ) -> None:
        await asyncio.gather(
            self._pass(from_client, self._to_target), self._pass(from_target, self._to_client)
        )
        for writer in (self._to_client, self._to_target):
            with suppress(ConnectionError):
                await writer.wait_closed()

    def reset(self) -> None:
        _reset(self._to_client)
        _reset(self._to_target)

    def close(self) -> None:
        self._to_client.close()
        self._to_target.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(_CHUNK):
                async with self._passing:
                    await self._count(len(data))
                    if writer.is_closing():
                        break
                    writer.write(data)
                await writer.drain()
        self.close()

    async def _count(self, size: int) -> None:
        self._bytes_left -= size
        if self._bytes_left <= 0:
            await self._proxy.meet(self._fault, self, self._chance)
            self._bytes_left, self._fault = self._proxy.next_fault(self._chance)


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with a reset: what was on the way is lost, and the other end knows at once."""
    line = writer.get_extra_info("socket")
    if line is not None and not writer.transport.is_closing():
        line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    writer.transport.abort()
