"""Reads beside the lanes: a few threads, each with a connection that cannot write.

Namespaces take turns. What is not read for one of them has a line of its own.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar

import psycopg

from meterhold_server.batching import failures
from meterhold_server.batching.turns import Turns
from meterhold_server.storage.connection import (
    connect_reader,
    connect_summarizer,
    connect_verifier,
    sever,
    within,
)
from meterhold_server.storage.exchange import Connection

_P = ParamSpec("_P")
_T = TypeVar("_T")

VERIFY_SECONDS_MAX = 60.0
"""How long the verification of one account may take."""

_SILENCE_SECONDS_MAX = 5.0

READ_SECONDS_MAX = 15.0
"""When a read is given up that has no thread yet, or whose line fell silent.

The database itself ends a long one sooner.
"""


class Reads(Protocol):
    """What reads are run by."""

    async def run(
        self,
        read: Callable[Concatenate[Connection, _P], _T],
        *args: _P.args,
        **kwargs: _P.kwargs,
    ) -> _T:
        """As Reader.run."""
        ...

    def within(self, namespace: str) -> Reads:
        """As Reader.within."""
        ...

    def in_line(self, namespace: str) -> Reads:
        """As Reader.in_line."""
        ...


class Reader:
    """Runs reads of `storage` off the event loop. One that lost its connection is tried again."""

    def __init__(
        self,
        database_url: str,
        *,
        threads: int = 2,
        waiting_reads_max: int = 1000,
        read_seconds: float = 0.0005,
        connect: Callable[[str], Connection] = connect_reader,
        seconds_max: float = READ_SECONDS_MAX,
        too_long: Callable[[], failures.Failure] = failures.read_too_long,
        given_up: Callable[[], failures.Failure] = failures.database_unavailable,
    ) -> None:
        """`read_seconds` is about what a read takes, for the advice when to come back.

        A read fails with `too_long` if the database ended it, with `given_up` after `seconds_max`.
        """
        self._read_seconds = read_seconds
        self._database_url = database_url
        self._connect = connect
        self._seconds_max = seconds_max
        self._too_long = too_long
        self._given_up = given_up
        self._waiting_reads_max = waiting_reads_max
        self._turns: Turns[_Read[Any]] = Turns()
        # Reads that wait or are under way, in all and of each namespace; for the event loop alone.
        self._waiting = 0
        self._waiting_in: dict[str, int] = {}
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

        Raises Failure if the database is away, if the read takes longer than the database lets it,
        or at once if too many reads wait already.
        """
        return await self._run("", lambda connection: read(connection, *args, **kwargs))

    def within(self, namespace: str) -> Reads:
        """The same, for a caller of a namespace, if its connections are those for callers."""
        return _ReadsOf(self, namespace, fenced=True)

    def in_line(self, namespace: str) -> Reads:
        """The same, in turn with other namespaces, on connections that see all of them."""
        return _ReadsOf(self, namespace, fenced=False)

    async def _run(self, namespace: str, read: Callable[[Connection], _T]) -> _T:
        self._refuse_if_full(namespace)
        under_way = _Read(asyncio.get_running_loop(), self._seconds_max, read)
        self._waiting += 1
        self._waiting_in[namespace] = self._waiting_in.get(namespace, 0) + 1
        self._turns.put(namespace, under_way)
        try:
            # Whichever thread is free takes the read whose turn it is then, and not this one.
            self._threads.submit(self._read_next)
            return await under_way.outcome
        finally:
            self._waiting -= 1
            self._waiting_in[namespace] -= 1
            if not self._waiting_in[namespace]:
                del self._waiting_in[namespace]
            # When the caller was cancelled, the thread goes on, and may need it.
            if under_way.ended:
                under_way.alarm.cancel()

    def _refuse_if_full(self, namespace: str) -> None:
        if self._waiting < self._waiting_reads_max:
            return
        # Where others have made it full, a namespace that has asked for little may still come in;
        # however many namespaces there are, there is a bound.
        own = self._waiting_in.get(namespace, 0)
        ahead = min(own * len(self._waiting_in), self._waiting)
        if ahead >= self._waiting_reads_max or self._waiting >= 2 * self._waiting_reads_max:
            raise self._overloaded(ahead)

    def _overloaded(self, ahead: int) -> failures.Failure:
        return failures.overloaded(ahead, ahead * self._read_seconds)

    async def close(self) -> None:
        """Let running reads end, then close the connections."""
        await asyncio.to_thread(self._threads.shutdown)
        for connection in self._connections:
            connection.close()

    def _read_next(self) -> None:
        under_way = self._turns.take()
        if under_way.outcome.cancelled():
            return
        try:
            result = self._read(under_way)
        except BaseException as error:
            under_way.tell(None, error)
        else:
            under_way.tell(result, None)

    def _read(self, under_way: _Read[_T]) -> _T:
        if under_way.given_up:
            raise self._overloaded(self._waiting)
        under_way.begun = time.monotonic()
        for last in (False, True):
            if under_way.given_up:
                raise self._given_up()
            try:
                under_way.connection = self._connected()
                return under_way.read(under_way.connection)
            except psycopg.errors.QueryCanceled as error:
                self._drop_connection()
                raise self._too_long() from error
            except (psycopg.OperationalError, psycopg.InterfaceError) as error:
                self._drop_connection()
                if under_way.given_up:
                    raise self._given_up() from error
                if last:
                    raise failures.database_unavailable() from error
        raise AssertionError("the last try answers or raises")

    def _drop_connection(self) -> None:
        connection: Connection | None = getattr(self._local, "connection", None)
        self._local.connection = None
        if connection is not None:
            connection.close()

    def _connected(self) -> Connection:
        connection: Connection | None = getattr(self._local, "connection", None)
        if connection is None or connection.closed:
            connection = self._connect(self._database_url)
            self._local.connection = connection
            self._connections = [c for c in self._connections if not c.closed] + [connection]
        return connection


