"""A stand-in for a provider of LLMs: the same tokens for everybody, and a true bill for them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import cycle, islice
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

_WORDS = "Every", "job", "holds", "what", "it", "may", "cost", "and", "pays", "what", "it", "did."
_TOKENS = tuple(f"{word} " for word in _WORDS)


class FakeUpstream:
    """Answers chat completions with `max_tokens` words, one token each.

    `before_token` is awaited with the number of each token, from 1 on, before it is made.
    """

    def __init__(self, before_token: Callable[[int], Awaitable[None]]) -> None:
        self._before_token = before_token
        self.app = Starlette(
            routes=[Route("/v1/chat/completions", self._complete, methods=["POST"])]
        )

    async def _complete(self, request: Request) -> Response:
        body = await request.json()
        if body.get("stream"):
            return StreamingResponse(self._stream(body), media_type="text/event-stream")
        text = "".join([token async for token in self._tokens(body)])
        message = {"role": "assistant", "content": text}
        return JSONResponse(_answer(body, "message", message, "length") | {"usage": _usage(body)})

    async def _tokens(self, body: dict[str, Any]) -> AsyncIterator[str]:
        for number, token in enumerate(islice(cycle(_TOKENS), _limit(body)), start=1):
            await self._before_token(number)
            yield token

    async def _stream(self, body: dict[str, Any]) -> AsyncIterator[str]:
        yield _event(_answer(body, "delta", {"role": "assistant", "content": ""}))
        async for token in self._tokens(body):
            yield _event(_answer(body, "delta", {"content": token}))
        yield _event(_answer(body, "delta", {}, "length"))
        if (body.get("stream_options") or {}).get("include_usage"):
            yield _event(_answer(body, "delta", {}) | {"choices": [], "usage": _usage(body)})
        yield "data: [DONE]\n\n"


def _limit(body: dict[str, Any]) -> int:
    return int(body.get("max_completion_tokens") or body["max_tokens"])


def _event(chunk: dict[str, Any]) -> str:
    return f"data: {json.dumps(chunk)}\n\n"


def _answer(
    body: dict[str, Any], kind: str, content: dict[str, str], finish_reason: str | None = None
) -> dict[str, Any]:
    choice = {"index": 0, kind: content, "finish_reason": finish_reason}
    return {"id": "chatcmpl-1", "created": 0, "model": body["model"], "choices": [choice]}


def _usage(body: dict[str, Any]) -> dict[str, int]:
    """One token a word, in and out."""
    words = sum(len(message["content"].split()) for message in body["messages"])
    return {
        "prompt_tokens": words,
        "completion_tokens": _limit(body),
        "total_tokens": words + _limit(body),
    }
