"""A durable PostgreSQL that a process of its own starts, lets crash, and stops.

As root, starting PostgreSQL takes a fork, and a fork crashes in a process with busy gRPC threads,
such as that of a test whose callers go on while the database restarts.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from meterhold_server.embedded import EmbeddedPostgres
from support.database import DatabaseServer

_RESTART = "restart"
_DATABASE = "crashed"


class DatabaseApart:
    """Owns the process. `url` is that of an empty database, the same after each restart.

    With a `directory` it is the database of the embedded PostgreSQL there, which may be empty.
    """

    def __init__(self, directory: Path | None = None) -> None:
        self._keeper = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "robustness.database_apart",
                *([directory] if directory else []),
            ],
            cwd=Path(__file__).parents[1],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.url = self._answer()

    def immediate_restart(self) -> None:
        """Let it crash, and wait until it has recovered."""
        assert self._keeper.stdin is not None
        print(_RESTART, file=self._keeper.stdin, flush=True)
        assert self._answer() == self.url

    def _answer(self) -> str:
        assert self._keeper.stdout is not None
        answer = self._keeper.stdout.readline().strip()
        assert answer, f"the keeper of the database ended with {self._keeper.wait()}"
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


def _keep(directory: str | None = None) -> None:
    """Keep a server until standard input ends, and let it crash then."""
    if directory is not None:
        kept = EmbeddedPostgres.start(Path(directory))
        _talk(kept.url)
        kept.stop("immediate")
        return
    with DatabaseServer(durable=True) as server:
        _talk(server.create_database(name=_DATABASE), restart=server.immediate_restart)


def _talk(url: str, restart: Callable[[], None] | None = None) -> None:
    print(url, flush=True)  # noqa: T201 - this is how the two processes talk
    for line in sys.stdin:
        assert line.strip() == _RESTART
        assert restart is not None, "what is in a folder of its own is not restarted"
        restart()
        print(url, flush=True)  # noqa: T201


if __name__ == "__main__":
    _keep(*sys.argv[1:])
