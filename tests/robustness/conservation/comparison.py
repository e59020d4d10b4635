"""The model against the database: every number of every account, row by row."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeAlias

import psycopg
from psycopg.rows import dict_row

from meterhold_server.core.model import AccountKey
from robustness.conservation.account import Account
from robustness.conservation.purse import NEVER

Row: TypeAlias = Mapping[str, Any]
Rows: TypeAlias = dict[Any, dict[str, Any]]
"""Rows of one account by what names them in it."""

_NAMED_BY: Final = {
    "lot": "seq",
    "reservation": "reservation_id",
    "entry": "seq",
    "allowance": "period",
    "pending_grant": "idempotency_key",
    "charge_refund": "charge_seq",
}


class Database:
    """All that a database says of accounts, read past the server's own code."""

    def __init__(self, url: str) -> None:
        self.accounts: dict[AccountKey, Row] = {}
        self._rows: dict[str, dict[str, Rows]] = {name: defaultdict(dict) for name in _NAMED_BY}
        with psycopg.connect(url, row_factory=dict_row) as connection:
            connection.execute("SET TIME ZONE 'UTC'; BEGIN ISOLATION LEVEL REPEATABLE READ")
            for row in connection.execute("SELECT * FROM account"):
                self.accounts[AccountKey(row["namespace"], row["account"], row["unit"])] = row
            for name, named_by in _NAMED_BY.items():
                for row in connection.execute(f"SELECT * FROM {name}".encode()):
                    if "parts" in row:
                        row["parts"] = [part for part in row["parts"] if part[1]]
                    self._rows[name][row["account_id"]][row[named_by]] = row

    def rows(self, key: AccountKey, name: str) -> Rows:
        return self._rows[name].get(self.accounts[key]["account_id"], {})


def differences(
    accounts: Mapping[AccountKey, Account], database: Database, *, unit: str | None = None
) -> list[str]:
    """Where the two do not agree, in words. Empty if they agree on everything, or in a unit."""
    stored = {key for key in database.accounts if unit in (None, key.unit)}
    found = [
        f"{key.account}: only {'the model' if key in accounts else 'the database'} knows of it"
        for key in accounts.keys() ^ stored
    ]
    for key in accounts.keys() & stored:
        found += [f"{key.account}: {text}" for text in _of_account(key, accounts[key], database)]
    return found


def _of_account(key: AccountKey, account: Account, database: Database) -> Iterator[str]:
    row = database.accounts[key]
    yield from _differ("account", _account(account), row)
    available = row["lots_available_micros"] - row["debt_micros"] - row["held_on_credit_micros"]
    if account.available != available:
        yield f"available is {available}, and by the model {account.available}"
    if account.remaining != account.available + account.held:
        yield f"the model itself has lost something: {account.balance()}"
    for name, wanted in _children(account).items():
        rows = database.rows(key, name)
        if len(rows) != len(wanted):
            yield f"{name} has {len(rows)} rows, and by the model {len(wanted)}"
        for named, values in wanted.items():
            yield from _differ(f"{name} {named}", values, rows.get(named))


def _differ(name: str, wanted: Row, row: Row | None) -> Iterator[str]:
    if row is None:
        yield f"{name} is missing: {wanted}"
        return
    for column, value in wanted.items():
        if row[column] != value:
            yield f"{column} of {name} is {row[column]}, and by the model {value}"


def _children(account: Account) -> dict[str, Rows]:
    plan = account.plan
    return {
        "lot": _lots(account),
        "reservation": _reservations(account),
        "entry": _entries(account),
        "allowance": {}
        if plan is None
        else {
            plan.period: {
                "amount_micros": plan.micros,
                "anchor_time": plan.anchor,
                "priority": plan.priority,
                "until_time": plan.until,
                "refill_time": plan.refill,
            }
        },
        "pending_grant": {
            one.key: {
                "state": one.state,
                "amount_micros": one.micros,
                "entry_seq": one.lot.seq,
            }
            for one in account.pending.values()
        },
        "charge_refund": {
            seq: {"refunded_micros": micros} for seq, micros in account.given_back.items()
        },
    }


def _account(account: Account) -> Row:
    return {
        "seq": account.seq,
        "granted_micros": account.granted,
        "refunded_micros": account.refunded,
        "spent_micros": account.spent,
        "expired_micros": account.expired,
        "revoked_micros": account.revoked,
        "held_micros": account.held,
        "held_on_credit_micros": account.held_on_credit,
        "debt_micros": account.debt,
        "credit_limit_micros": account.limit,
        "holds_use_credit": account.holds_use_credit,
        "frozen": account.frozen,
        "pending_micros": account.pending_micros,
    }


def _lots(account: Account) -> Rows:
    return {
        lot.seq: {
            "granted_micros": lot.granted,
            "available_micros": lot.left,
            "held_micros": lot.held,
            "priority": lot.priority,
            "category": "PROMOTIONAL" if lot.promotional else "PAID",
            "expire_time": lot.expire_time if lot.expire_time != NEVER else None,
            "expired_micros": lot.expired,
            "repaid_micros": lot.repaid,
            "revoked_micros": lot.revoked,
            "revoked_here_micros": lot.revoked_here,
        }
        for lot in account.lots.values()
    }


def _reservations(account: Account) -> Rows:
    return {
        hold.reservation_id: {
            "parts": [list(part) for part in hold.parts],
            "state": hold.state,
            "reserved_micros": hold.reserved,
            "open_micros": hold.open,
            "on_credit_micros": hold.on_credit,
            "captured_micros": hold.captured,
            "from_hold_micros": hold.from_hold,
            "released_micros": hold.released,
            "expiry_charged_micros": hold.expiry_charged,
            "expiry_charge_seq": hold.expiry_charge_seq,
            "late": hold.late,
            "expire_time": hold.expire_time,
        }
        for hold in account.holds.values()
    }


def _entries(account: Account) -> Rows:
    return {
        line.seq: {
            "kind": line.kind,
            "amount_micros": line.amount_micros,
            "remaining_after_micros": line.remaining_after_micros,
            "create_time": line.create_time,
            "reservation_id": line.reservation_id or None,
            "key": line.key or None,
            "related_seq": line.related_seq or None,
            "parts": [list(part) for part in line.parts],
        }
        for line in account.ledger
    }
