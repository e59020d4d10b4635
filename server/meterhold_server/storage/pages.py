"""Reads: one account, one entry, and keyset pages of reservations, lots and accounts.

A page is found by the key after which it begins, never by counting: its cost does not depend on how
much came before. Reads take no locks and see one snapshot per statement.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, Final, NamedTuple

from sqlalchemy import (
    Column,
    Select,
    Table,
    and_,
    bindparam,
    cast,
    func,
    literal_column,
    select,
    text,
    tuple_,
)
from sqlalchemy import Text as SqlText
from sqlalchemy.dialects.postgresql import ARRAY

from meterhold_server.core.funds import spend_key
from meterhold_server.core.model import (
    Account,
    Allowance,
    ClaimKind,
    Defaults,
    DefaultsKey,
    Entry,
    Lot,
    PendingGrant,
    PendingState,
    Reservation,
    ReservationState,
)
from meterhold_server.core.operations import capture_key
from meterhold_server.storage.exchange import Connection
from meterhold_server.storage.rows import (
    account_from,
    allowance_from,
    defaults_from,
    entry_from,
    lot_from,
    pending_grant_from,
    reservation_from,
)
from meterhold_server.storage.statements import compiled
from meterhold_server.storage.tables import (
    PAGED_RESERVATIONS,
    account,
    account_claim,
    account_default,
    allowance,
    claim,
    entry,
    lot,
    pending_grant,
    reservation,
)

LOTS_WITH_BALANCE_MAX: Final = 1000


_AFTER_ALL: Final = "\U0010ffff"
"""Sorts after every character that a name may have."""


class AccountRead(NamedTuple):
    """An account as it stands, and the database's time at which it was read."""

    account: Account
    now: datetime


def _of(table: Table) -> Any:
    return table.c.account_id == bindparam("account_id", type_=table.c.account_id.type)


_ACCOUNT: Final = compiled(select(func.clock_timestamp(), account).where(_of(account)))
_LIVE_LOTS: Final = compiled(select(lot).where(_of(lot), lot.c.live))
_PENDING: Final = compiled(
    select(pending_grant)
    .where(_of(pending_grant), pending_grant.c.state == literal_column("'PENDING'"))
    .order_by(pending_grant.c.effective_time)
    .limit(literal_column(str(LOTS_WITH_BALANCE_MAX)))
)
_ALLOWANCES: Final = compiled(
    select(allowance).where(
        allowance.c.account_id
        == func.any(cast(bindparam("account_ids"), ARRAY(allowance.c.account_id.type)))
    )
)
_DEFAULTS: Final = compiled(
    select(account_default).where(
        account_default.c.namespace == bindparam("namespace", type_=SqlText),
        account_default.c.unit == bindparam("unit", type_=SqlText),
    )
)
_RESERVATION: Final = compiled(
    select(reservation).where(
        _of(reservation), reservation.c.reservation_id == bindparam("reservation_id", type_=SqlText)
    )
)
_ENTRY: Final = compiled(
    select(entry).where(_of(entry), entry.c.seq == bindparam("seq", type_=entry.c.seq.type))
)
# The claim of a grant that was pending names that grant, and not the entry that it has become.
_LANDED_SEQ: Final = (
    select(pending_grant.c.entry_seq)
    .where(
        pending_grant.c.account_id == claim.c.account_id,
        pending_grant.c.idempotency_key == text("claim.answer ->> 'pending_key'"),
        text(f"pending_grant.state = '{PendingState.LANDED}'"),
    )
    .scalar_subquery()
)
_ENTRY_BY_KEY: Final = compiled(
    select(entry)
    .select_from(claim)
    .join(
        entry,
        and_(
            entry.c.account_id == claim.c.account_id,
            entry.c.seq == func.coalesce(claim.c.entry_seq, _LANDED_SEQ),
        ),
    )
    .where(
        claim.c.namespace == bindparam("namespace", type_=SqlText),
        claim.c.kind == func.any(cast(bindparam("kinds"), ARRAY(SqlText))),
        claim.c.key == bindparam("key", type_=SqlText),
        _of(entry),
    )
)


