"""The folder of an embedded PostgreSQL: its layout, its creation, the launch of its server."""

from __future__ import annotations

import fcntl
import os
import secrets
import shlex
import shutil
import socket
import stat
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from meterhold_server.embedded.binaries import Binaries
from meterhold_server.embedded.errors import EmbeddedPostgresError
from meterhold_server.embedded.postmaster import Postmaster
from meterhold_server.embedded.system_user import SystemUser

if TYPE_CHECKING:
    from collections.abc import Iterator

# A balance must outlive a loss of power, whatever a configuration file says.
DURABLE_SETTINGS = {"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on"}

# For tests: a killed server may lose what it committed.
_FAST_SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "autovacuum": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
}
_PORT_OF_SOCKET = 5432
_LONGEST_SOCKET_PATH = 100  # bytes; the systems allow 103 to 107
_LARGEST_LOG = 10 * 2**20  # bytes, beyond which a start begins a new one
_SECONDS_TO_START = 120  # a crashed server first replays its log
_SECONDS_FOR_ORPHANS = 30
_SECONDS_BETWEEN_LOOKS = 0.1


@dataclass(frozen=True)
class Cluster:
    """All files of one embedded PostgreSQL, below `directory`, an absolute path."""

    directory: Path

    @property
    def data(self) -> Path:
        return self.directory / "data"

    @property
    def log(self) -> Path:
        return self.directory / "server.log"

    @property
    def sockets(self) -> Path:
        return self.directory / "socket"

    def prepare(self) -> None:
        """Make the folder if it is missing; one that exists keeps its mode.

        Raises EmbeddedPostgresError if every user of the system may write there, or if the path
        is one that pg_ctl, which runs the server through a shell, would misread.
        """
        if set('$`"\\\n') & set(str(self.directory)):
            raise EmbeddedPostgresError(
                f"PostgreSQL cannot start in {self.directory!s}: the path has a character with a "
                "meaning of its own in a shell. Choose another with METERHOLD_DATA_DIRECTORY."
            )
        if not self.directory.exists():
            self.directory.mkdir(parents=True)
            # As root, the server is another user, who has to pass through to its own folders.
            self.directory.chmod(0o711 if os.geteuid() == 0 else 0o700)
        elif self.directory.stat().st_mode & stat.S_IWOTH:
            raise EmbeddedPostgresError(
                f"Every user may write to {self.directory}, which is no place for balances. "
                "Choose a folder of its own with METERHOLD_DATA_DIRECTORY."
            )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from starting or stopping this server meanwhile."""
        descriptor = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def live_postmaster(self) -> Postmaster | None:
        """The ready server of this folder, once one that starts is up or one that stops is gone.

        Raises EmbeddedPostgresError if it does neither in two minutes.
        """
        deadline = time.monotonic() + _SECONDS_TO_START
        while (postmaster := Postmaster.read(self.data)) and postmaster.is_alive():
            if postmaster.status == "ready":
                return postmaster
            if time.monotonic() > deadline:
                raise EmbeddedPostgresError(
                    f"PostgreSQL (process {postmaster.pid}) is still {postmaster.status} after "
                    f"{_SECONDS_TO_START} s.{self.end_of_log()}"
                )
            time.sleep(_SECONDS_BETWEEN_LOOKS)
        return None

    def launch(self, *, durable: bool) -> tuple[Binaries, Postmaster]:
        """Start the server, creating its data first if there are none. Call it under the lock."""
        user = SystemUser.for_data(self.data)
        if closed := user.closed_folder(self.directory):
            raise EmbeddedPostgresError(
                f"PostgreSQL does not run as root but as user {user.uid}, who may not enter "
                f"{closed}. Choose a folder open to that user with METERHOLD_DATA_DIRECTORY."
            )
        binaries = self.binaries(user)
        if (self.data / "PG_VERSION").exists():
            self._check_major(binaries)
        else:
            self._create(binaries, user, durable=durable)
        self._clear_for_start(user)
        return binaries, self._start(binaries, user, durable=durable)

    def binaries(self, user: SystemUser) -> Binaries:
        """The programs, from a place that the server's user can reach."""
        binaries = Binaries.locate()
        if user.closed_folder(binaries.program("postgres").parent):
            return binaries.copied_into(self.directory / "binaries")
        return binaries

    def end_of_log(self, start: int = 0, lines: int = 20) -> str:
        """The last lines written to the server's log since byte `start`, to end an error with."""
        try:
            text = self.log.read_bytes()[start:].decode(errors="replace")
        except OSError:
            return ""
        return f"\nThe end of {self.log}:\n" + "\n".join(text.splitlines()[-lines:])

    def password(self) -> str:
        """Of the database user, asked for on TCP only."""
        return (self.directory / "password").read_text().strip()

    def _check_major(self, binaries: Binaries) -> None:
        major = (self.data / "PG_VERSION").read_text().strip()
        if major != binaries.major:
            raise EmbeddedPostgresError(
                f"The data in {self.data} belong to PostgreSQL {major}; the programs in "
                f"{binaries.prefix} are PostgreSQL {binaries.version}, which cannot read them. "
                f"Save them with the server and pg_dump of PostgreSQL {major}, or choose another "
                "directory with METERHOLD_DATA_DIRECTORY."
            )

    def _create(self, binaries: Binaries, user: SystemUser, *, durable: bool) -> None:
        """initdb under another name first: an interrupted one leaves nothing half-made."""
        for unfinished in self.directory.glob("data.new-*"):
            shutil.rmtree(unfinished, ignore_errors=True)
        password = self.directory / "password"
        password.touch(mode=0o600)
        password.write_text(secrets.token_urlsafe(24))
        user.own(password)
        new = Path(tempfile.mkdtemp(prefix="data.new-", dir=self.directory))
        user.own(new)
        done = user.run(
            *(binaries.program("initdb"), "--pgdata", new, "--username", "postgres"),
            *("--encoding", "UTF8", "--locale", "C", "--data-checksums", "--no-instructions"),
            *("--auth-local", "trust", "--auth-host", "scram-sha-256", "--pwfile", password),
            *(() if durable else ("--no-sync",)),
        )
        if done.returncode != 0:
            shutil.rmtree(new, ignore_errors=True)
            raise EmbeddedPostgresError(
                f"initdb could not create a database in {self.directory}:\n{done.stdout.strip()}"
            )
        new.rename(self.data)
        self._sync_directory()

    def _sync_directory(self) -> None:
        """Put the new name of the data on the disk: leftovers of the old one are removed."""
        descriptor = os.open(self.directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _clear_for_start(self, user: SystemUser) -> None:
        """Remove what a crashed server left, and make what the next one needs."""
        stale = Postmaster.read(self.data)
        if stale is None or stale.has_process():
            # PostgreSQL would take an empty file, or a number now used by something else, for a
            # live server. A file of a process that is gone it handles itself, looking for orphans.
            (self.data / "postmaster.pid").unlink(missing_ok=True)
        shutil.rmtree(self.sockets, ignore_errors=True)
        self.sockets.mkdir(mode=0o700)
        user.own(self.sockets)
        if self.log.exists() and self.log.stat().st_size > _LARGEST_LOG:
            self.log.replace(self.log.with_suffix(".log.1"))
        self.log.touch(mode=0o600)
        user.own(self.log)

    def _start(self, binaries: Binaries, user: SystemUser, *, durable: bool) -> Postmaster:
        settings = self._settings(durable=durable)
        options = " ".join(f"-c {shlex.quote(f'{name}={settings[name]}')}" for name in settings)
        deadline = time.monotonic() + _SECONDS_FOR_ORPHANS
        while True:
            written = self.log.stat().st_size
            done = user.run(
                *(binaries.program("pg_ctl"), "start", "-D", self.data, "-l", self.log),
                *("-w", "-t", str(_SECONDS_TO_START), "-o", options),
            )
            postmaster = self.live_postmaster()
            if postmaster is not None:
                return postmaster
            report = self.end_of_log(written)
            # Sessions of a killed server work until they notice; no other may start meanwhile.
            orphans = "pre-existing shared memory block" in report
            if not orphans or time.monotonic() > deadline:
                raise EmbeddedPostgresError(
                    f"PostgreSQL {binaries.version} did not start on {self.data}: "
                    f"{done.stdout.strip()}{report}"
                )
            time.sleep(_SECONDS_BETWEEN_LOOKS)

    def _settings(self, *, durable: bool) -> dict[str, str]:
        settings = {"max_connections": "100", **(DURABLE_SETTINGS if durable else _FAST_SETTINGS)}
        path = str(self.sockets)
        longest = os.fsencode(self.sockets / f".s.PGSQL.{_PORT_OF_SOCKET}")
        # In URLs and in this setting a comma separates paths, and a colon begins a port.
        if len(longest) <= _LONGEST_SOCKET_PATH and not set(path) & set(',:"'):
            listening = {"listen_addresses": "", "unix_socket_directories": path}
            return settings | listening | {"port": str(_PORT_OF_SOCKET)}
        listening = {"listen_addresses": "127.0.0.1", "unix_socket_directories": ""}
        return settings | listening | {"port": str(_free_port())}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
