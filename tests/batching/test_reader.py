"""Reads beside the lanes: none is lost with its connection, and none can write."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg
import pytest

from core.book import ALICE, grant
from meterhold_server.batching.failures import Failure, FailureReason
from meterhold_server.batching.reader import Reader
from meterhold_server.core.model import account_id_of
from meterhold_server.storage import connection
from meterhold_server.storage.exchange import Connection
from meterhold_server.storage.pages import read_account
from support.engines import Observer, running
from support.proxy import Proxy
from support.waiting import until


@asynccontextmanager
async def opened(database_url: str, *, threads: int = 2) -> AsyncIterator[Reader]:
    reader = Reader(database_url, threads=threads)
    try:
        yield reader
    finally:
        await reader.close()


def ask(connected: Connection, query: str) -> object:
    row = connected.execute(query.encode()).fetchone()
    return row[0] if row else None


async def test_it_reads_what_a_lane_has_committed(database_url: str) -> None:
    async with running(database_url) as engine, opened(database_url) as reader:
        for number in range(10):
            await engine.submit(grant(f"gift-{number}", 1))
            read = await reader.run(read_account, account_id_of(ALICE))
            assert read is not None
            assert read.account.seq == number + 1


async def test_it_cannot_write(database_url: str) -> None:
    async with opened(database_url) as reader:
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            await reader.run(ask, "UPDATE account SET seq = 0 RETURNING 1")


async def test_a_read_whose_connection_was_lost_is_tried_again(
    database_url: str, observer: Observer
) -> None:
    async with opened(database_url, threads=1) as reader:
        for _ in range(3):
            assert await reader.run(ask, "SELECT 42") == 42
            (backend,) = observer.lanes()
            observer.ask("SELECT pg_terminate_backend(%s, 5000)", backend)


async def test_without_a_database_it_says_so_and_recovers(proxy: Proxy) -> None:
    async with opened(proxy.url, threads=1) as reader:
        assert await reader.run(ask, "SELECT 42") == 42
        proxy.refuse()
        with pytest.raises(Failure) as failed:
            await reader.run(ask, "SELECT 42")
        assert failed.value.reason is FailureReason.DATABASE_UNAVAILABLE
        assert failed.value.applied is False
        proxy.accept()
        assert await reader.run(ask, "SELECT 42") == 42


async def test_a_read_that_takes_too_long_leaves_no_connection_behind(
    database_url: str, observer: Observer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(connection._READ_SETTINGS, "statement_timeout", "20ms")
    async with opened(database_url, threads=1) as reader:
        for _ in range(3):
            with pytest.raises(Failure):
                await reader.run(ask, "SELECT pg_sleep(10)")
        await until(lambda: len(observer.lanes()) <= 1)


async def test_a_read_on_a_line_that_fell_silent_is_given_up(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server's own timeouts do not help: nothing of what it says comes through."""
    monkeypatch.setattr(connection, "CONNECT_SECONDS", 1)
    async with opened(proxy.url, threads=1) as reader:
        monkeypatch.setattr(reader, "_seconds_max", 0.1)
        assert await reader.run(ask, "SELECT 42") == 42
        proxy.freeze()
        with pytest.raises(Failure) as failed:
            await reader.run(ask, "SELECT 42")
        assert failed.value.reason is FailureReason.DATABASE_UNAVAILABLE
        proxy.thaw()
        assert await reader.run(ask, "SELECT 42") == 42


async def test_a_read_that_has_no_thread_for_too_long_is_refused(
    database_url: str, observer: Observer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(database_url, threads=1) as reader:
        observer.hold_lock(1)
        first = asyncio.ensure_future(
            reader.run(ask, "SELECT 1 FROM pg_advisory_xact_lock_shared(1)")
        )
        await until(observer.blocked)
        monkeypatch.setattr(reader, "_seconds_max", 0.0)
        second = asyncio.ensure_future(reader.run(ask, "SELECT 42"))
        given_up = asyncio.Event()
        await asyncio.sleep(0)  # It is queued behind the first, and its alarm is set.
        asyncio.get_running_loop().call_later(0.01, given_up.set)
        await given_up.wait()
        observer.let_go()
        assert await first == 1
        with pytest.raises(Failure) as refused:
            await second
        assert refused.value.reason is FailureReason.OVERLOADED


async def test_too_many_waiting_reads_are_refused_at_once(
    database_url: str, observer: Observer
) -> None:
    reader = Reader(database_url, threads=1, waiting_reads_max=3)
    observer.hold_lock(1)
    waiting = [
        asyncio.ensure_future(reader.run(ask, "SELECT 1 FROM pg_advisory_xact_lock_shared(1)"))
        for _ in range(3)
    ]
    await until(observer.blocked)
    with pytest.raises(Failure) as refused:
        await reader.run(ask, "SELECT 42")
    assert refused.value.reason is FailureReason.OVERLOADED
    assert refused.value.retry_after_seconds
    observer.let_go()
    assert await asyncio.gather(*waiting) == [1, 1, 1]
    assert await reader.run(ask, "SELECT 42") == 42
    await reader.close()


async def test_it_leaves_no_connection_behind(database_url: str, observer: Observer) -> None:
    async with opened(database_url, threads=3) as reader:
        await asyncio.gather(*(reader.run(ask, "SELECT 42") for _ in range(30)))
        assert observer.lanes()
    await until(lambda: not observer.lanes())
