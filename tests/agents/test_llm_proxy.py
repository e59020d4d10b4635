"""The proxy over HTTP: what callers get, and what they are charged for it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

import meterhold
from agents.conftest import ACCOUNT
from agents.pace import Pace
from agents.serving import TOKEN, Watched, calling, serving
from examples.llm_proxy.chat import parse
from examples.llm_proxy.proxy import create_app
from examples.llm_proxy.settings import Settings
from meterhold import EntryKind, ReservationState
from support.service import service

PROMPT = "How much is it?"  # 4 tokens of the fake upstream, and 4 by the estimate
GRANTED_MICROS = 1_000_000


@pytest.fixture(autouse=True)
async def granted(client: meterhold.AsyncClient) -> None:
    await client.grant_once(ACCOUNT, GRANTED_MICROS, idempotency_key="top-up")


def request(**fields: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": PROMPT}]
    return {"model": "large", "messages": messages, "max_tokens": 10} | fields


async def ask(caller: httpx.AsyncClient, **fields: Any) -> httpx.Response:
    return await caller.post("/v1/chat/completions", json=request(**fields))


async def the_reservation(client: meterhold.AsyncClient) -> meterhold.Reservation:
    [reservation] = [reservation async for reservation in client.list_reservations(ACCOUNT)]
    return reservation


async def charges(client: meterhold.AsyncClient) -> list[meterhold.Entry]:
    kinds = [EntryKind.CAPTURE, EntryKind.DEBIT, EntryKind.EXPIRY_CHARGE]
    return [entry async for entry in client.list_entries(ACCOUNT, kinds=kinds)]


@asynccontextmanager
async def proxy_before(
    upstream: ASGIApp, offered: Settings, client: meterhold.AsyncClient
) -> AsyncIterator[Watched]:
    """A proxy before an upstream of the test's own."""
    async with serving(upstream) as url, httpx.AsyncClient(base_url=url) as connected:
        yield Watched(create_app(offered, client, connected))


