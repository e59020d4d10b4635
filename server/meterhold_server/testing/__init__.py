"""The service in memory: what `meterhold.testing.InMemory` stands on."""

from __future__ import annotations

from meterhold_server.testing.service import MemoryService

__all__ = ["MemoryService"]
