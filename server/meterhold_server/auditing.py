"""The command `meterhold-server audit`: who granted, revoked, configured, made keys."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import orjson
from pydantic import Field, PositiveInt

from meterhold_server import app
from meterhold_server.config import NamespaceSettings
from meterhold_server.storage.audit import page_of_audit_records
from meterhold_server.storage.connection import connect_credentials

_PAGE_SIZE = 1000


class AuditSettings(NamespaceSettings):
    """How far back to look."""

    limit: Annotated[PositiveInt, Field(description="how many records, the newest")] = 100


def run(settings: AuditSettings) -> int:
    """Print the newest records of the audit log, each as one line of JSON, newest first."""
    left = settings.limit
    after: tuple[datetime, str] | None = None
    with app.database(settings) as url, connect_credentials(url) as connection:
        while left:
            page = page_of_audit_records(
                connection, settings.namespace, after=after, limit=min(left, _PAGE_SIZE)
            )
            for record in page.records:
                print(orjson.dumps(record._asdict()).decode())
            left -= len(page.records)
            after = page.next_after
            if after is None:
                return 0
    return 0
