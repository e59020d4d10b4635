"""The texts of a prompt. What is not text is refused, because its bytes do not bound its cost."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from examples.llm_proxy.refusals import Refusal

_MESSAGE_FIELDS = frozenset({"role", "content", "name", "refusal", "tool_calls", "tool_call_id"})


def texts(body: dict[str, Any]) -> Iterator[str]:
    """All that a model has to read. Raises `Refusal` if that is more than text, or nothing."""
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise Refusal(400, "messages must be a list of at least one message")
    for message in messages:
        if not isinstance(message, dict) or message.keys() - _MESSAGE_FIELDS:
            raise Refusal(400, f"a message has {', '.join(sorted(_MESSAGE_FIELDS))}, nothing else")
        yield from _of_content(message.get("content"))
        yield _json_of(message.get("tool_calls"))
    yield _json_of(body.get("tools"))


def _of_content(content: object) -> Iterator[str]:
    match content:
        case None:
            return
        case str(text) | {"type": "text", "text": str(text)}:
            yield text
        case [*parts] if not any(isinstance(part, str | list) for part in parts):
            for part in parts:
                yield from _of_content(part)
        case _:
            raise Refusal(400, "content must be text, or a list of parts of type text")


def _json_of(value: object) -> str:
    return json.dumps(value, ensure_ascii=False) if value else ""
