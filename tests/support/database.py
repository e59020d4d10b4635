"""Databases for tests: one real server for all of them, a fresh database for each."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

import psycopg
from psycopg import sql

from meterhold_server.embedded import EmbeddedPostgres
from meterhold_server.embedded.cluster import Cluster
from meterhold_server.embedded.postmaster import Postmaster

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

URL_VARIABLE = "METERHOLD_TEST_DATABASE_URL"

_ROOM_FOR_DATA = 2**30  # bytes; containers often have less shared memory than that


@contextmanager
def open_folder(within: Path | None = None) -> Iterator[Path]:
    """A folder, removed at the end, that every user may pass through.

    It is `within` another, by default in memory if there is room.

    The folders of `tmp_path` let nobody pass but their owner; a server started by root is another
    user.
    """
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and shutil.disk_usage(memory).free > _ROOM_FOR_DATA
    writable = roomy and os.access(memory, os.W_OK)
    within = within or (memory if writable else None)
    folder = Path(tempfile.mkdtemp(prefix="meterhold-", dir=within))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


class DatabaseServer:
    """The server the tests run on: an embedded one, or that of METERHOLD_TEST_DATABASE_URL.

    An embedded one goes with its folder at `stop`, and so do its databases.
    """

    def __init__(
        self, *, durable: bool = False, embedded: bool = False, within: Path | None = None
    ) -> None:
        """Start it. `durable` is for tests that kill it; `embedded` ignores the variable.

        `within` is the folder for the folder of a durable one.
        """
        self._durable = durable
        self._url = None if embedded or durable else os.environ.get(URL_VARIABLE)
        self._server: EmbeddedPostgres | None = None
        if self._url is None:
            self._folder = open_folder(within)
            self._directory = self._folder.__enter__() / "postgres"
            try:
                self._server = EmbeddedPostgres.start(self._directory, durable=durable)
            except BaseException:
                self._folder.__exit__(None, None, None)
                raise

    @property
    def is_embedded(self) -> bool:
        return self._server is not None

    def url_of(self, name: str) -> str:
        if self._server is not None:
            return self._server.url_of(name)
        parts = re.fullmatch(r"([^:]+://[^/?]*)(?:/[^?]*)?(\?.*)?", self._url or "")
        if parts is None:
            raise ValueError(f"{URL_VARIABLE} is not a database URL")
        return f"{parts[1]}/{name}{parts[2] or ''}"

    def create_database(self, template: str | None = None, name: str | None = None) -> str:
        """The URL of a new database, a copy of `template` if given, to which none may be connected.

        Its name (default: a random one) is `name_of(url)`.
        """
        name = name or f"test_{secrets.token_hex(6)}"
        statement = sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name))
        if template is not None:
            statement += sql.SQL(" TEMPLATE {}").format(sql.Identifier(template))
            if self.is_embedded:
                # a third of the time of the default, where nothing waits for a disk
                statement += sql.SQL(" STRATEGY FILE_COPY")
        self._execute(statement)
        return self.url_of(name)

    def drop_database(self, name: str) -> None:
        """Ends the sessions in it first; a database that does not exist is no error."""
        statement = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)")
        self._execute(statement.format(sql.Identifier(name)))

    def immediate_restart(self) -> None:
        """Let the embedded server crash and recover: all sessions break, URLs stay the same."""
        if self._server is None:
            raise RuntimeError("only an embedded server can be restarted by a test")
        self._server.stop("immediate")
        self._server = EmbeddedPostgres.start(self._directory, durable=self._durable)

    def kill_and_restart(self) -> None:
        """kill -9 of its main process; the others notice, and it recovers when started again."""
        if postmaster := Postmaster.read(Cluster(self._directory).data):
            with suppress(ProcessLookupError):
                os.kill(postmaster.pid, signal.SIGKILL)
        self.start_if_ended()

    def start_if_ended(self) -> None:
        """Start the embedded server if it has ended, as it does if it cannot recover."""
        server = EmbeddedPostgres.start(self._directory, durable=self._durable)
        if server.started:
            self._server = server

    def stop(self) -> None:
        if self._server is not None:
            try:
                self._server.stop("immediate")
            finally:
                self._server = None
                self._folder.__exit__(None, None, None)

    def _execute(self, statement: sql.Composed) -> None:
        url = self._url or self.url_of("postgres")
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(statement)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def name_of(url: str) -> str:
    """The database a URL names."""
    return str(psycopg.conninfo.conninfo_to_dict(url)["dbname"])
