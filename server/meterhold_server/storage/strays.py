"""Keys that name entries which do not exist. Only the owner of the tables may remove them."""

from __future__ import annotations

from typing import Final

from meterhold_server.storage.checks import STRAY_CLAIM
from meterhold_server.storage.exchange import Connection

_TABLES: Final = ("claim", "account_claim")


def delete_stray_claims(connection: Connection, account_id: str) -> list[str]:
    """Delete them, in the open transaction, and answer each as JSON.

    Raises psycopg.Error, if the user is not the owner too.
    """
    deleted: list[str] = []
    for table in _TABLES:
        query = (
            f"DELETE FROM {table} t WHERE t.account_id = %(account_id)s AND {STRAY_CLAIM}"
            f" RETURNING (to_jsonb(t) || jsonb_build_object('table', '{table}'))::text"
        )
        rows = connection.execute(query.encode(), {"account_id": account_id}).fetchall()
        deleted += [row[0] for row in rows]
    return deleted
