"""The one place where a test waits for something that sends it no signal."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable

_SECONDS_BETWEEN_LOOKS = 0.005


async def until(condition: Callable[[], object], *, seconds: float = 10.0) -> None:
    """Look until `condition` holds. Fails after `seconds`: how fast it came is not what is tested.

    A condition that answers an awaitable is awaited. What runs in this event loop, and in other
    threads, goes on meanwhile.
    """
    deadline = time.monotonic() + seconds
    while not await _holds(condition):
        if time.monotonic() > deadline:
            raise AssertionError(f"not so within {seconds} s: {condition}")
        await asyncio.sleep(_SECONDS_BETWEEN_LOOKS)


async def _holds(condition: Callable[[], object]) -> object:
    found = condition()
    return await found if inspect.isawaitable(found) else found
