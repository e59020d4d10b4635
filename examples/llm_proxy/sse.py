"""Server-sent events, as far as chat completions use them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

DONE = b"[DONE]"


async def events(parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Cut a body into its events, each with the blank line that ends it.

    Lines are cut at line feeds only, and as bytes: `str.splitlines` also cuts at characters that
    may stand inside the JSON of a chunk, such as U+2028.
    """
    event = b""
    pending = b""
    async for part in parts:
        *lines, pending = (pending + part).split(b"\n")
        for line in lines:
            event += line.removesuffix(b"\r") + b"\n"
            if event.endswith(b"\n\n"):
                yield event
                event = b""
    if event + pending:
        yield event + pending


def chunk_of(event: bytes) -> dict[str, Any]:
    """The JSON object that an event carries; empty for comments and the closing `[DONE]`."""
    lines = (line for line in event.split(b"\n") if line.startswith(b"data:"))
    data = b"\n".join(line.removeprefix(b"data:").strip() for line in lines)
    if not data or data == DONE:
        return {}
    chunk = json.loads(data)
    return chunk if isinstance(chunk, dict) else {}
