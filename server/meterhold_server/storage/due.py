"""Which accounts have something to expire."""

from __future__ import annotations

from typing import Final, NamedTuple

from sqlalchemy import Integer, bindparam, func, select

from meterhold_server.core.model import AccountKey
from meterhold_server.storage.exchange import Connection
from meterhold_server.storage.statements import compiled
from meterhold_server.storage.tables import account

_DUE: Final = compiled(
    select(
        account.c.namespace,
        account.c.account,
        account.c.unit,
        func.extract("epoch", func.statement_timestamp() - account.c.next_expire_time),
    )
    .where(account.c.next_expire_time <= func.statement_timestamp())
    .order_by(account.c.next_expire_time)
    .limit(bindparam("limit", type_=Integer))
)


class DueAccount(NamedTuple):
    """An account that may have something to expire, and since how many seconds."""

    account: AccountKey
    lag_seconds: float


def due_accounts(connection: Connection, limit: int) -> list[DueAccount]:
    """Up to `limit` accounts that are due by the database's clock, longest overdue first.

    Takes no locks: another sweeper may see the same ones, and comes to do nothing then.
    """
    rows = connection.execute(_DUE, {"limit": limit}, prepare=True).fetchall()
    return [DueAccount(AccountKey(*names), float(lag)) for *names, lag in rows]