_CAPTURE_SEQ: Final = compiled(
    select(account_claim.c.entry_seq).where(
        _of(account_claim),
        account_claim.c.kind == bindparam("kind", type_=SqlText),
        account_claim.c.key == bindparam("key", type_=SqlText),
    )
)


def _accounts(*, after: bool) -> str:
    """The SQL of a page of accounts, in the order of bytes: there a prefix is a range."""
    by_name = (account.c.account.collate("C"), account.c.unit.collate("C"))
    query = select(func.clock_timestamp(), account).where(
        account.c.namespace == bindparam("namespace", type_=SqlText),
        by_name[0] >= bindparam("account_prefix", type_=SqlText),
        by_name[0] < bindparam("account_prefix_end", type_=SqlText),
    )
    if after:
        start = tuple_(bindparam("account", type_=SqlText), bindparam("unit", type_=SqlText))
        query = query.where(tuple_(*by_name) > start)
    return compiled(query.order_by(*by_name).limit(bindparam("limit")))


_ACCOUNTS: Final = _accounts(after=False)
_ACCOUNTS_AFTER: Final = _accounts(after=True)


def read_account(connection: Connection, account_id: str) -> AccountRead | None:
    """One row by primary key, whatever the length of the ledger. None if there is no account."""
    row = connection.execute(_ACCOUNT, {"account_id": account_id}, prepare=True).fetchone()
    return AccountRead(account_from(row[1:]), row[0]) if row else None


def read_live_lots(connection: Connection, account_id: str) -> list[Lot]:
    """The lots with something left, in spend order, at most `LOTS_WITH_BALANCE_MAX`."""
    rows = connection.execute(_LIVE_LOTS, {"account_id": account_id}, prepare=True).fetchall()
    return sorted(map(lot_from, rows), key=spend_key)[:LOTS_WITH_BALANCE_MAX]


def read_pending_grants(connection: Connection, account_id: str) -> list[PendingGrant]:
    """The grants that are not effective yet, soonest first, at most `LOTS_WITH_BALANCE_MAX`."""
    rows = connection.execute(_PENDING, {"account_id": account_id}, prepare=True).fetchall()
    return [pending_grant_from(row) for row in rows]


def read_allowances(connection: Connection, account_ids: Sequence[str]) -> dict[str, Allowance]:
    """The allowances of accounts, of those that have had one."""
    rows = connection.execute(_ALLOWANCES, {"account_ids": list(account_ids)}).fetchall()
    return {row[0]: allowance_from(row) for row in rows}


def read_defaults(connection: Connection, key: DefaultsKey) -> Defaults | None:
    """What accounts of a unit get when they are created; None if nothing was ever set."""
    row = connection.execute(_DEFAULTS, key._asdict(), prepare=True).fetchone()
    return defaults_from(row) if row else None


def read_reservation(
    connection: Connection, account_id: str, reservation_id: str
) -> Reservation | None:
    wanted = {"account_id": account_id, "reservation_id": reservation_id}
    row = connection.execute(_RESERVATION, wanted, prepare=True).fetchone()
    return reservation_from(row) if row else None


def read_entry(connection: Connection, account_id: str, seq: int) -> Entry | None:
    wanted = {"account_id": account_id, "seq": seq}
    row = connection.execute(_ENTRY, wanted, prepare=True).fetchone()
    return entry_from(row) if row else None


def read_entry_by_key(
    connection: Connection, namespace: str, kinds: Sequence[ClaimKind], key: str, account_id: str
) -> Entry | None:
    """The entry that a key of the namespace made, as one of some kinds, if in this account.

    A grant that was pending is found once it has landed.
    """
    wanted = {
        "namespace": namespace,
        "kinds": [kind.value for kind in kinds],
        "key": key,
        "account_id": account_id,
    }
    row = connection.execute(_ENTRY_BY_KEY, wanted, prepare=True).fetchone()
    return entry_from(row) if row else None


