"""A chat completion as it was asked for, and the most that it can cost."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from examples.llm_proxy import prompt
from examples.llm_proxy.prices import Model, Tokens
from examples.llm_proxy.refusals import Refusal
from examples.llm_proxy.settings import Settings

_LIMITS = ("max_completion_tokens", "max_tokens")

# A field that is not known here could cost what was not reserved (`n`, `service_tier`, audio).
_FIELDS = frozenset(
    {"model", "messages", "stream", "stream_options", "temperature", "top_p", "stop", "seed"}
    | {"frequency_penalty", "presence_penalty", "logit_bias", "reasoning_effort", "user"}
    | {"tools", "tool_choice", "parallel_tool_calls", "response_format", *_LIMITS}
)
_WITH_USAGE = {"include_usage": True}


@dataclass(frozen=True, slots=True)
class Chat:
    """A request that may be served. `body` is the JSON that goes upstream."""

    model: Model
    body: bytes
    stream: bool
    wants_usage: bool
    prompt_bytes: int
    worst_case: Tokens

    @property
    def worst_case_micros(self) -> int:
        """What has to be on hold before the work may begin, 1 or more."""
        return max(1, self.model.cost_micros(self.worst_case))


def parse(raw: bytes, settings: Settings) -> Chat:
    """Read a request body. Raises `Refusal` for what cannot be bounded or is not for sale.

    A token stands for at least one byte, so that a prompt never has more tokens than bytes. Taken
    of the whole body, that also covers the few tokens that a chat template adds to each message.
    """
    try:
        body = json.loads(raw.decode())
        return _bounded(body if isinstance(body, dict) else {}, settings)
    except ValueError as error:  # no JSON, or half a surrogate pair in it
        raise Refusal(400, f"the body is not JSON: {error}") from None


def _bounded(body: dict[str, Any], settings: Settings) -> Chat:
    if unknown := body.keys() - _FIELDS:
        raise Refusal(400, f"not supported here: {', '.join(sorted(unknown))}")
    model = settings.models.get(str(body.get("model")))
    if model is None:
        known = ", ".join(settings.models)
        raise Refusal(404, f"model must be one of {known}", code="model_not_found")
    prompt_bytes = sum(len(text.encode()) for text in prompt.texts(body))
    output_tokens = _limit_output(body, settings.max_output_tokens)
    wants_usage = body.get("stream_options") == _WITH_USAGE
    if body.get("stream"):
        body["stream_options"] = _WITH_USAGE
    written = json.dumps(body, ensure_ascii=False).encode()
    return Chat(
        model=model,
        body=written,
        stream=bool(body.get("stream")),
        wants_usage=wants_usage,
        prompt_bytes=prompt_bytes,
        worst_case=Tokens(input=len(written), output=output_tokens),
    )


def _limit_output(body: dict[str, Any], most: int) -> int:
    """How many tokens the answer may have; writes the limit into a body that has none."""
    asked = [body[limit] for limit in _LIMITS if body.get(limit) is not None]
    if not asked:
        # The older of the two names, which every server of this protocol knows.
        body["max_tokens"] = most
        return most
    for tokens in asked:
        if type(tokens) is not int or not 1 <= tokens <= most:
            raise Refusal(400, f"max_tokens must be a whole number from 1 to {most}, not {tokens}")
    return int(max(asked))
