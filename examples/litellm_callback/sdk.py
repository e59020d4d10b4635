"""LiteLLM in your own process: no callback is needed, the block around the call does it.

A callback could not do it either: a stream that its reader drops calls no hook of LiteLLM's SDK
(`CustomStreamWrapper.aclose`).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import litellm

import meterhold

from . import tokens

MAX_OUTPUT_TOKENS = 4096


async def stream(
    client: meterhold.AsyncClient, account: str, **request: Any
) -> AsyncGenerator[Any, None]:
    """Yield the chunks of a chat completion, paid for by `account`.

    Close it (`contextlib.aclosing`) when you stop early, so that it is settled then.
    """
    model = request["model"]
    worst_case = tokens.worst_case(request, MAX_OUTPUT_TOKENS)
    async with client.hold(
        account,
        max(1, tokens.price_micros(model, worst_case)),
        overage=meterhold.Overage.OVERDRAFT,
        labels={"model": model},
    ) as hold:
        answer: Any = await litellm.acompletion(**request, stream=True)
        counter = tokens.Counter(request)
        try:
            async with aclosing(answer):
                async for chunk in answer:
                    counter.see(chunk)
                    yield chunk
        except Exception:
            counter.failed = True
            raise
        finally:
            if usage := counter.usage():
                hold.charge(tokens.price_micros(model, usage), usage=tokens.stored(model, usage))
