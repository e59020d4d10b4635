"""Work that ends when the client hangs up."""

from __future__ import annotations

import asyncio

import pytest
from starlette.types import Message

from examples.llm_proxy.hang_up import stop_on_hang_up


class Client:
    """An ASGI `receive`, and work that goes on until it is cancelled."""

    def __init__(self) -> None:
        self.working = asyncio.Event()
        self.gone = asyncio.Event()
        self.cancelled = False

    async def receive(self) -> Message:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def work(self) -> None:
        self.working.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise


async def test_a_hang_up_cancels_the_work_and_is_no_error() -> None:
    client = Client()
    client.gone.set()
    await stop_on_hang_up(client.receive, client.work())
    assert client.cancelled


async def test_who_is_cancelled_cancels_the_work() -> None:
    client = Client()
    serving = asyncio.create_task(stop_on_hang_up(client.receive, client.work()))
    await client.working.wait()
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    assert client.cancelled


async def test_work_that_ends_or_fails_does_so_though_the_client_listens() -> None:
    client = Client()

    async def fail() -> None:
        raise PermissionError

    await stop_on_hang_up(client.receive, asyncio.sleep(0))
    with pytest.raises(PermissionError):
        await stop_on_hang_up(client.receive, fail())
