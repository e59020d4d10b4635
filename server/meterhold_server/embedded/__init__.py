"""PostgreSQL from a wheel, started and kept by Meterhold when no database URL is given."""

from __future__ import annotations

from meterhold_server.embedded.errors import EmbeddedPostgresError
from meterhold_server.embedded.server import EmbeddedPostgres, default_directory

__all__ = ["EmbeddedPostgres", "EmbeddedPostgresError", "default_directory"]
