"""A service of the demo's own: a database that is removed at the end, and a server process."""

from __future__ import annotations

import asyncio
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, Final

from meterhold_server import app
from meterhold_server.config import EngineSettings, ServeSettings
from meterhold_server.demo import DemoError
from meterhold_server.demo.settings import DemoSettings
from meterhold_server.processes import serve_processes

_START_SECONDS_MAX: Final = 30.0
_STOP_SECONDS_MAX: Final = 30.0


@contextmanager
def fresh_database(settings: DemoSettings) -> Iterator[str]:
    """The URL of an empty database in a new folder, or of the one that is set.

    Whatever data_directory says is left alone: it may be that of a service in use.
    """
    if settings.database_url is not None:
        with app.database(settings) as url:
            yield url
        return
    folder = Path(tempfile.mkdtemp(prefix="meterhold-demo-"))
    try:
        # As root, PostgreSQL runs as another user, who has to pass through.
        folder.chmod(0o711)
        own = settings.model_copy(update={"data_directory": folder / "postgres"})
        with app.database(own) as url:
            yield url
    finally:
        shutil.rmtree(folder)


@asynccontextmanager
async def served(settings: DemoSettings, url: str) -> AsyncIterator[str]:
    """The address of a server on the database, in a process of its own, drained at the end."""
    stopping = asyncio.Event()
    address: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(
        serve_processes(_serve_settings(settings), url, stopping, announce=address.set_result)
    )
    try:
        first: set[asyncio.Future[Any]] = {serving, address}
        done, _ = await asyncio.wait(
            first, timeout=_START_SECONDS_MAX, return_when=asyncio.FIRST_COMPLETED
        )
        if not done:
            raise DemoError(f"the server has not started in {_START_SECONDS_MAX:.0f} s")
        if serving in done:
            await serving
        yield address.result()
    finally:
        stopping.set()
        await asyncio.wait({serving}, timeout=_STOP_SECONDS_MAX)
        # Does nothing to one that has ended, and frees us from one that never starts.
        serving.cancel()
        with suppress(asyncio.CancelledError):
            await serving


def _serve_settings(settings: DemoSettings) -> ServeSettings:
    """Those of the demo, and a free port on loopback whatever the environment says of the rest."""
    shared = settings.model_dump(include=set(EngineSettings.model_fields))
    return ServeSettings(
        **shared,
        address="127.0.0.1:0",
        workers=1,
        sweep=True,
        auth="none",
        tls_certificate=None,
        tls_private_key=None,
        tls_client_roots=None,
    )


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let SIGTERM end the demo as Ctrl-C does, so that neither leaves anything behind."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        signal.raise_signal(signal.SIGINT)

    # SIGINT too: a shell starts what it runs in the background with that one ignored.
    before = {
        signal.SIGINT: signal.signal(signal.SIGINT, signal.default_int_handler),
        signal.SIGTERM: signal.signal(signal.SIGTERM, interrupt),
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
