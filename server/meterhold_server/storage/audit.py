"""The audit log, page by page."""

from __future__ import annotations

from datetime import datetime
from typing import Final, NamedTuple

from sqlalchemy import Text as SqlText
from sqlalchemy import bindparam, select, tuple_

from meterhold_server.core.audit import AuditRecord
from meterhold_server.storage.exchange import Connection
from meterhold_server.storage.statements import compiled
from meterhold_server.storage.tables import audit_record


class AuditPage(NamedTuple):
    """Records, newest first, and after which to go on; None on the last page."""

    records: list[AuditRecord]
    next_after: tuple[datetime, str] | None


def _page(*, after: bool) -> str:
    order = (audit_record.c.create_time, audit_record.c.audit_id)
    query = select(audit_record).where(
        audit_record.c.namespace == bindparam("namespace", type_=SqlText)
    )
    if after:
        start = (bindparam(column.name, type_=column.type) for column in order)
        query = query.where(tuple_(*order) < tuple_(*start))
    return compiled(query.order_by(*(column.desc() for column in order)).limit(bindparam("limit")))


_FIRST_PAGE: Final = _page(after=False)
_NEXT_PAGE: Final = _page(after=True)


def page_of_audit_records(
    connection: Connection, namespace: str, *, after: tuple[datetime, str] | None, limit: int
) -> AuditPage:
    """Up to `limit` records of a namespace, newest first, from the one after `after` on."""
    create_time, audit_id = after or (None, None)
    wanted = {
        "namespace": namespace,
        "create_time": create_time,
        "audit_id": audit_id,
        "limit": limit + 1,
    }
    found = connection.execute(_FIRST_PAGE if after is None else _NEXT_PAGE, wanted).fetchall()
    names = [column.name for column in audit_record.c]
    rows = [dict(zip(names, row, strict=True)) for row in found[:limit]]
    last = rows[-1] if len(found) > limit else None
    return AuditPage(
        [AuditRecord(**{name: row[name] for name in AuditRecord._fields}) for row in rows],
        (last["create_time"], last["audit_id"]) if last else None,
    )
