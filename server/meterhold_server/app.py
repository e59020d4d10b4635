"""The only place that builds things and joins them."""

from __future__ import annotations

import asyncio
import gc
import getpass
import signal
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, NamedTuple

import structlog

from meterhold_server.batching.engine import Engine
from meterhold_server.batching.reader import Reader, summarizer, verifier
from meterhold_server.config import DatabaseSettings, EngineSettings, ServeSettings, host_and_port
from meterhold_server.core.model import AccountKey
from meterhold_server.core.operations import Rebuild
from meterhold_server.core.outcomes import Rebuilt
from meterhold_server.embedded import EmbeddedPostgres
from meterhold_server.rpc.access import Access, OpenAccess
from meterhold_server.rpc.authentication import CredentialAccess
from meterhold_server.rpc.key_sets import KeySetError
from meterhold_server.rpc.requests import Caller
from meterhold_server.rpc.server import RpcServer
from meterhold_server.rpc.service import Service
from meterhold_server.rpc.tls import TlsFiles
from meterhold_server.storage import migrate
from meterhold_server.storage.connection import (
    check_database,
    connect_credentials,
    connect_reader_for_callers,
)
from meterhold_server.workers.summarizer import Summarizer
from meterhold_server.workers.sweeper import Sweeper

if TYPE_CHECKING:
    from meterhold_server.rpc.tokens import TokenAccess

REPORTS_WAITING_MAX = 16
"""How many reports may wait for their turn. They are made one at a time."""

_REBUILD_SECONDS_MAX = 3600.0

_log = structlog.get_logger(__name__)


@contextmanager
def database(
    settings: DatabaseSettings, *, check: bool = True, writes: bool = True
) -> Iterator[str]:
    """The URL of the database to use: the one that is set, or that of an embedded server.

    The embedded one is started and migrated, and stopped at the end unless others use it. Without
    `writes` a standby, or a database that may lose commits, will do. Raises DatabaseError if the
    database must not be used, EmbeddedPostgresError, and psycopg.Error.
    """
    unsafe = settings.allow_unsafe_database
    if settings.database_url is not None:
        url = settings.database_url.get_secret_value()
        if check:
            check_database(url, allow_unsafe=unsafe, writes=writes)
        yield url
        return
    server = EmbeddedPostgres.start(settings.data_directory, durable=not unsafe)
    try:
        _log.info("embedded_postgres", version=server.version, started=server.started)
        migrate.upgrade(server.url)
        check_database(server.url, allow_unsafe=unsafe)
        yield server.url
    finally:
        server.leave()


class Running(NamedTuple):
    engine: Engine
    due: Reader
    """For the sweeper, who looks at all namespaces."""
    reader: Reader
    reports: Reader
    verifier: Reader
    summarizer: Reader
    credentials: Reader


@asynccontextmanager
async def engine(settings: EngineSettings, url: str) -> AsyncIterator[Running]:
    """The lanes and the readers on a database. At the end, all that waits is carried out first."""
    running = Running(
        Engine(url, settings.rules, settings.lane_limits, lanes=settings.lanes),
        Reader(url, threads=1),
        Reader(url, connect=connect_reader_for_callers),
        # A thread of their own, so that no look at a balance waits for a report.
        Reader(url, threads=1, waiting_reads_max=REPORTS_WAITING_MAX, read_seconds=0.5),
        verifier(url),
        summarizer(url),
        Reader(url, threads=1, connect=connect_credentials),
    )
    try:
        yield running
    finally:
        await running.engine.close()
        await running.due.close()
        await running.reader.close()
        await running.reports.close()
        await running.verifier.close()
        await running.summarizer.close()
        await running.credentials.close()


def sweeper(settings: EngineSettings, running: Running) -> Sweeper:
    return Sweeper(running.engine, running.due, interval_seconds=settings.sweep_interval_seconds)


