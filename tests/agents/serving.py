"""Serve an ASGI application over HTTP, in this event loop, on a free port of loopback."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

TOKEN = "sk-test"


@asynccontextmanager
async def serving(app: ASGIApp) -> AsyncIterator[str]:
    """Yields the URL. In-process transports would not do: they do not hang up."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off"))
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield "http://{}:{}".format(*listener.getsockname())
    finally:
        server.should_exit = True
        await serving


class Watched:
    """An application that tells when it is done with a request, clean-up included."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.done = asyncio.Semaphore(0)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        finally:
            self.done.release()


@asynccontextmanager
async def calling(proxy: ASGIApp) -> AsyncIterator[httpx.AsyncClient]:
    """Serve a proxy, and yield a client of it that brings `TOKEN`."""
    headers = {"authorization": f"Bearer {TOKEN}"}
    async with serving(proxy) as url, httpx.AsyncClient(base_url=url, headers=headers) as caller:
        yield caller