def read_capture_seq(
    connection: Connection, account_id: str, reservation_id: str, capture_id: str
) -> int | None:
    """The entry of a capture, or of the final settle if the id is empty; None if there is none."""
    if not capture_id:
        found = read_reservation(connection, account_id, reservation_id)
        return found.settle_seq if found else None
    wanted = {
        "account_id": account_id,
        "kind": ClaimKind.CAPTURE.value,
        "key": capture_key(reservation_id, capture_id),
    }
    row = connection.execute(_CAPTURE_SEQ, wanted, prepare=True).fetchone()
    return row[0] if row else None


def page_of_reservations(
    connection: Connection,
    account_id: str,
    *,
    states: Sequence[ReservationState],
    after: tuple[datetime, str] | None,
    limit: int,
) -> list[Reservation]:
    """Up to `limit` reservations in some states (none = all), newest first."""
    key = ("create_time", "reservation_id")
    query = _page("reservation", key, "state", bool(states), True, after is not None)
    create_time, reservation_id = after or (None, None)
    wanted = {
        "account_id": account_id,
        "create_time": create_time,
        "reservation_id": reservation_id,
        "values": [state.value for state in states],
        "limit": limit,
    }
    return [reservation_from(row) for row in connection.execute(query, wanted).fetchall()]


def page_of_accounts(
    connection: Connection,
    namespace: str,
    *,
    account_prefix: str,
    after: tuple[str, str] | None,
    limit: int,
) -> list[AccountRead]:
    """Up to `limit` accounts of a namespace, by account and unit, from the one after `after` on."""
    query = _ACCOUNTS if after is None else _ACCOUNTS_AFTER
    account_name, unit = after or (None, None)
    wanted = {
        "namespace": namespace,
        "account_prefix": account_prefix,
        "account_prefix_end": account_prefix + _AFTER_ALL,
        "account": account_name,
        "unit": unit,
        "limit": limit,
    }
    rows = connection.execute(query, wanted).fetchall()
    return [AccountRead(account_from(row[1:]), row[0]) for row in rows]


def page_of_lots(
    connection: Connection,
    account_id: str,
    *,
    include_spent: bool,
    after_seq: int | None,
    limit: int,
) -> list[Lot]:
    """Up to `limit` lots, newest first; only those with something left unless `include_spent`."""
    column = None if include_spent else "live"
    query = _page("lot", ("seq",), column, False, True, after_seq is not None)
    wanted = {"account_id": account_id, "seq": after_seq, "limit": limit}
    return [lot_from(row) for row in connection.execute(query, wanted).fetchall()]


@lru_cache(maxsize=64)
def _page(
    table_name: str,
    key: tuple[str, ...],
    filtered: str | None,
    by_values: bool,
    newest_first: bool,
    after: bool,
) -> str:
    """The SQL of a page: an account's rows in key order, from a key on, by a column's values.

    A `filtered` column without values is a boolean one that must be true.
    """
    table = {"reservation": reservation, "lot": lot}[table_name]
    columns: list[Column[Any]] = [table.c[name] for name in key]
    query: Select[Any] = select(table).where(_of(table))
    if table is reservation:
        query = query.where(text(PAGED_RESERVATIONS))
    if by_values and filtered:
        values = cast(bindparam("values"), ARRAY(SqlText))
        query = query.where(table.c[filtered] == func.any(values))
    elif filtered == "live":
        query = query.where(table.c.live)
    if after:
        start = tuple_(*(bindparam(column.name, type_=column.type) for column in columns))
        here = tuple_(*columns)
        query = query.where(here < start if newest_first else here > start)
    order = [column.desc() if newest_first else column.asc() for column in columns]
    return compiled(query.order_by(*order).limit(bindparam("limit")))