async def serve(
    settings: ServeSettings,
    url: str,
    stopping: asyncio.Event,
    *,
    announce: Callable[[str], None],
    share_port: bool = False,
) -> None:
    """Serve until `stopping` is set, then drain. `announce` is told the address once it answers.

    `share_port` lets other processes that say so too listen on the same port. Raises OSError if the
    address is taken, TlsError, and KeySetError.
    """
    async with engine(settings, url) as running:
        service = Service(
            running.engine,
            running.reader,
            Caller(settings.namespace, settings.rules),
            running.reports,
            running.verifier,
            running.summarizer,
            running.credentials,
        )
        async with _access(settings, service) as access:
            server = RpcServer(
                access,
                reflect=settings.reflection,
                log_calls=settings.log_calls,
                share_port=share_port,
            )
            host, _ = host_and_port(settings.address)
            port = server.listen(settings.address, _tls(settings))
            await server.start()
            _spare_collections()
            async with _working(settings, running):
                announce(f"{host}:{port}")
                await stopping.wait()
                _log.info("draining")
            await server.stop(
                notice_seconds=settings.drain_notice_seconds,
                grace_seconds=settings.drain_grace_seconds,
            )


@asynccontextmanager
async def _working(settings: ServeSettings, running: Running) -> AsyncIterator[None]:
    """What a server does beside its calls."""
    sweeping = sweeper(settings, running)
    summarizing = Summarizer(
        running.summarizer, interval_seconds=settings.summarize_interval_seconds
    )
    if settings.sweep:
        sweeping.start()
    if settings.summarize:
        summarizing.start()
    try:
        yield
    finally:
        await sweeping.stop()
        await summarizing.stop()


@asynccontextmanager
async def _access(settings: ServeSettings, service: Service) -> AsyncIterator[Access]:
    """Who may come in. At the end, what is known of the use of credentials is written down."""
    if not settings.asks_for_credentials:
        yield OpenAccess(service.of(service.caller))
        return
    async with _tokens(settings, service) as tokens:
        access = CredentialAccess(service, tokens=tokens)
        access.start()
        try:
            yield access
        finally:
            await access.close()


@asynccontextmanager
async def _tokens(settings: ServeSettings, service: Service) -> AsyncIterator[TokenAccess | None]:
    """Who comes in with a token; None if no tokens are taken. Raises KeySetError."""
    source = settings.token_source
    if source is None:
        yield None
        return
    try:
        from meterhold_server.rpc.tokens import TokenAccess
    except ModuleNotFoundError as missing:
        raise KeySetError(
            f"tokens need an extra ({missing}): pip install 'meterhold[jwt]'"
        ) from None
    tokens = TokenAccess(
        service,
        source,
        settings.token_terms,
        settings.jwt_algorithms.split(","),
        operations_per_second_max=settings.jwt_operations_per_second_max,
    )
    await tokens.start()
    try:
        yield tokens
    finally:
        await tokens.close()


async def sweep(settings: EngineSettings, url: str, stopping: asyncio.Event) -> None:
    """Sweep until `stopping` is set."""
    async with engine(settings, url) as running:
        sweeping = sweeper(settings, running)
        sweeping.start()
        await stopping.wait()
        await sweeping.stop()


async def rebuild(
    settings: EngineSettings, url: str, accounts: Iterable[AccountKey]
) -> dict[AccountKey, Rebuilt]:
    """Set accounts right, one after the other, however long each takes. Raises Failure."""
    limits = settings.lane_limits._replace(transaction_seconds_max=_REBUILD_SECONDS_MAX)
    engine = Engine(url, settings.rules, limits)
    done: dict[AccountKey, Rebuilt] = {}
    try:
        for account in accounts:
            outcome = await engine.submit(Rebuild(account, actor=operator()))
            assert isinstance(outcome, Rebuilt), "a rebuild is not refused"
            done[account] = outcome
    finally:
        await engine.close()
    return done


def operator() -> str:
    """Who gives a command, as the audit log calls them."""
    return f"command:{getpass.getuser()}"


def stop_on_signals(stopping: asyncio.Event) -> None:
    """Set the event on SIGTERM and SIGINT."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)


def _spare_collections() -> None:
    """Let the garbage collector skip what is there for good, and look for cycles less often.

    Calls leave hardly any, and a full collection stops all of them at once.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(200_000, 20, 50)


def _tls(settings: ServeSettings) -> TlsFiles | None:
    if settings.tls_certificate is None or settings.tls_private_key is None:
        return None
    return TlsFiles(settings.tls_certificate, settings.tls_private_key, settings.tls_client_roots)
