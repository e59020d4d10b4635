"""Reads beside the lanes: a few threads, each with a connection that cannot write."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Concatenate, ParamSpec, TypeVar

import psycopg

from meterhold_server.batching import failures
from meterhold_server.storage.connection import connect_reader
from meterhold_server.storage.load import Connection

_P = ParamSpec("_P")
_T = TypeVar("_T")

_READ_SECONDS = 0.0005
"""About what a read takes; for the advice when to come back."""


class Reader:
    """Runs reads of `storage` off the event loop. One that lost its connection is tried again."""

    def __init__(
        self, database_url: str, *, threads: int = 2, waiting_reads_max: int = 1000
    ) -> None:
        self._database_url = database_url
        self._waiting = 0
        self._waiting_reads_max = waiting_reads_max
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="reader")
        self._local = threading.local()
        self._connections: list[Connection] = []

    async def run(
        self,
        read: Callable[Concatenate[Connection, _P], _T],
        *args: _P.args,
        **kwargs: _P.kwargs,
    ) -> _T:
        """Call `read(connection, …)` in a thread.

        Raises Failure if the database is away, or at once if too many reads wait already.
        """
        if self._waiting >= self._waiting_reads_max:
            raise failures.overloaded(self._waiting, self._waiting * _READ_SECONDS)
        loop = asyncio.get_running_loop()
        self._waiting += 1
        try:
            return await loop.run_in_executor(
                self._threads,
                lambda: self._read(lambda connection: read(connection, *args, **kwargs)),
            )
        finally:
            self._waiting -= 1

    async def close(self) -> None:
        """Let running reads end, then close the connections."""
        await asyncio.to_thread(self._threads.shutdown)
        for connection in self._connections:
            connection.close()

    def _read(self, read: Callable[[Connection], _T]) -> _T:
        for last in (False, True):
            try:
                return read(self._connected())
            except (psycopg.OperationalError, psycopg.InterfaceError) as error:
                self._local.connection = None
                if last:
                    raise failures.database_unavailable() from error
        raise AssertionError("the last try answers or raises")

    def _connected(self) -> Connection:
        connection: Connection | None = getattr(self._local, "connection", None)
        if connection is None or connection.closed:
            connection = connect_reader(self._database_url)
            self._local.connection = connection
            self._connections = [c for c in self._connections if not c.closed] + [connection]
        return connection
