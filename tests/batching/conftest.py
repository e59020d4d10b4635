"""What the tests of lanes share: a connection beside them, and batches that are counted."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from support.engines import Observer, record_batches
from support.proxy import Proxy


@pytest.fixture
def observer(database_url: str) -> Iterator[Observer]:
    connected = Observer(database_url)
    yield connected
    connected.close()


@pytest.fixture
def batch_sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    return record_batches(monkeypatch)


@pytest.fixture
async def proxy(database_url: str) -> AsyncIterator[Proxy]:
    async with Proxy(database_url) as between:
        yield between


@pytest.fixture
def watched_closely(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the watchdog look more often than it does in earnest."""
    monkeypatch.setattr("meterhold_server.batching.engine._WATCH_SECONDS", 0.02)
