"""Several server processes on one port: started, watched, restarted if they die, and drained.

Each is a fresh interpreter, as gRPC does not survive a fork, with SO_REUSEPORT: the kernel spreads
the connections. Only the first one sweeps.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Callable
from typing import Final

import structlog
from pydantic import SecretStr

from meterhold_server.config import PREFIX, ServeSettings, host_and_port

_RESTART_SECONDS: Final = 0.5
READY_LINE: Final = "ready"

_log = structlog.get_logger(__name__)


async def serve_processes(
    settings: ServeSettings,
    url: str,
    stopping: asyncio.Event,
    *,
    announce: Callable[[str], None],
) -> None:
    """Keep `settings.workers` processes serving until `stopping` is set, then let them drain."""
    host, port = host_and_port(settings.address)
    # Bound but not listening: keeps the port ours between the processes, and finds one for port 0.
    with _bound(host, port) as reserved:
        address = f"{host}:{reserved.getsockname()[1]}"
        workers = [
            _Worker(_environment(settings, url, address, sweep=settings.sweep and number == 0))
            for number in range(settings.workers)
        ]
        keepers = [asyncio.create_task(worker.keep(stopping)) for worker in workers]
        await asyncio.gather(*(worker.ready.wait() for worker in workers))
        announce(address)
        await stopping.wait()
        for worker in workers:
            worker.terminate()
        await asyncio.gather(*keepers)


class _Worker:
    def __init__(self, environment: dict[str, str]) -> None:
        self._environment = environment
        self._process: asyncio.subprocess.Process | None = None
        self.ready = asyncio.Event()

    async def keep(self, stopping: asyncio.Event) -> None:
        """Start the process, and start it again when it dies, until `stopping` is set."""
        while not stopping.is_set():
            process = self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "meterhold_server", "worker"),
                env=self._environment,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                start_new_session=True,
            )
            assert process.stdout is not None
            if READY_LINE in (await process.stdout.readline()).decode():
                self.ready.set()
            code = await process.wait()
            if not stopping.is_set():
                _log.error("worker_died", pid=process.pid, exit_code=code)
                await asyncio.sleep(_RESTART_SECONDS)

    def terminate(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    bound.bind((host, port))
    return bound


def _environment(settings: ServeSettings, url: str, address: str, *, sweep: bool) -> dict[str, str]:
    """The environment of a worker: ours, with every setting spelled out."""
    own = settings.model_copy(
        update={"address": address, "sweep": sweep, "workers": 1, "database_url": SecretStr(url)}
    )
    shown = own.model_dump(mode="json", exclude_none=True)
    shown["database_url"] = url
    return os.environ | {f"{PREFIX}{name.upper()}": str(value) for name, value in shown.items()}
