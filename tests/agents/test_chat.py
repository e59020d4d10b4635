"""What a request may cost at worst, and which requests are not served."""

from __future__ import annotations

import json
from typing import Any

import pytest

from examples.llm_proxy.chat import parse
from examples.llm_proxy.prices import Model, Tokens
from examples.llm_proxy.refusals import Refusal
from examples.llm_proxy.settings import Settings, load

HELLO = [{"role": "user", "content": "Hello"}]


def body(**fields: Any) -> bytes:
    return json.dumps({"model": "large", "messages": HELLO} | fields).encode()


@pytest.mark.parametrize(
    ("model", "tokens", "micros"),
    [
        ("large", Tokens(input=4, output=10), 110),
        ("large", Tokens(input=1), 3),
        ("large", Tokens(input=1, cached_input=1), 4),
        ("large", Tokens(), 0),
        ("small", Tokens(input=1, cached_input=1, output=1), 1),
        ("small", Tokens(input=3, output=1), 2),
        ("large", Tokens(input=10**18 + 1), 25 * 10**17 + 3),
    ],
)
def test_a_cost_is_exact_and_rounded_up_once(
    offered: Settings, model: str, tokens: Tokens, micros: int
) -> None:
    assert offered.models[model].cost_micros(tokens) == micros


@pytest.mark.parametrize(
    ("fields", "output_tokens"),
    [
        ({}, 1000),
        ({"max_tokens": 7}, 7),
        ({"max_completion_tokens": 7}, 7),
        ({"max_completion_tokens": 7, "max_tokens": 9}, 9),
        ({"max_tokens": None}, 1000),
    ],
)
def test_the_worst_case_is_a_token_a_byte_and_the_limit_of_the_answer(
    offered: Settings, fields: dict[str, Any], output_tokens: int
) -> None:
    chat = parse(body(**fields), offered)
    assert chat.worst_case == Tokens(input=len(chat.body), output=output_tokens)
    sent = json.loads(chat.body)
    assert max(sent.get("max_completion_tokens") or 0, sent.get("max_tokens") or 0) == output_tokens


def test_what_costs_nothing_still_needs_a_hold(offered: Settings) -> None:
    free = Settings(10, {"free": Model("acme", "free", 0, 0, 0)}, {})
    assert parse(body(model="free"), free).worst_case_micros == 1


def test_a_streamed_answer_is_asked_to_tell_its_tokens(offered: Settings) -> None:
    chat = parse(body(stream=True), offered)
    assert json.loads(chat.body)["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize(
    ("raw", "status_code", "word"),
    [
        (b"{", 400, "JSON"),
        (b"\xff", 400, "JSON"),
        (b"[]", 404, "model"),
        (body(model="huge"), 404, "large, small"),
        (body(messages=[]), 400, "messages"),
        (body(messages="Hello"), 400, "messages"),
        (body(messages=[{"role": "user", "content": 7}]), 400, "content"),
        (body(messages=[{"role": "user", "content": ["Hello"]}]), 400, "content"),
        (body(messages=[{"role": "user", "content": "\ud800"}]), 400, "JSON"),
        (body(messages=[{"role": "user", "audio": {"id": "a"}}]), 400, "a message has"),
        (
            body(messages=[{"role": "user", "content": [{"type": "image_url", "text": "x"}]}]),
            400,
            "parts of type text",
        ),
        (body(n=2), 400, "not supported here: n"),
        (body(service_tier="priority"), 400, "service_tier"),
        (body(max_tokens=0), 400, "from 1 to 1000, not 0"),
        (body(max_tokens=1001), 400, "not 1001"),
        (body(max_tokens=True), 400, "not True"),
        (body(max_completion_tokens="9"), 400, "max_tokens"),
    ],
)
def test_what_is_not_for_sale_or_has_no_bound_is_refused(
    offered: Settings, raw: bytes, status_code: int, word: str
) -> None:
    with pytest.raises(Refusal) as refused:
        parse(raw, offered)
    assert refused.value.response.status_code == status_code
    assert word in json.loads(bytes(refused.value.response.body))["error"]["message"]


def test_the_settings_that_come_along_can_be_loaded() -> None:
    written = load()
    assert written.account_of("Bearer sk-demo-alice") == "alice"
    assert written.account_of("Basic sk-demo-alice") is None
    assert written.models["gpt-4o-mini"].cost_micros(Tokens(input=2, output=1)) == 1
