"""Every test of a call runs against both clients, through one and the same way of calling them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import pytest

from client.scripted_server import ScriptedServer
from meterhold import AsyncClient, Client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


class AnyClient(Protocol):
    """Calls a method of either client by its name."""

    async def call(self, method: str, *args: Any, **kwargs: Any) -> Any: ...

    def items(self, method: str, *args: Any, **kwargs: Any) -> AsyncIterator[Any]: ...


class _Sync:
    def __init__(self, client: Client) -> None:
        self._client = client

    async def call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        return getattr(self._client, method)(*args, **kwargs)

    async def items(self, method: str, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        for item in getattr(self._client, method)(*args, **kwargs):
            yield item


class _Async:
    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        return await getattr(self._client, method)(*args, **kwargs)

    def items(self, method: str, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        items: AsyncIterator[Any] = getattr(self._client, method)(*args, **kwargs)
        return items


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer() as server:
        yield server


@pytest.fixture(params=["sync", "async"])
async def client(
    request: pytest.FixtureRequest, server: ScriptedServer
) -> AsyncIterator[AnyClient]:
    if request.param == "sync":
        with Client(server.target) as sync_client:
            yield _Sync(sync_client)
    else:
        async with AsyncClient(server.target) as async_client:
            yield _Async(async_client)
