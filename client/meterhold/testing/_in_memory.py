"""The service in memory: the rules of the server without a server, a database or waiting."""

from __future__ import annotations

import importlib
import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Protocol

from meterhold.testing._clients import InProcess

if TYPE_CHECKING:
    from collections.abc import Callable

    from meterhold.testing._channel import Context


class InMemory(InProcess):
    """An empty Meterhold in memory, whose answers and refusals are those of the real one.

        memory = meterhold.testing.InMemory()
        with memory.client() as client:
            client.grant_once("alice", 500, idempotency_key="invoice-17")
            client.reserve("alice", 75, reservation_id="job-7")
            memory.advance(timedelta(minutes=15))
            assert client.balance("alice").available_micros == 500

    Validation, decisions and errors are the server's own code, which needs the libraries of the
    extra `server`; nothing is stored or sent. Time stands still until `advance`. Clients of one
    `InMemory`, in any thread or event loop, share its ledger.
    """

    def __init__(self, *, now: datetime | Callable[[], datetime] | None = None) -> None:
        """`now` is where the clock stands, aware; None = the time of day.

        A function, such as `lambda: datetime.now(UTC)`, is a clock that runs by itself. Raises
        ValueError if the time is not aware, ImportError if the extra `server` is not installed.
        """
        start = now or datetime.now(UTC)
        self._clock = start if callable(start) else lambda: start
        self._ahead = timedelta()
        self._one_at_a_time = threading.Lock()
        if self._clock().utcoffset() is None:
            raise ValueError(f"now must be an aware datetime; {self._clock()!r} has no time zone")
        self._service = _memory_service(lambda: self.now)

    @property
    def now(self) -> datetime:
        """The time of the ledger, in UTC."""
        return self._clock().astimezone(UTC) + self._ahead

    def advance(self, span: timedelta) -> None:
        """Let time pass. What is due expires with the next call on its account, reads included.

        Raises ValueError if `span` is negative.
        """
        if span < timedelta():
            raise ValueError(f"time cannot go back by {-span}")
        with self._one_at_a_time:
            self._ahead += span

    def verify(self) -> None:
        """Check the books of every account, as `meterhold-server verify` does.

        Raises AssertionError that lists what is wrong.
        """
        with self._one_at_a_time:
            violations = self._service.violations()
        if violations:
            raise AssertionError("\n".join(violations))

    def _answer(self, method: str, request: bytes, context: Context, /) -> bytes:
        with self._one_at_a_time:
            return self._service.call(method, request, context)


class _Service(Protocol):
    """`meterhold_server.testing.MemoryService`, which this package must not import to be small."""

    def call(self, method: str, request: bytes, context: Context) -> bytes: ...

    def violations(self) -> list[str]: ...


def _memory_service(clock: Callable[[], datetime]) -> _Service:
    try:
        server = importlib.import_module("meterhold_server.testing")
    except ModuleNotFoundError as error:
        raise ImportError(
            "meterhold.testing.InMemory decides by the code of the server, which needs more "
            f"libraries ({error}). Run: pip install 'meterhold[server]'. Or script the answers "
            "with meterhold.testing.Stub."
        ) from error
    service: _Service = server.MemoryService(clock)
    return service
