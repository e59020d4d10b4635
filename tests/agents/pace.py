"""What a test lets the fake upstream do, token by token."""

from __future__ import annotations

import asyncio

UNLIMITED = 1_000_000


class Pace:
    """Awaited before each token: `tokens` pass, the next waits for `go`, or fails."""

    def __init__(self) -> None:
        self.tokens = UNLIMITED
        self.fails = False
        self.waiting = asyncio.Semaphore(0)
        self.go = asyncio.Event()
        self.cut = asyncio.Event()

    async def before_token(self, number: int) -> None:
        if number <= self.tokens:
            return
        if self.fails:
            raise ConnectionAbortedError("the upstream breaks off")
        self.waiting.release()
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cut.set()
            raise
