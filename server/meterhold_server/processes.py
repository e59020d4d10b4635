"""Several server processes on one port: started, watched, restarted if they die, and drained.

Each is a fresh interpreter, as gRPC does not survive a fork, with SO_REUSEPORT: the kernel spreads
the connections. Only the first one sweeps, and sums charges up.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Callable
from typing import Any, Final

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
    """Keep `settings.workers` processes serving until `stopping` is set, then let them drain.

    Raises OSError if the address is taken, or if a process ends before it has ever served.
    """
    host, port = host_and_port(settings.address)
    with _reserved(host, port) as reserved:
        address = settings.address.removesuffix(str(port)) + str(reserved.getsockname()[1])
        workers = [
            _Worker(_environment(settings, url, address, in_background=number == 0))
            for number in range(settings.workers)
        ]
        keepers = [asyncio.create_task(worker.keep(stopping)) for worker in workers]
        serving = asyncio.ensure_future(asyncio.gather(*(worker.ready for worker in workers)))
        stopped = asyncio.ensure_future(stopping.wait())
        try:
            first: set[asyncio.Future[Any]] = {serving, stopped}
            await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
            if serving.done():
                serving.result()
                announce(address)
            await stopped
        finally:
            stopping.set()
            for worker in workers:
                worker.terminate()
            await asyncio.gather(*keepers)
            serving.cancel()


class _Worker:
    """A process, and then the next one in its place. `ready` fails if the first never serves."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._environment = environment
        self._process: asyncio.subprocess.Process | None = None
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()

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
            if stopping.is_set():
                self.terminate()
            await self._watch(process)
            if not stopping.is_set():
                _log.error("worker_died", pid=process.pid, exit_code=process.returncode)
                await asyncio.sleep(_RESTART_SECONDS)

    async def _watch(self, process: asyncio.subprocess.Process) -> None:
        """Wait for the process to serve, and then for its end."""
        assert process.stdout is not None
        served = READY_LINE in (await process.stdout.readline()).decode()
        if served and not self.ready.done():
            self.ready.set_result(None)
        await process.wait()
        if not self.ready.done():
            self.ready.set_exception(OSError("a server process ended before it served"))

    def terminate(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()


def _reserved(host: str, port: int) -> socket.socket:
    """A socket that is bound but never listens: keeps the port ours, and finds one for port 0."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as alone:
        # Without SO_REUSEPORT it cannot be bound while another server of ours has the port.
        alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            alone.bind((host, port))
        except OSError as error:
            raise OSError(f"cannot listen on {host}:{port}: {error.strerror}") from error
    shared = socket.socket(family, socket.SOCK_STREAM)
    shared.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    shared.bind((host, port))
    return shared


def _environment(
    settings: ServeSettings, url: str, address: str, *, in_background: bool
) -> dict[str, str]:
    """The environment of a worker: ours, with every setting spelled out.

    Only one `in_background` does what is to be done beside calls.
    """
    own = settings.model_copy(
        update={
            "address": address,
            "sweep": settings.sweep and in_background,
            "summarize": settings.summarize and in_background,
            "workers": 1,
            "database_url": SecretStr(url),
        }
    )
    shown = own.model_dump(mode="json") | {"database_url": url}
    return os.environ | {
        f"{PREFIX}{name.upper()}": "" if value is None else str(value)
        for name, value in shown.items()
    }
