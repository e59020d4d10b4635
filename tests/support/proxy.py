"""A TCP proxy before PostgreSQL that loses what a network loses, at the worst moment.

It reads the frontend protocol message by message, so that it knows the COMMIT of a batch from all
else, and can cut the connection on either side of it.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress
from enum import Enum, auto
from typing import Final, Self

from psycopg.conninfo import conninfo_to_dict, make_conninfo

_COMMITTED: Final = b"COMMIT\x00"
_READY: Final = b"Z\x00\x00\x00\x05I"
_ENDS_OF_REQUESTS: Final = (b"S", b"Q")
_FOLLOWED_BY_MORE: Final = (b"P", b"B", b"D", b"E", b"C")
_TYPE_AND_LENGTH: Final = 5
_CHUNK: Final = 1 << 16


class Cut(Enum):
    """When a connection is cut that is about to commit."""

    BEFORE = auto()
    """The server never sees the COMMIT: the batch is rolled back."""
    AFTER = auto()
    """The server has committed; its answer is lost."""
    DURING = auto()
    """The COMMIT is sent and nobody waits for it: whether it is done, only the server knows."""
    SILENT = auto()
    """The server has committed; its answer never comes, and the connection stays open."""


class Proxy:
    """Use it as an async context manager. `url` names the same database, by way of the proxy."""

    def __init__(self, database_url: str) -> None:
        self._target = conninfo_to_dict(database_url)
        self._database_url = database_url
        self._links: set[_Link] = set()
        self._cuts: list[Cut] = []
        self._refusing_after_cuts = False
        self._refusing = False
        self._freezing_after_login = False
        self._open = asyncio.Event()
        self._open.set()
        self.delay_seconds = 0.0
        """How much longer each round trip takes."""
        self.refused = 0
        """How many connections were refused."""
        self.accepted = 0
        """How many were not."""
        self.cut = asyncio.Event()
        """Set when the last of the cuts asked for is done."""

    @property
    def url(self) -> str:
        host, port = self._server.sockets[0].getsockname()
        return make_conninfo(self._database_url, host=host, port=port, sslmode="disable")

    def cut_commits(self, *cuts: Cut, then_refuse: bool = False) -> None:
        """Cut the next commits, one by one, as told; then take no connections, if so told."""
        self._cuts = list(cuts)
        self._refusing_after_cuts = then_refuse
        self.cut.clear()

    def refuse(self) -> None:
        """Cut all connections and take no more."""
        self._refusing = True
        for link in list(self._links):
            link.abort()

    def accept(self) -> None:
        self._refusing = False

    def freeze(self) -> None:
        """Forward nothing any more. Connections stay open, and new ones are accepted."""
        self._open.clear()

    def freeze_after_login(self) -> None:
        """Freeze as soon as a connection is ready for its first query."""
        self._freezing_after_login = True

    def thaw(self) -> None:
        self._open.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refusing:
            self.refused += 1
            _abort(writer)
            return
        self.accepted += 1
        link = _Link(self, reader, writer)
        self._links.add(link)
        try:
            await link.run(*await self._connect())
        except OSError:
            # The server is away. Its client is to know at once, as without a proxy.
            link.abort()
        finally:
            self._links.discard(link)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        host, port = str(self._target.get("host") or "localhost"), self._target.get("port") or 5432
        if host.startswith("/"):
            return await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
        return await asyncio.open_connection(host, int(port))

    def next_cut(self) -> Cut | None:
        """How the commit that is about to be sent is to be cut."""
        return self._cuts.pop(0) if self._cuts else None

    def was_cut(self) -> None:
        if not self._cuts:
            self._refusing = self._refusing_after_cuts
            self.cut.set()

    def was_ready(self) -> None:
        if self._freezing_after_login:
            self._freezing_after_login = False
            self.freeze()

    async def wait_until_open(self) -> None:
        await self._open.wait()

    async def __aenter__(self) -> Self:
        self._tasks: set[asyncio.Task[None]] = set()
        self._server = await asyncio.start_server(self._begin, "127.0.0.1", 0)
        return self

    def _begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.refuse()
        self.thaw()
        await asyncio.gather(*self._tasks)
        await self._server.wait_closed()


class _Link:
    """One connection of a client and the server's end of it."""

    def __init__(
        self, proxy: Proxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._proxy = proxy
        self._client = reader
        self._to_client = writer
        self._to_server: asyncio.StreamWriter | None = None
        self._commits: set[bytes] = set()  # the prepared statements that are a COMMIT
        self._cut: Cut | None = None

    async def run(self, server: asyncio.StreamReader, to_server: asyncio.StreamWriter) -> None:
        self._to_server = to_server
        pumps = [
            asyncio.create_task(self._forward_requests(to_server)),
            asyncio.create_task(self._forward_answers(server)),
        ]
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        self.abort()
        for pump in pumps:
            pump.cancel()
        await asyncio.wait(pumps)
        for writer in (to_server, self._to_client):
            with suppress(ConnectionError):
                await writer.wait_closed()

    def abort(self) -> None:
        """Reset both ends."""
        _abort(self._to_client)
        if self._to_server is not None:
            _abort(self._to_server)

    async def _forward_requests(self, to_server: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            await self._forward_startup(to_server)
            gathered = b""
            while True:
                head = await self._client.readexactly(_TYPE_AND_LENGTH)
                body = await self._client.readexactly(int.from_bytes(head[1:]) - 4)
                await self._proxy.wait_until_open()
                if head[:1] in _ENDS_OF_REQUESTS and self._proxy.delay_seconds:
                    await asyncio.sleep(self._proxy.delay_seconds)
                if self._commits_by(head[:1], body):
                    self._cut = self._proxy.next_cut()
                    if self._cut is Cut.BEFORE:
                        to_server.write(gathered)
                        break
                gathered += head + body
                if head[:1] in _FOLLOWED_BY_MORE:
                    continue
                to_server.write(gathered)
                gathered = b""
                await to_server.drain()
                if self._cut is Cut.DURING and head[:1] == b"S":
                    break
        if self._cut in (Cut.BEFORE, Cut.DURING):
            self._proxy.was_cut()

    async def _forward_startup(self, to_server: asyncio.StreamWriter) -> None:
        """The first message has no type."""
        length = await self._client.readexactly(4)
        to_server.write(length + await self._client.readexactly(int.from_bytes(length) - 4))

    async def _forward_answers(self, server: asyncio.StreamReader) -> None:
        swallowed = b""
        with suppress(ConnectionError):
            while data := await server.read(_CHUNK):
                await self._proxy.wait_until_open()
                if self._cut is None:
                    self._to_client.write(data)
                    await self._to_client.drain()
                    if data.endswith(_READY):
                        self._proxy.was_ready()
                    continue
                swallowed += data
                if _COMMITTED in swallowed and self._cut is not Cut.DURING:
                    self._proxy.was_cut()
                    swallowed = b""
                    if self._cut is Cut.AFTER:
                        return

    def _commits_by(self, kind: bytes, body: bytes) -> bool:
        """Whether a message runs a COMMIT. Remembers the statements that are one."""
        if kind == b"P":
            name, query, *_ = body.split(b"\0", 2)
            self._commits.discard(name)
            if query == b"COMMIT":
                self._commits.add(name)
        if kind == b"B":
            _, name, *_ = body.split(b"\0", 2)
            return name in self._commits
        return kind == b"Q" and body == _COMMITTED


def _abort(writer: asyncio.StreamWriter) -> None:
    """Close with a reset, so that the other end knows at once."""
    line = writer.get_extra_info("socket")
    if line is not None and not writer.transport.is_closing() and line.family != socket.AF_UNIX:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
