"""A durable PostgreSQL that a process of its own starts, lets crash, and stops.

As root, starting PostgreSQL takes a fork, and a fork crashes in a process with busy gRPC threads,
such as that of a test whose callers go on while the database restarts.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from meterhold_server.embedded import EmbeddedPostgres
from support.database import DatabaseServer

_DATABASE: Final = "crashed"
_BALLAST_BYTES: Final = 1 << 20


class DatabaseApart:
    """Owns the process. `url` is that of an empty database, the same after each restart.

    With a `directory` it is the database of the embedded PostgreSQL there, which may be empty, and
    which is not restarted.
    """

    def __init__(self, directory: Path | None = None, *, disk_bytes: int = 0) -> None:
        """Start it, with `disk_bytes` on a disk of its own, in memory, which takes root.

        Raises OSError if there is no such disk to be had.
        """
        what = str(directory) if directory is not None else str(disk_bytes)
        self._keeper = subprocess.Popen(
            [sys.executable, "-m", "robustness.database_apart", what],
            cwd=Path(__file__).parents[1],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # A signal to all that a terminal runs must not keep it from cleaning up.
            start_new_session=True,
        )
        try:
            self.url = self._answer()
        except OSError:
            self._keeper.communicate()
            raise

    def immediate_restart(self) -> None:
        """Let it crash, and wait until it has recovered."""
        self._order("immediate_restart")

    def kill_and_restart(self) -> None:
        """kill -9 of its main process, and wait until it has recovered."""
        self._order("kill_and_restart")

    def start_if_ended(self) -> None:
        """Start it if it has ended by itself, and wait until it has recovered."""
        self._order("start_if_ended")

    def fill_disk(self) -> None:
        """Leave it no room on a disk of its own."""
        self._order("fill_disk")

    def free_disk(self) -> None:
        """Give the room back."""
        self._order("free_disk")

    def _order(self, what: str) -> None:
        assert self._keeper.stdin is not None
        print(what, file=self._keeper.stdin, flush=True)
        assert self._answer() == self.url

    def _answer(self) -> str:
        assert self._keeper.stdout is not None
        answer = self._keeper.stdout.readline().strip()
        if not answer.startswith("postgresql:"):
            raise OSError(answer or f"the keeper of the database ended with {self._keeper.wait()}")
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._keeper.communicate()
        assert self._keeper.returncode == 0


def _keep_embedded(directory: Path) -> None:
    """Keep an embedded server until standard input ends, and let it crash then."""
    kept = EmbeddedPostgres.start(directory)
    _obey({}, kept.url)
    kept.stop("immediate")


def _keep(disk_bytes: int) -> None:
    """Keep a server until standard input ends."""
    with _disk(disk_bytes) as disk, DatabaseServer(durable=True, within=disk) as server:
        orders: dict[str, Callable[[], None]] = {
            "immediate_restart": server.immediate_restart,
            "kill_and_restart": server.kill_and_restart,
            "start_if_ended": server.start_if_ended,
        }
        if disk is not None:
            ballast = disk / "ballast"
            orders["fill_disk"] = lambda: _fill(ballast)
            orders["free_disk"] = ballast.unlink
        _obey(orders, server.create_database(name=_DATABASE))


def _obey(orders: Mapping[str, Callable[[], None]], url: str) -> None:
    """Carry out each order that comes. The URL is the answer to it."""
    print(url, flush=True)  # noqa: T201 - this is how the two processes talk
    for line in sys.stdin:
        orders[line.strip()]()
        print(url, flush=True)  # noqa: T201


@contextmanager
def _disk(disk_bytes: int) -> Iterator[Path | None]:
    """A disk in memory of that size, if any is wanted. Raises OSError."""
    if not disk_bytes:
        yield None
        return
    folder = Path(tempfile.mkdtemp(prefix="meterhold-disk-"))
    try:
        options = f"size={disk_bytes},mode=0711"
        _run("mount", "-t", "tmpfs", "-o", options, "meterhold", str(folder))
        try:
            yield folder
        finally:
            _run("umount", "--lazy", str(folder))
    finally:
        folder.rmdir()


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(done.stderr.strip())


def _fill(ballast: Path) -> None:
    with suppress(OSError), ballast.open("wb", buffering=0) as file:
        while file.write(bytes(_BALLAST_BYTES)):
            pass


if __name__ == "__main__":
    _what = sys.argv[1]
    try:
        _keep(int(_what)) if _what.isdecimal() else _keep_embedded(Path(_what))
    except OSError as failure:
        print(" ".join(str(failure).split()), flush=True)  # noqa: T201
