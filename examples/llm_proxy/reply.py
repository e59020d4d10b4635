"""A response that is sent while it is made."""

from __future__ import annotations

from starlette.types import Send


class Reply:
    """A streamed response. `started` tells whether it is too late for another status."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.started = False

    async def start(self, headers: dict[str, str]) -> None:
        """Send the status, 200, and the headers."""
        self.started = True
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        await self._send({"type": "http.response.start", "status": 200, "headers": raw})

    async def write(self, part: bytes) -> None:
        """Send a part of the body. Waits while the client does not read."""
        await self._send({"type": "http.response.body", "body": part, "more_body": True})

    async def end(self, part: bytes) -> None:
        """Send the last part."""
        await self._send({"type": "http.response.body", "body": part})
