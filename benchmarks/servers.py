"""The servers and databases under test, each started as its users would start it."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import psutil
import psycopg

from benchmarks import ceiling
from benchmarks.rounds import Watched
from meterhold.v1 import metering_service_pb2 as pb
from meterhold.v1.metering_service_pb2_grpc import MeteringServiceStub
from meterhold_server.embedded import EmbeddedPostgres
from meterhold_server.storage import migrate

GRANTED_MICROS = 10**15


class Database:
    """A durable embedded PostgreSQL in a fresh folder on disk, with a database for each server."""

    def __init__(self, postgres: EmbeddedPostgres, folder: Path) -> None:
        self._postgres = postgres
        pid_file = folder / "data" / "postmaster.pid"
        self.process = psutil.Process(int(pid_file.read_text().splitlines()[0]))
        self.version = postgres.version

    def create(self, name: str) -> str:
        """The URL of a new, empty database."""
        with psycopg.connect(self._postgres.url, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return self._postgres.url_of(name)

    def create_migrated(self, name: str) -> str:
        url = self.create(name)
        migrate.upgrade(url)
        return url


class Server(NamedTuple):
    """`address` is host:port, or the URL of the database where no server stands before it.

    `events` are what a server of the product logs, one dictionary a line.
    """

    address: str
    watched: Watched
    events: queue.SimpleQueue[dict[str, Any]]


@contextmanager
def database() -> Iterator[Database]:
    with tempfile.TemporaryDirectory(prefix="meterhold-bench-", dir="/var/tmp") as folder:
        Path(folder).chmod(0o711)
        directory = Path(folder) / "postgres"
        with EmbeddedPostgres.start(directory) as postgres:
            yield Database(postgres, directory)


@contextmanager
def product(
    on: Database, url: str, workers: int = 1, *, build: Path | None = None, **settings: object
) -> Iterator[Server]:
    """The service, as `meterhold-server serve` runs it. `settings` are those of ServeSettings.

    `build` is the folder of another build of it than that of these benchmarks.
    """
    wanted = {"address": "127.0.0.1:0", "workers": workers, "log_format": "json", **settings}
    own = {f"METERHOLD_{name.upper()}": str(value) for name, value in wanted.items()}
    environment = os.environ | own | {"METERHOLD_DATABASE_URL": url}
    if build is not None:
        environment["PYTHONPATH"] = str(build.resolve())
    command = [sys.executable, "-m", "meterhold_server", "serve"]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        events: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        # Somebody has to read what a server logs, or it waits for room to write in the end.
        reading = threading.Thread(target=_read_events, args=(process, events), daemon=True)
        reading.start()
        try:
            address = _serving(events)
            watched = Watched(psutil.Process(process.pid), on.process, url)
            yield Server(address, watched, events)
        finally:
            process.terminate()
            process.wait()
            reading.join()


def _read_events(process: subprocess.Popen[str], events: queue.SimpleQueue[dict[str, Any]]) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        events.put(json.loads(line))
    events.put({"event": "ended"})


def _serving(events: queue.SimpleQueue[dict[str, Any]]) -> str:
    while (found := events.get())["event"] != "ended":
        if found["event"] == "serving":
            return str(found["address"])
    raise RuntimeError("the server ended before it served")


@contextmanager
def noop(workers: int = 1) -> Iterator[Server]:
    """A server of the same library that answers at once."""
    with printing_its_port("benchmarks.noop_server", str(workers)) as (address, process):
        yield Server(address, Watched(process, None, None), queue.SimpleQueue())


@contextmanager
def naive(on: Database, url: str) -> Iterator[Server]:
    """One transaction a call, with an ORM."""
    with printing_its_port("benchmarks.naive_server", url) as (address, process):
        yield Server(address, Watched(process, on.process, url), queue.SimpleQueue())


def bare(on: Database, url: str, accounts: int) -> Server:
    """No server: an empty database made ready for sets of SQL."""
    ceiling.prepare(url, accounts)
    return Server(url, Watched(None, on.process, url), queue.SimpleQueue())


@contextmanager
def printing_its_port(module: str, *arguments: str) -> Iterator[tuple[str, psutil.Process]]:
    """Run a baseline, and answer its address and its process."""
    command = [sys.executable, "-m", module, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            port = process.stdout.readline().strip()
            if not port:
                raise RuntimeError(f"{module} ended before it served")
            yield f"127.0.0.1:{port}", psutil.Process(process.pid)
        finally:
            process.terminate()


def fund(address: str, accounts: int, prefix: str = "bench-") -> None:
    """Give accounts more than any run spends."""
    with grpc.insecure_channel(address) as channel:
        stub = MeteringServiceStub(channel)
        for number in range(accounts):
            name = f"{prefix}{number}"
            request = pb.GrantOnceRequest(
                account=name, amount_micros=GRANTED_MICROS, idempotency_key=f"fund-{name}"
            )
            stub.GrantOnce(request, timeout=30)
