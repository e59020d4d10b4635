"""What a fault is to whoever does it."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress

from chaos.plan import Fault

Hit = Callable[[random.Random], Awaitable[bool]]
"""Does a fault, and undoes it. Answers whether it was done."""

Hits = Mapping[Fault, Hit]


async def frozen(pid: int, seconds: float) -> None:
    """Stop a process for so long."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            os.kill(pid, signal.SIGCONT)
