"""How many tokens a request can take at worst, how many it took, and what they cost."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from decimal import ROUND_CEILING, Decimal
from typing import Any

import litellm

import meterhold

_PROMPT_FIELDS = ("messages", "tools", "functions", "response_format")
_LIMITS = ("max_completion_tokens", "max_tokens")


def price_micros(model: str, usage: litellm.Usage) -> int:
    """What tokens cost by LiteLLM's own price list, in micro-dollars, rounded up.

    LiteLLM calculates in floats. Their error is far below 10^-12 dollars: rounded to that first,
    the price is exact again, and rounding up to the micro adds none for nothing. Raises what
    LiteLLM raises if it knows no price of the model.
    """
    dollars = sum(litellm.cost_per_token(model=model, usage_object=usage))
    exact = round(Decimal(dollars), 12) * 1_000_000
    return int(exact.to_integral_value(ROUND_CEILING))


def worst_case(request: dict[str, Any], max_output_tokens: int) -> litellm.Usage:
    """The most tokens a request can take; writes the limit into a request that has none.

    A token stands for at least one byte. The bytes of the JSON around a prompt cover what a chat
    template adds to it; they do not cover a picture that is only linked to. Raises ValueError for
    a bound that bounds nothing, and for fallbacks to models of the caller's choice.
    """
    if request.get("fallbacks"):
        raise ValueError("fallbacks of your own have no price here")
    prompt = json.dumps([request.get(field) for field in _PROMPT_FIELDS], ensure_ascii=False)
    if all(request.get(name) is None for name in _LIMITS):
        request["max_tokens"] = max_output_tokens
    answers = _whole_number(request, "n") or 1
    return litellm.Usage(
        prompt_tokens=len(prompt.encode(errors="replace")),
        completion_tokens=answers * max(_whole_number(request, name) for name in _LIMITS),
    )


def _whole_number(request: dict[str, Any], name: str) -> int:
    number = request.get(name)
    if number is None:
        return 0
    if type(number) is not int or number < 1:
        raise ValueError(f"{name} must be a whole number, 1 or more, not {number!r}")
    return number


class Counter:
    """Counts the tokens of a streamed answer, however it ends.

    `failed` has to be set if it ended with an error.
    """

    def __init__(self, request: Mapping[str, Any]) -> None:
        """`request` has the `model` and the `messages`."""
        self._model = str(request.get("model"))
        self._messages = list(request.get("messages") or ())
        self._texts: list[str] = []
        self._told: litellm.Usage | None = None
        self.failed = False

    def see(self, chunk: Any) -> None:
        """Count a chunk."""
        self._told = getattr(chunk, "usage", None) or self._told
        for choice in getattr(chunk, "choices", None) or ():
            self._texts.extend(_texts(choice.delta))

    def usage(self) -> litellm.Usage | None:
        """The tokens as the provider told them; counted here if the stream was cut before that.

        None if it failed before it brought anything: that costs nothing.
        """
        if self._told is not None:
            return self._told
        text = "".join(self._texts)
        if self.failed and not text:
            return None
        return litellm.Usage(
            prompt_tokens=litellm.token_counter(model=self._model, messages=self._messages),
            completion_tokens=litellm.token_counter(model=self._model, text=text),
        )


def _texts(delta: Any) -> Iterator[str]:
    for field in ("content", "reasoning_content", "refusal"):
        yield getattr(delta, field, None) or ""
    for call in getattr(delta, "tool_calls", None) or ():
        yield call.function.name or ""
        yield call.function.arguments or ""


def stored(model: str, usage: litellm.Usage) -> meterhold.Usage:
    """What is stored with a charge."""
    details = usage.prompt_tokens_details
    cached_tokens = (details.cached_tokens if details else 0) or 0
    return meterhold.Usage(
        provider="litellm",
        model=model,
        input_tokens=usage.prompt_tokens - cached_tokens,
        cache_read_tokens=cached_tokens,
        output_tokens=usage.completion_tokens,
    )
