"""What an answer has cost so far: exact once the upstream has told, until then an estimate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import meterhold
from examples.llm_proxy.chat import Chat
from examples.llm_proxy.prices import Tokens

# OpenAI's rule of thumb for English: https://help.openai.com/en/articles/4936856
_BYTES_PER_TOKEN = 4


class Meter:
    """Counts one answer, whole or in chunks.

    The upstream tells the tokens with its last chunk. A stream that is cut before has only shown
    its text, so that what was produced is estimated from that, and the prompt from its own.
    """

    def __init__(self, chat: Chat) -> None:
        self._chat = chat
        self._reported: Tokens | None = None
        self._accepted = False
        self._failed = False
        self._produced_bytes = 0
        self._stop_reason = ""

    def accepted(self) -> None:
        """The upstream has taken the request: from here on the prompt is paid for."""
        self._accepted = True

    def failed(self) -> None:
        """The upstream gave up. What it did not begin to answer costs nothing."""
        self._failed = True

    def see(self, answer: Mapping[str, Any]) -> None:
        """Count a chunk of a streamed answer, or a whole one."""
        if "error" in answer:
            self._failed = True
        for choice in answer.get("choices") or ():
            message = choice.get("delta") or choice.get("message") or {}
            self._produced_bytes += sum(len(text.encode()) for text in _produced(message))
            self._stop_reason = choice.get("finish_reason") or self._stop_reason
        if usage := answer.get("usage"):
            self._reported = _reported(usage)

    @property
    def cost_micros(self) -> int:
        """The price of what has been produced."""
        return self._chat.model.cost_micros(self._tokens)

    @property
    def usage(self) -> meterhold.Usage:
        """What is stored with the charge."""
        tokens = self._tokens
        return meterhold.Usage(
            provider=self._chat.model.provider,
            model=self._chat.model.name,
            input_tokens=tokens.input,
            cache_read_tokens=tokens.cached_input,
            output_tokens=tokens.output,
            stop_reason=self._stop_reason,
        )

    @property
    def _tokens(self) -> Tokens:
        if self._reported is not None:
            return self._reported
        if not self._accepted or (self._failed and not self._produced_bytes):
            return Tokens()
        return Tokens(
            input=_estimate(self._chat.prompt_bytes), output=_estimate(self._produced_bytes)
        )


def _estimate(text_bytes: int) -> int:
    return -(-text_bytes // _BYTES_PER_TOKEN)


def _reported(usage: Mapping[str, Any]) -> Tokens:
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    return Tokens(usage["prompt_tokens"] - cached, cached, usage["completion_tokens"])


def _produced(message: Mapping[str, Any]) -> Iterator[str]:
    for field in ("content", "refusal", "reasoning_content"):
        yield message.get(field) or ""
    for call in message.get("tool_calls") or ():
        function = call.get("function") or {}
        yield function.get("name") or ""
        yield function.get("arguments") or ""
