"""In memory every call is answered as by the real service, to the last field and the last word."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any, Final

import pytest

import meterhold
import meterhold.testing

from .calls import Asked, Caller
from .conftest import SetClock

_START: Final = datetime(2026, 1, 1, tzinfo=UTC)
_ROUNDS: Final = 18
_CALLS_OF_A_ROUND: Final = 60


@pytest.mark.slow
async def test_answers_and_refusals_are_those_of_the_real_service(
    real: meterhold.AsyncClient, set_clock: SetClock
) -> None:
    """Both get the same calls at the same times. Times in the answers are equal, too."""
    memory = meterhold.testing.InMemory(now=_START)
    set_clock(memory.now)
    seen: Counter[str] = Counter()
    for number in range(_ROUNDS):
        caller = Caller(random.Random(random.getrandbits(64)), f"round-{number}", memory.now)
        for _ in range(_CALLS_OF_A_ROUND):
            if pause := caller.pause():
                memory.advance(pause)
                set_clock(memory.now)
            asked = caller.call()
            expected = await _answer(real, asked)
            assert await _answer(memory.async_client(), asked) == expected, asked
            seen[_kind(asked, expected)] += 1
    memory.verify()
    assert len(seen) > 30, f"the calls have become monotonous: {seen}"


async def _answer(client: meterhold.AsyncClient, asked: Asked) -> Any:
    """What a call answers, a list of all items, or what it is refused with."""
    try:
        answer = getattr(client, asked.method)(**asked.arguments)
        if isinstance(answer, AsyncIterator):
            return [item async for item in answer]
        return await answer
    except meterhold.MeterholdError as error:
        return type(error), vars(error) | {"message": str(error)}


def _kind(asked: Asked, answer: Any) -> str:
    refused = isinstance(answer, tuple) and answer[1]["reason"]
    replayed = getattr(answer, "replayed", False) and "replayed"
    return f"{asked.method} {refused or replayed or 'answered'}"
