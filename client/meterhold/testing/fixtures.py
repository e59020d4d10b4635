"""Fixtures for the tests of programs that call Meterhold. In the conftest.py at the root of them:

    pytest_plugins = ["meterhold.testing.fixtures"]

They need no plugin for asyncio, and go with any.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from meterhold import AsyncClient, Client, _channel
from meterhold.testing._embedded import embedded_service
from meterhold.testing._in_memory import InMemory

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    import grpc.aio

ADDRESS_VARIABLE = "METERHOLD_TEST_ADDRESS"


@pytest.fixture(scope="session")
def meterhold_address() -> Iterator[str]:
    """Where a real service answers: a fresh one, or the one that METERHOLD_TEST_ADDRESS names.

    A fresh one needs the extras `server` and `embedded`, and is gone when the session ends.
    """
    running = os.environ.get(ADDRESS_VARIABLE)
    if running:
        yield running
        return
    with embedded_service() as address:
        yield address


@pytest.fixture
def meterhold_client(meterhold_address: str) -> Iterator[Client]:
    """A client of the service at `meterhold_address`."""
    with Client(meterhold_address) as client:
        yield client


@pytest.fixture
def meterhold_async_client(meterhold_address: str) -> AsyncClient:
    """A client of the service at `meterhold_address`, of the event loop that calls it first."""
    channel: Any = _OpenedLater(meterhold_address)
    return AsyncClient(channel=channel)


@pytest.fixture
def meterhold_memory() -> Iterator[InMemory]:
    """An empty service in memory, whose books are checked at the end. Needs the extra `server`."""
    memory = InMemory()
    yield memory
    memory.verify()


@pytest.fixture
def meterhold_account() -> str:
    """An account that no other test has used: the service, and its ledger, are shared."""
    return f"test-{uuid4().hex}"


class _OpenedLater:
    """A channel that is opened by its first call: a fixture has no event loop to open it in."""

    def __init__(self, address: str) -> None:
        self._endpoint = _channel.endpoint(address, tls=None, api_key=None)
        self._opened: grpc.aio.Channel | None = None

    def unary_unary(self, *method: Any, **of_method: Any) -> Callable[..., Awaitable[Any]]:
        async def call(request: Any, **options: Any) -> Any:
            self._opened = self._opened or self._endpoint.open_aio()
            return await self._opened.unary_unary(*method, **of_method)(request, **options)

        return call

    def stream_stream(self, *method: Any, **of_method: Any) -> None:
        """Asked for by the stubs, and of no use to the client."""
