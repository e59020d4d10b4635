"""What to do when the client hangs up: stop."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from starlette.types import Receive


async def stop_on_hang_up(receive: Receive, work: Coroutine[Any, Any, None]) -> None:
    """Do the work, and cancel it once as soon as the client is gone. Waits until it has ended.

    Starlette's own StreamingResponse looks out for a hang-up only while it streams; here the time
    before the first byte counts too. The request's body must have been read.
    """
    working = asyncio.create_task(work)
    listening = asyncio.create_task(_hung_up(receive))
    listening.add_done_callback(lambda _: working.cancel())
    try:
        await working
    except asyncio.CancelledError:
        if not listening.done():
            raise
    finally:
        listening.cancel()


async def _hung_up(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