class _ReadsOf:
    """Runs reads in the line of one namespace. `fenced` ones see nothing else."""

    def __init__(self, reader: Reader, namespace: str, *, fenced: bool) -> None:
        self._reader = reader
        self._namespace = namespace
        self._fenced = fenced

    async def run(
        self,
        read: Callable[Concatenate[Connection, _P], _T],
        *args: _P.args,
        **kwargs: _P.kwargs,
    ) -> _T:
        def run(connection: Connection) -> _T:
            if self._fenced:
                return within(connection, self._namespace, read, *args, **kwargs)
            return read(connection, *args, **kwargs)

        return await self._reader._run(self._namespace, run)

    def within(self, namespace: str) -> Reads:
        return self._reader.within(namespace)

    def in_line(self, namespace: str) -> Reads:
        return self._reader.in_line(namespace)


def verifier(database_url: str) -> Reader:
    """One thread for verifications, beside the reads: they take long, and must starve nobody."""
    return Reader(
        database_url,
        threads=1,
        waiting_reads_max=16,
        connect=partial(connect_verifier, statement_seconds_max=int(VERIFY_SECONDS_MAX)),
        seconds_max=VERIFY_SECONDS_MAX + _SILENCE_SECONDS_MAX,
        too_long=failures.verification_too_long,
        given_up=failures.verification_too_long,
    )


def summarizer(database_url: str) -> Reader:
    """One thread for sums of charges, beside the reads. What it writes it may write twice."""
    return Reader(
        database_url,
        threads=1,
        connect=partial(connect_summarizer, statement_seconds_max=int(VERIFY_SECONDS_MAX)),
        seconds_max=VERIFY_SECONDS_MAX + _SILENCE_SECONDS_MAX,
        too_long=failures.verification_too_long,
    )


class _Read(Generic[_T]):
    """A read under way, which the event loop gives up when its thread waits for too long.

    One that waits as long for a thread is given up too. Once begun it has all of its time.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        seconds_max: float,
        read: Callable[[Connection], _T],
    ) -> None:
        self.read = read
        self.outcome: asyncio.Future[_T] = loop.create_future()
        self.connection: Connection | None = None
        self.begun: float | None = None
        self.ended = False
        self.given_up = False
        self._loop = loop
        self._seconds_max = seconds_max
        self.alarm = loop.call_later(seconds_max, self._give_up)

    def tell(self, result: _T | None, error: BaseException | None) -> None:
        """Hand over, from the thread, what came of it."""
        self.ended = True
        # A loop that is closed has nobody who waits.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._told, result, error)

    def _told(self, result: Any, error: BaseException | None) -> None:
        if self.outcome.done():
            return
        if error is None:
            self.outcome.set_result(result)
        else:
            self.outcome.set_exception(error)

    def _give_up(self) -> None:
        if self.begun is not None:
            left = self.begun + self._seconds_max - time.monotonic()
            if left > 0:
                self.alarm = self._loop.call_later(left, self._give_up)
                return
        self.given_up = True
        if self.connection is not None and not self.ended:
            sever(self.connection)
