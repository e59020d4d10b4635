"""The callback in a LiteLLM gateway: what its callers get, and what they are charged for it."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import litellm
import pytest
from litellm.proxy._types import ProxyException, UserAPIKeyAuth
from litellm.proxy.types_utils.utils import get_instance_fn

import meterhold
from agents.gateway import CALL_TYPE, Gateway
from examples.litellm_callback import callback as callback_module
from examples.litellm_callback import sdk, tokens
from examples.litellm_callback.callback import MeterholdCallback
from meterhold import OnExpiry, ReservationState

# LiteLLM builds this model of its own with its first call.
pytestmark = pytest.mark.filterwarnings("ignore:Item 'summary' on TypedDict:UserWarning")

ACCOUNT = "alice"
GRANTED_MICROS = 1_000_000
KEY = UserAPIKeyAuth(user_id=ACCOUNT)
ANSWER = "Hi friend, how are you"
MESSAGES = [{"role": "user", "content": "hello there"}]
PROMPT_BYTES = len(json.dumps([MESSAGES, None, None, None]))


def price(model: str, usage: litellm.Usage) -> int:
    """3 micros a token in, 15 a token out."""
    assert model == "public"
    return int(usage.prompt_tokens * 3 + usage.completion_tokens * 15)


@pytest.fixture(autouse=True)
async def granted(client: meterhold.AsyncClient) -> None:
    await client.grant_once(ACCOUNT, GRANTED_MICROS, idempotency_key="top-up")


@pytest.fixture
def callback(client: meterhold.AsyncClient) -> Iterator[MeterholdCallback]:
    registered = MeterholdCallback(price=price, max_output_tokens=100, client=client)
    litellm.callbacks = [registered]
    yield registered
    litellm.callbacks = []
    assert registered.in_flight == 0


@pytest.fixture
def gateway(callback: MeterholdCallback) -> Gateway:
    return Gateway(callback, ANSWER)


async def the_reservation(client: meterhold.AsyncClient) -> meterhold.Reservation:
    [reservation] = [reservation async for reservation in client.list_reservations(ACCOUNT)]
    return reservation


async def the_charge(client: meterhold.AsyncClient) -> meterhold.Entry:
    [entry, _] = [entry async for entry in client.list_entries(ACCOUNT)]
    return entry


async def begun(callback: MeterholdCallback, **fields: Any) -> dict[str, Any]:
    """A request that has a hold, as it goes from hook to hook."""
    data = {"model": "public", "messages": MESSAGES, "metadata": {}} | fields
    await callback.async_pre_call_hook(KEY, None, data, CALL_TYPE)
    return data


def chunk_of(text: str, **more: Any) -> litellm.ModelResponseStream:
    return litellm.ModelResponseStream(choices=[{"index": 0, "delta": {"content": text}}], **more)


async def test_an_answer_is_charged_for_its_tokens(
    gateway: Gateway, client: meterhold.AsyncClient
) -> None:
    answer = await gateway.complete(KEY, messages=MESSAGES)
    assert answer.choices[0].message.content == ANSWER
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (10, 20)

    entry = await the_charge(client)
    assert entry.amount_micros == -(10 * 3 + 20 * 15)
    assert entry.usage == meterhold.Usage(
        provider="litellm", model="public", input_tokens=10, output_tokens=20
    )
    reservation = await the_reservation(client)
    assert reservation.state is ReservationState.SETTLED
    assert reservation.on_expiry is OnExpiry.CHARGE  # the work had begun
    assert (await client.balance(ACCOUNT)).held_micros == 0


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"stream_options": {"include_usage": True}}, id="tokens told"),
        pytest.param({}, id="tokens counted"),
    ],
)
async def test_a_stream_is_charged_for_its_tokens(
    gateway: Gateway, client: meterhold.AsyncClient, options: dict[str, Any]
) -> None:
    stream = await gateway.complete(KEY, messages=MESSAGES, stream=True, **options)
    chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == ANSWER
    assert (await the_charge(client)).amount_micros == -(9 * 3 + 6 * 15)


@pytest.mark.parametrize(
    ("chunks", "text", "output_tokens"),
    [(1, "Hi ", 2), (3, "Hi friend", 2), (5, "Hi friend, how ", 5)],
)
async def test_a_stream_that_is_closed_is_charged_for_what_was_produced(
    gateway: Gateway,
    client: meterhold.AsyncClient,
    chunks: int,
    text: str,
    output_tokens: int,
) -> None:
    stream = await gateway.complete(KEY, messages=MESSAGES, stream=True)
    heard = [(await anext(stream)).choices[0].delta.content for _ in range(chunks)]
    assert "".join(heard) == text
    await stream.aclose()
    reservation = await the_reservation(client)
    assert reservation.state is ReservationState.SETTLED
    assert reservation.captured_micros == 9 * 3 + output_tokens * 15


async def test_a_stream_that_is_cancelled_is_charged_for_what_was_produced(
    address: str, client: meterhold.AsyncClient
) -> None:
    silent = asyncio.Event()

    async def answer() -> AsyncIterator[Any]:
        yield chunk_of("Hi friend")
        silent.set()
        await asyncio.Event().wait()

    async def serve(callback: MeterholdCallback) -> None:
        data = await begun(callback)
        async for _ in callback.async_post_call_streaming_iterator_hook(KEY, answer(), data):
            pass

    # The end of a client waits for settles under way. A task group cancels as Starlette does when
    # a client hangs up: again and again, until the task has ended.
    async with meterhold.AsyncClient(address) as own, anyio.create_task_group() as response:
        response.start_soon(serve, MeterholdCallback(price=price, client=own))
        await silent.wait()
        response.cancel_scope.cancel()
    reservation = await the_reservation(client)
    assert reservation.state is ReservationState.SETTLED
    assert reservation.captured_micros == 9 * 3 + 2 * 15


async def test_what_the_provider_tells_is_what_counts(
    callback: MeterholdCallback, client: meterhold.AsyncClient
) -> None:
    async def answer() -> AsyncIterator[Any]:
        yield chunk_of("Hi friend")
        yield chunk_of("", usage=litellm.Usage(prompt_tokens=100, completion_tokens=50))
        yield chunk_of("")

    data = await begun(callback)
    async for _ in callback.async_post_call_streaming_iterator_hook(KEY, answer(), data):
        pass
    assert (await the_charge(client)).amount_micros == -(100 * 3 + 50 * 15)


@pytest.mark.parametrize(
    ("text", "state", "charged_micros"),
    [("", ReservationState.RELEASED, 0), ("Hi friend", ReservationState.SETTLED, 27 + 30)],
)
async def test_a_stream_that_fails_is_charged_for_what_it_brought(
    callback: MeterholdCallback,
    client: meterhold.AsyncClient,
    text: str,
    state: ReservationState,
    charged_micros: int,
) -> None:
    async def answer() -> AsyncIterator[Any]:
        yield chunk_of(text)
        raise ConnectionAbortedError

    data = await begun(callback)
    with pytest.raises(ConnectionAbortedError):
        async for _ in callback.async_post_call_streaming_iterator_hook(KEY, answer(), data):
            pass
    reservation = await the_reservation(client)
    assert reservation.state is state
    assert reservation.captured_micros == charged_micros


async def test_a_request_that_fails_costs_nothing(
    callback: MeterholdCallback, client: meterhold.AsyncClient
) -> None:
    with pytest.raises(litellm.exceptions.InternalServerError):
        await Gateway(callback, Exception("overloaded")).complete(KEY, messages=MESSAGES)
    assert (await the_reservation(client)).state is ReservationState.RELEASED


async def test_an_answer_that_a_guardrail_withholds_is_charged(
    gateway: Gateway, client: meterhold.AsyncClient
) -> None:
    def mind(answer: object) -> None:
        raise PermissionError("not fit to be seen")

    gateway.guardrail = mind
    with pytest.raises(PermissionError):
        await gateway.complete(KEY, messages=MESSAGES)
    assert (await the_charge(client)).amount_micros == -330


@pytest.mark.parametrize(("response_cost", "charged_micros"), [(0.0, 0), (0.0001, 27)])
async def test_what_the_provider_bills_for_a_failure_is_charged(
    callback: MeterholdCallback,
    client: meterhold.AsyncClient,
    response_cost: float,
    charged_micros: int,
) -> None:
    estimated = litellm.Usage(prompt_tokens=9, completion_tokens=0)
    data = await begun(callback)
    data |= {"combined_usage_object": estimated, "response_cost": response_cost}
    await callback.async_post_call_failure_hook(data, TimeoutError(), KEY)
    assert (await the_reservation(client)).captured_micros == charged_micros


async def test_too_few_credits_are_a_402_that_says_how_many_it_takes(
    gateway: Gateway, client: meterhold.AsyncClient
) -> None:
    await client.debit(ACCOUNT, GRANTED_MICROS - 100, request_id="spent")
    with pytest.raises(ProxyException) as refused:
        await gateway.complete(KEY, messages=MESSAGES, max_tokens=7)
    answer = refused.value.to_dict()
    assert (answer["code"], answer["type"]) == ("402", "insufficient_quota")
    assert answer["provider_specific_fields"] == {
        "available_micros": 100,
        "required_micros": PROMPT_BYTES * 3 + 7 * 15,
    }


async def test_tokens_beyond_the_worst_case_are_charged_even_into_debt(
    gateway: Gateway, client: meterhold.AsyncClient
) -> None:
    worst_case_micros = PROMPT_BYTES * 3 + 15
    await client.debit(ACCOUNT, GRANTED_MICROS - worst_case_micros, request_id="spent")
    await gateway.complete(KEY, messages=MESSAGES, max_tokens=1)
    assert (await client.balance(ACCOUNT)).available_micros == worst_case_micros - 330


async def test_without_meterhold_nothing_is_served(
    callback: MeterholdCallback, unused_address: str
) -> None:
    async with meterhold.AsyncClient(unused_address, timeout_seconds=0.2) as nobody:
        lonely = MeterholdCallback(price=price, client=nobody)
        with pytest.raises(ProxyException) as refused:
            await Gateway(lonely, ANSWER).complete(KEY, messages=MESSAGES)
    assert refused.value.code == "503"
    assert refused.value.headers["retry-after"] == "1"


@pytest.mark.parametrize(
    ("key", "call_type", "request_fields", "code"),
    [
        (UserAPIKeyAuth(), CALL_TYPE, {}, "403"),
        (KEY, "aresponses", {}, "403"),
        (KEY, CALL_TYPE, {"max_tokens": -1}, "400"),
        (KEY, CALL_TYPE, {"max_completion_tokens": "9"}, "400"),
        (KEY, CALL_TYPE, {"n": 0}, "400"),
        (KEY, CALL_TYPE, {"fallbacks": ["dearer"]}, "400"),
    ],
)
async def test_what_cannot_be_metered_is_refused(
    callback: MeterholdCallback,
    key: UserAPIKeyAuth,
    call_type: str,
    request_fields: dict[str, Any],
    code: str,
) -> None:
    data = {"model": "public", "messages": MESSAGES, "metadata": {}} | request_fields
    with pytest.raises(ProxyException) as refused:
        await callback.async_pre_call_hook(key, None, data, call_type)
    assert refused.value.code == code


async def test_call_types_can_be_let_through(client: meterhold.AsyncClient) -> None:
    generous = MeterholdCallback(let_through={"amoderation"}, client=client)
    data: dict[str, Any] = {"input": "hello"}
    await generous.async_pre_call_hook(KEY, None, data, "amoderation")
    await generous.async_post_call_success_hook(data, KEY, object())
    assert [reservation async for reservation in client.list_reservations(ACCOUNT)] == []


@pytest.mark.parametrize(
    ("fields", "output_tokens"),
    [({}, 100), ({"max_tokens": 7}, 7), ({"max_completion_tokens": 7, "n": 3}, 21)],
)
async def test_the_worst_case_is_held_until_the_work_is_done(
    callback: MeterholdCallback,
    client: meterhold.AsyncClient,
    fields: dict[str, Any],
    output_tokens: int,
) -> None:
    data = await begun(callback, **fields)
    limit = data.get("max_completion_tokens") or data["max_tokens"]
    assert limit * data.get("n", 1) == output_tokens
    reservation = await the_reservation(client)
    assert reservation.held_micros == PROMPT_BYTES * 3 + output_tokens * 15
    assert reservation.on_expiry is OnExpiry.RELEASE  # no work has begun
    await callback.async_post_call_failure_hook(data, PermissionError(), KEY)


async def test_credits_for_three_of_ten_admit_three(
    callback: MeterholdCallback, client: meterhold.AsyncClient
) -> None:
    worst_case_micros = PROMPT_BYTES * 3 + 100 * 15
    await client.debit(ACCOUNT, GRANTED_MICROS - 3 * worst_case_micros, request_id="spent")
    begun_or_refused = await asyncio.gather(
        *(begun(callback) for _ in range(10)), return_exceptions=True
    )
    admitted = [data for data in begun_or_refused if isinstance(data, dict)]
    assert len(admitted) == callback.in_flight == 3
    for data in admitted:
        await callback.async_post_call_failure_hook(data, PermissionError(), KEY)


async def test_nobody_ends_the_hold_of_another(
    callback: MeterholdCallback, client: meterhold.AsyncClient
) -> None:
    victim = await begun(callback, litellm_call_id="chosen by a header")
    forged = {"litellm_call_id": "chosen by a header", "metadata": {}}
    await callback.async_post_call_failure_hook(forged, PermissionError(), KEY)
    assert (await the_reservation(client)).state is ReservationState.ACTIVE
    await callback.async_post_call_failure_hook(victim, PermissionError(), KEY)


async def test_a_request_that_no_hook_asks_for_again_is_forgotten(
    callback: MeterholdCallback, monkeypatch: pytest.MonkeyPatch
) -> None:
    await begun(callback)
    two_days = callback_module._now_seconds() + timedelta(days=2).total_seconds()
    monkeypatch.setattr(callback_module, "_now_seconds", lambda: two_days)
    data = await begun(callback)
    assert callback.in_flight == 1
    await callback.async_post_call_failure_hook(data, PermissionError(), KEY)


@pytest.mark.parametrize(
    ("usage", "micros"),
    [
        (litellm.Usage(prompt_tokens=374, completion_tokens=44), 1375),
        (litellm.Usage(prompt_tokens=1000, completion_tokens=0), 2500),
        (litellm.Usage(prompt_tokens=1, completion_tokens=0), 3),
        (litellm.Usage(prompt_tokens=0, completion_tokens=0), 0),
        (litellm.Usage(prompt_tokens=8_000_000, completion_tokens=3), 20_000_030),
        (
            litellm.Usage(
                prompt_tokens=1000,
                completion_tokens=0,
                prompt_tokens_details={"cached_tokens": 400},
            ),
            2000,
        ),
    ],
)
def test_prices_of_litellm_are_exact_micros(usage: litellm.Usage, micros: int) -> None:
    assert tokens.price_micros("gpt-4o", usage) == micros


async def test_a_model_without_a_price_is_not_served(client: meterhold.AsyncClient) -> None:
    unpriced = MeterholdCallback(client=client)
    with pytest.raises(Exception, match="unheard-of"):
        await begun(unpriced, model="unheard-of")
    assert [reservation async for reservation in client.list_reservations(ACCOUNT)] == []


def test_the_config_names_the_callback() -> None:
    config = Path(callback_module.__file__).with_name("config.yaml")
    [name] = re.findall(r"callbacks: (\S+)", config.read_text())
    assert isinstance(get_instance_fn(name, str(config)), MeterholdCallback)


async def test_the_sdk_needs_no_callback(client: meterhold.AsyncClient) -> None:
    stream = sdk.stream(
        client, ACCOUNT, model="gpt-4o", messages=MESSAGES, mock_response=ANSWER * 100
    )
    async with aclosing(stream):
        heard = [(await anext(stream)).choices[0].delta.content for _ in range(3)]
    assert "".join(heard) == "Hi friend"
    assert (await the_charge(client)).amount_micros == -(23 + 20)  # 9 × 2.5 + 2 × 10, rounded up
