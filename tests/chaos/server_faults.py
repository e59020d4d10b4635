"""What happens to the processes of servers."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Sequence

from chaos.deployment import Server
from chaos.hit import Hits, frozen
from chaos.plan import Fault


class ServerFaults:
    """Of one server or the other."""

    def __init__(self, servers: Sequence[Server]) -> None:
        self._servers = servers
        self.hits: Hits = {
            Fault.SERVER_KILLED: self._kill,
            Fault.SERVER_DRAINED: self._drain,
            Fault.SERVER_FROZEN: self._freeze,
            Fault.CLOCK_JUMPED: self._jump_clock,
        }

    async def _kill(self, chance: random.Random) -> bool:
        server = chance.choice(self._servers)
        async with server.process_lock:
            await server.kill()
            await asyncio.sleep(chance.uniform(0.0, 0.3))
            await server.start_again()
        return True

    async def _drain(self, chance: random.Random) -> bool:
        server = chance.choice(self._servers)
        async with server.process_lock:
            await asyncio.to_thread(server.process.terminate)
            await server.start_again()
        return True

    async def _freeze(self, chance: random.Random) -> bool:
        server = chance.choice(self._servers)
        async with server.process_lock:
            await frozen(server.process.process_id, chance.uniform(0.3, 2.5))
        return True

    async def _jump_clock(self, chance: random.Random) -> bool:
        server = chance.choice(self._servers)
        async with server.process_lock:
            os.kill(server.process.process_id, signal.SIGUSR1)
        return True
