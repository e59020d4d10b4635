"""Run the proxy: `python -m examples.llm_proxy`. The README lists the environment variables."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Iterable

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount

import meterhold
from examples.llm_proxy import settings
from examples.llm_proxy.fake_upstream import FakeUpstream
from examples.llm_proxy.proxy import create_app

log = logging.getLogger("uvicorn.error")  # it has a handler once there is a Config

PORT = 8080
DEMO_MICROS = 20_000
DEMO_SECONDS_PER_TOKEN = 0.02

# A model may think for minutes before its first token.
UPSTREAM_TIMEOUT = httpx.Timeout(600.0, connect=5.0)


async def main() -> None:
    """Serve until interrupted."""
    offered = settings.load()
    listener = socket.create_server(("127.0.0.1", int(os.environ.get("PORT", PORT))))
    demo_url = "http://{}:{}/fake/v1".format(*listener.getsockname())
    key = os.environ.get("UPSTREAM_API_KEY")
    upstream = httpx.AsyncClient(
        base_url=os.environ.get("UPSTREAM_BASE_URL", demo_url),
        headers={"authorization": f"Bearer {key}"} if key else {},
        timeout=UPSTREAM_TIMEOUT,
        # By default streams over a hundred would wait for a connection, with their credits held.
        limits=httpx.Limits(max_connections=None),
    )
    credits_client = meterhold.AsyncClient(
        os.environ.get("METERHOLD_ADDRESS", "127.0.0.1:7717"),
        api_key=os.environ.get("METERHOLD_API_KEY"),
        journal=os.environ.get("METERHOLD_JOURNAL"),
    )
    async with credits_client, upstream:
        app = create_app(offered, credits_client, upstream)
        if "UPSTREAM_BASE_URL" not in os.environ:
            await _prepare_demo(app, credits_client, offered.accounts.values())
        server = uvicorn.Server(uvicorn.Config(app))
        log.info("The proxy serves http://%s:%d/v1", *listener.getsockname())
        await server.serve(sockets=[listener])


async def _prepare_demo(
    app: Starlette, credits_client: meterhold.AsyncClient, accounts: Iterable[str]
) -> None:
    """Put a fake provider beside the proxy and, once, a little into every account."""
    fake = FakeUpstream(before_token=lambda _: asyncio.sleep(DEMO_SECONDS_PER_TOKEN))
    app.routes.append(Mount("/fake", fake.app))
    for account in accounts:
        await credits_client.grant_once(
            account, DEMO_MICROS, idempotency_key=f"llm-proxy-{account}"
        )


asyncio.run(main())
