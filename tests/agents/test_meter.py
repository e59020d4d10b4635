"""What an answer has cost so far, whole, in chunks, or cut."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

import meterhold
from examples.llm_proxy import sse
from examples.llm_proxy.chat import Chat, parse
from examples.llm_proxy.meter import Meter
from examples.llm_proxy.settings import Settings

PROMPT = "How much is it?"
USAGE = {"prompt_tokens": 9, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 5}}


@pytest.fixture
def chat(offered: Settings) -> Chat:
    messages = [{"role": "user", "content": PROMPT}]
    return parse(json.dumps({"model": "large", "messages": messages}).encode(), offered)


def delta(**fields: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": fields}]}


CALL = {"function": {"name": "get", "arguments": "{'of': 1}"}}


@pytest.mark.parametrize(
    ("seen", "input_tokens", "output_tokens"),
    [
        ([], 4, 0),
        ([delta(role="assistant", content="")], 4, 0),
        ([delta(content="It "), delta(content="is ")], 4, 2),
        ([delta(content="ein Stück für fünf")], 4, 6),
        ([delta(reasoning_content="1234"), delta(refusal="12345")], 4, 3),
        ([delta(tool_calls=[CALL])], 4, 3),
        ([delta(content=None), {"choices": [], "usage": None}, {}], 4, 0),
        ([{"choices": [{"message": {"content": "12345678"}}]}], 4, 2),
    ],
)
def test_before_the_upstream_tells_four_bytes_count_as_a_token(
    chat: Chat, seen: list[dict[str, Any]], input_tokens: int, output_tokens: int
) -> None:
    meter = Meter(chat)
    meter.accepted()
    for chunk in seen:
        meter.see(chunk)
    assert meter.usage.input_tokens == input_tokens
    assert meter.usage.output_tokens == output_tokens
    assert meter.cost_micros == input_tokens * 5 // 2 + output_tokens * 10


def test_what_the_upstream_tells_is_what_counts(chat: Chat) -> None:
    meter = Meter(chat)
    meter.accepted()
    meter.see(delta(content="It is a very long answer"))
    meter.see({"choices": [{"delta": {}, "finish_reason": "stop"}]})
    meter.see({"choices": [], "usage": USAGE})
    assert meter.usage == meterhold.Usage(
        provider="acme",
        model="large",
        input_tokens=4,
        cache_read_tokens=5,
        output_tokens=3,
        stop_reason="stop",
    )
    assert meter.cost_micros == 10 + 7 + 30  # 46.25, rounded up


@pytest.mark.parametrize(
    ("accepted", "seen", "micros"),
    [
        (False, [], 0),
        (True, [], 0),
        (True, [delta(role="assistant", content="")], 0),
        (True, [delta(content="It is")], 30),
    ],
)
def test_an_upstream_that_fails_before_the_first_token_costs_nothing(
    chat: Chat, accepted: bool, seen: list[dict[str, Any]], micros: int
) -> None:
    meter = Meter(chat)
    if accepted:
        meter.accepted()
    for chunk in seen:
        meter.see(chunk)
    meter.see({"error": {"message": "overloaded"}})
    assert meter.cost_micros == micros


STREAM = 'data: {"a": "\u2028"}\r\n\r\n: ping\n\ndata: [DONE]\n\n'.encode()


@pytest.mark.parametrize("size", range(1, len(STREAM) + 1))
async def test_a_stream_is_cut_at_its_events_however_it_arrives(size: int) -> None:
    async def parts() -> AsyncIterator[bytes]:
        for start in range(0, len(STREAM), size):
            yield STREAM[start : start + size]

    events = [event async for event in sse.events(parts())]
    assert b"".join(events) == STREAM.replace(b"\r", b"")
    assert [sse.chunk_of(event) for event in events] == [{"a": "\u2028"}, {}, {}]
