"""Clients of something that answers in this process."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from meterhold import AsyncClient, Client
from meterhold.testing._channel import AioChannel, Channel

if TYPE_CHECKING:
    from pathlib import Path

    from meterhold.testing._channel import Context


class Options(TypedDict, total=False):
    """The arguments of a client that do not speak of its connection."""

    timeout_seconds: float
    attempt_timeout_seconds: float
    journal: str | Path | None


class InProcess(ABC):
    """Makes clients whose calls it answers. Any number, in any threads and event loops.

    They send each call by itself: in this process nothing is gained by sending them together.
    """

    def client(self, **options: Unpack[Options]) -> Client:
        """Make a synchronous client; `options` as for `meterhold.Client`."""
        channel: Any = Channel(self._answer)
        return Client(channel=channel, coalesce=False, **options)

    def async_client(self, **options: Unpack[Options]) -> AsyncClient:
        """Make an asynchronous client; `options` as for `meterhold.AsyncClient`."""
        channel: Any = AioChannel(self._answer)
        return AsyncClient(channel=channel, coalesce=False, **options)

    @abstractmethod
    def _answer(self, method: str, request: bytes, context: Context, /) -> bytes: ...
