"""What happens on the lines between servers and the database."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Final

from chaos.deployment import Server
from chaos.hit import Hits
from chaos.plan import Fault
from support.proxy import Cut

_CUT_SECONDS_MAX: Final = 3.0


class LineFaults:
    """Of those of one server or the other."""

    def __init__(self, servers: Sequence[Server]) -> None:
        self._servers = servers
        self.hits: Hits = {
            Fault.COMMIT_CUT_BEFORE: partial(self._cut_commits, Cut.BEFORE),
            Fault.COMMIT_CUT_AFTER: partial(self._cut_commits, Cut.AFTER),
            Fault.COMMIT_CUT_DURING: partial(self._cut_commits, Cut.DURING),
            Fault.COMMIT_SILENT: self._silence,
            Fault.LINE_FROZEN: self._freeze,
            Fault.LINE_SLOW: self._slow,
            Fault.LINE_REFUSED: self._refuse,
        }

    async def _cut_commits(self, cut: Cut, chance: random.Random) -> bool:
        """One, or a few in a row. At times no new line comes until the lane has stopped asking."""
        server = chance.choice(self._servers)
        proxy = server.proxy
        away_seconds = chance.choice([0.0, 0.0, 0.5, 1.5, 6.0])
        async with server.line_lock:
            proxy.cut_commits(*[cut] * chance.randint(1, 3), then_refuse=away_seconds > 0)
            try:
                done = await _comes(proxy.cut)
                await asyncio.sleep(away_seconds if done else 0.0)
            finally:
                proxy.cut_commits()
                proxy.accept()
        return done

    async def _silence(self, chance: random.Random) -> bool:
        server = chance.choice(self._servers)
        proxy = server.proxy
        async with server.line_lock:
            proxy.cut_commits(Cut.SILENT)
            try:
                done = await _comes(proxy.cut)
                await asyncio.sleep(chance.uniform(0.5, 2.5))
            finally:
                proxy.cut_commits()
                proxy.refuse()
                proxy.accept()
        return done

    async def _freeze(self, chance: random.Random) -> bool:
        server = chance.choice(self._servers)
        async with server.line_lock:
            server.proxy.freeze()
            try:
                await asyncio.sleep(chance.uniform(0.3, 2.5))
            finally:
                server.proxy.thaw()
        return True

    async def _slow(self, chance: random.Random) -> bool:
        server = chance.choice(self._servers)
        async with server.line_lock:
            server.proxy.delay_seconds = chance.uniform(0.005, 0.05)
            try:
                await asyncio.sleep(chance.uniform(1.0, 3.0))
            finally:
                server.proxy.delay_seconds = 0.0
        return True

    async def _refuse(self, chance: random.Random) -> bool:
        server = chance.choice(self._servers)
        async with server.line_lock:
            server.proxy.refuse()
            try:
                await asyncio.sleep(chance.uniform(0.2, 1.5))
            finally:
                server.proxy.accept()
        return True


async def _comes(event: asyncio.Event) -> bool:
    with suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), _CUT_SECONDS_MAX)
    return event.is_set()