@pytest.mark.parametrize(
    ("model", "max_tokens", "charged_micros"),
    [("large", 10, 110), ("large", 1, 20), ("small", 1, 2), ("small", 100, 61)],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_is_charged_by_the_price_table_to_the_micro(
    caller: httpx.AsyncClient,
    client: meterhold.AsyncClient,
    model: str,
    max_tokens: int,
    charged_micros: int,
    stream: bool,
) -> None:
    answer = await ask(caller, model=model, max_tokens=max_tokens, stream=stream)
    assert answer.status_code == 200
    if stream:
        assert answer.text.endswith(f"data: [DONE]\n\n: charged_micros={charged_micros}\n\n")
    else:
        assert answer.json()["usage"]["completion_tokens"] == max_tokens
        assert answer.headers["x-charged-micros"] == str(charged_micros)

    [entry] = await charges(client)
    assert entry.amount_micros == -charged_micros
    assert entry.usage == meterhold.Usage(
        provider="acme",
        model=model,
        input_tokens=4,
        output_tokens=max_tokens,
        stop_reason="length",
    )
    balance = await client.balance(ACCOUNT)
    assert balance.available_micros == GRANTED_MICROS - charged_micros
    assert (await the_reservation(client)).state is ReservationState.SETTLED


@pytest.mark.parametrize(
    ("options", "usages"), [({}, 0), ({"stream_options": {"include_usage": True}}, 1)]
)
async def test_the_tokens_are_told_to_who_asked_for_them(
    caller: httpx.AsyncClient, options: dict[str, Any], usages: int
) -> None:
    answer = await ask(caller, stream=True, **options)
    assert answer.text.count('"usage"') == usages


@pytest.mark.parametrize(
    ("tokens", "charged_micros"), [(0, 10), (1, 10 + 20), (3, 10 + 40), (9, 10 + 110)]
)
async def test_who_hangs_up_pays_for_what_was_produced(
    caller: httpx.AsyncClient,
    client: meterhold.AsyncClient,
    proxy: Watched,
    pace: Pace,
    tokens: int,
    charged_micros: int,
) -> None:
    pace.tokens = tokens
    asked = request(stream=True, max_tokens=500)
    async with caller.stream("POST", "/v1/chat/completions", json=asked) as answer:
        events = answer.aiter_lines()
        heard = 0
        while heard <= tokens:  # the first says the role only
            heard += (await anext(events)).startswith("data:")
    await proxy.done.acquire()
    await pace.cut.wait()  # the upstream was told to stop

    reservation = await the_reservation(client)
    assert reservation.state is ReservationState.SETTLED
    assert reservation.captured_micros == charged_micros
    assert (await client.balance(ACCOUNT)).held_micros == 0


async def test_who_is_gone_before_the_first_byte_pays_nothing(
    offered: Settings, client: meterhold.AsyncClient
) -> None:
    asked = asyncio.Event()
    closed = asyncio.Event()

    async def silent(scope: Scope, receive: Receive, send: Send) -> None:
        await Request(scope, receive).body()
        asked.set()
        assert (await receive())["type"] == "http.disconnect"
        closed.set()

    async with proxy_before(silent, offered, client) as proxy, calling(proxy) as caller:
        asking = asyncio.create_task(ask(caller, stream=True))
        await asked.wait()
        asking.cancel()
        await closed.wait()
        await proxy.done.acquire()
    assert (await the_reservation(client)).state is ReservationState.RELEASED


async def test_an_answer_that_is_not_streamed_is_finished_and_charged(
    caller: httpx.AsyncClient, client: meterhold.AsyncClient, proxy: Watched, pace: Pace
) -> None:
    pace.tokens = 5
    asking = asyncio.create_task(ask(caller))
    await pace.waiting.acquire()
    asking.cancel()
    await asyncio.wait([asking])
    pace.go.set()
    await proxy.done.acquire()
    assert (await the_reservation(client)).captured_micros == 110


@pytest.mark.parametrize(
    ("tokens", "state", "charged_micros"),
    [(0, ReservationState.RELEASED, 0), (3, ReservationState.SETTLED, 50)],
)
async def test_an_upstream_that_breaks_off_is_paid_for_what_it_produced(
    caller: httpx.AsyncClient,
    client: meterhold.AsyncClient,
    pace: Pace,
    tokens: int,
    state: ReservationState,
    charged_micros: int,
) -> None:
    pace.tokens, pace.fails = tokens, True
    answer = await ask(caller, stream=True)
    *_, failure, end, _ = answer.text.split("\n\n")
    assert json.loads(failure.removeprefix("data: "))["error"]["code"] == "upstream_failed"
    assert end == f": charged_micros={charged_micros}"

    reservation = await the_reservation(client)
    assert reservation.state is state
    assert reservation.captured_micros == charged_micros


@pytest.mark.parametrize(
    ("upstream_status", "status_code", "code"),
    [(429, 429, "slow_down"), (500, 500, "slow_down"), (401, 502, "upstream_failed")],
)
async def test_a_refusal_of_the_upstream_is_passed_on_and_costs_nothing(
    offered: Settings,
    client: meterhold.AsyncClient,
    upstream_status: int,
    status_code: int,
    code: str,
) -> None:
    error = {"error": {"message": "not now", "code": "slow_down"}}
    refusing = JSONResponse(error, upstream_status, {"retry-after": "7"})
    async with proxy_before(refusing, offered, client) as proxy, calling(proxy) as caller:
        answer = await ask(caller, stream=True)
    assert answer.status_code == status_code
    assert answer.json()["error"]["code"] == code
    assert (await the_reservation(client)).state is ReservationState.RELEASED


async def test_tokens_beyond_the_worst_case_are_charged_even_into_debt(
    offered: Settings, client: meterhold.AsyncClient
) -> None:
    usage = {"prompt_tokens": 4, "completion_tokens": 200_000}
    excessive = JSONResponse({"choices": [], "usage": usage})
    async with proxy_before(excessive, offered, client) as proxy, calling(proxy) as caller:
        answer = await ask(caller)
    assert answer.headers["x-charged-micros"] == "2000010"
    assert (await client.balance(ACCOUNT)).available_micros == GRANTED_MICROS - 2_000_010


async def test_an_upstream_that_is_down_is_a_502_and_costs_nothing(
    offered: Settings, client: meterhold.AsyncClient, unused_address: str
) -> None:
    async with (
        httpx.AsyncClient(base_url=f"http://{unused_address}") as upstream,
        calling(create_app(offered, client, upstream)) as caller,
    ):
        answer = await ask(caller)
    assert answer.status_code == 502
    assert (await the_reservation(client)).state is ReservationState.RELEASED


async def test_too_few_credits_are_a_402_that_says_how_many_it_takes(
    caller: httpx.AsyncClient, client: meterhold.AsyncClient
) -> None:
    await client.debit(ACCOUNT, GRANTED_MICROS - 100, request_id="spent")
    answer = await ask(caller, stream=True)
    assert answer.status_code == 402
    error = answer.json()["error"]
    assert error["type"] == "insufficient_quota"
    assert error["code"] == "insufficient_credits"
    assert error["available_micros"] == 100
    assert error["required_micros"] > 100
    assert (await client.balance(ACCOUNT)).available_micros == 100


async def test_without_meterhold_nothing_is_served(
    offered: Settings, upstream: httpx.AsyncClient, unused_address: str
) -> None:
    async with (
        meterhold.AsyncClient(unused_address, timeout_seconds=0.2) as nobody,
        calling(create_app(offered, nobody, upstream)) as caller,
    ):
        answer = await ask(caller, stream=True)
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) >= 1
    assert answer.json()["error"]["code"] == "metering_unavailable"


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_is_delivered_though_its_settle_cannot_be(
    offered: Settings,
    upstream: httpx.AsyncClient,
    pace: Pace,
    database_url: str,
    stream: bool,
) -> None:
    pace.tokens = 5
    async with AsyncExitStack() as running:
        address = await running.enter_async_context(service(database_url))
        async with (
            meterhold.AsyncClient(address, timeout_seconds=0.5) as impatient,
            calling(create_app(offered, impatient, upstream)) as caller,
        ):
            asking = asyncio.create_task(ask(caller, stream=stream))
            await pace.waiting.acquire()
            await running.aclose()
            pace.go.set()
            answer = await asking
    assert answer.status_code == 200
    told = answer.text if stream else answer.headers["x-charged-micros"]
    assert "110" in told


