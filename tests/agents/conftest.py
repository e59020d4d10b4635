"""A proxy and a fake upstream, both served over HTTP, and an account with credits."""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest

import meterhold
from agents.pace import Pace
from agents.serving import TOKEN, Watched, calling, serving
from examples.llm_proxy.fake_upstream import FakeUpstream
from examples.llm_proxy.prices import Model
from examples.llm_proxy.proxy import create_app
from examples.llm_proxy.settings import Settings

ACCOUNT = "alice"

# Before anything imports LiteLLM: it would fetch its price list.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"


@pytest.fixture
def offered() -> Settings:
    return Settings(
        max_output_tokens=1000,
        models={
            "large": Model("acme", "large", 2_500_000, 1_250_000, 10_000_000),
            "small": Model("acme", "small", 150_000, 75_000, 600_000),
        },
        accounts={hashlib.sha256(TOKEN.encode()).hexdigest(): ACCOUNT},
    )


@pytest.fixture
def pace() -> Pace:
    return Pace()


@pytest.fixture
async def upstream(pace: Pace) -> AsyncIterator[httpx.AsyncClient]:
    """The proxy's way to the fake upstream."""
    async with (
        serving(FakeUpstream(pace.before_token).app) as url,
        httpx.AsyncClient(base_url=f"{url}/v1") as connected,
    ):
        yield connected


@pytest.fixture
def proxy(offered: Settings, client: meterhold.AsyncClient, upstream: httpx.AsyncClient) -> Watched:
    return Watched(create_app(offered, client, upstream))


@pytest.fixture
async def caller(proxy: Watched) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the proxy, with the token of an account."""
    async with calling(proxy) as connected:
        yield connected


@pytest.fixture
def unused_address() -> Iterator[str]:
    """Where nobody listens: the port is taken, so that nobody else gets it either."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield "{}:{}".format(*taken.getsockname())