@pytest.mark.parametrize("authorization", ["", "Bearer sk-nobody", f"Basic {TOKEN}"])
async def test_a_caller_without_an_account_is_a_401(
    caller: httpx.AsyncClient, client: meterhold.AsyncClient, authorization: str
) -> None:
    caller.headers["authorization"] = authorization
    assert (await ask(caller)).status_code == 401
    assert [reservation async for reservation in client.list_reservations(ACCOUNT)] == []


async def test_credits_for_six_of_twenty_admit_six(
    caller: httpx.AsyncClient, client: meterhold.AsyncClient, offered: Settings, pace: Pace
) -> None:
    worst_case_micros = parse(json.dumps(request(stream=True)).encode(), offered).worst_case_micros
    await client.debit(ACCOUNT, GRANTED_MICROS - 6 * worst_case_micros, request_id="spent")
    pace.tokens = 0
    asking = [asyncio.create_task(ask(caller, stream=True)) for _ in range(20)]
    answers = []
    for answered in asyncio.as_completed(asking):
        answers.append((await answered).status_code)
        if answers.count(402) == 14:
            pace.go.set()
    assert answers == [402] * 14 + [200] * 6
    balance = await client.balance(ACCOUNT)
    assert balance.available_micros == 6 * (worst_case_micros - 110)
