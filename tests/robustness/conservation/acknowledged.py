"""What callers were told, added up, against the ledger: needs no order, and no clock of anyone.

Every entry is one that somebody was told of, with the amount that they were told; or one that
happens by itself, and then its time had come and what it is about is there.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

from meterhold_server.core.model import AccountKey
from meterhold_server.core.operations import GrantOnce, Operation, RevokeGrant
from meterhold_server.core.outcomes import (
    Debited,
    Granted,
    Outcome,
    Refunded,
    Reinstated,
    Revoked,
    Settled,
)
from robustness.conservation.comparison import Database, Row

Acknowledged = dict[AccountKey, dict[int, int]]
"""The amounts of the entries that callers were told of, by account and seq."""


def entries_told(calls: Iterable[tuple[Operation, Outcome]]) -> Acknowledged:
    """The entries that callers know of. A replay tells of the entry of the first answer."""
    known: Acknowledged = defaultdict(dict)
    for operation, outcome in calls:
        for seq, micros in _told(operation, outcome):
            known[operation.account].setdefault(seq, micros)
    return known


def unexplained(
    acknowledged: Acknowledged, unknown: Iterable[Operation], database: Database
) -> list[str]:
    """What callers were told and the ledger does not say, and what it says and nobody can know.

    A revocation that is said again tells how much is revoked, and not by which entry: one of the
    `unknown` may have an entry that nobody was told of.
    """
    revoked = {(one.account, one.grant_key) for one in unknown if isinstance(one, RevokeGrant)}
    found: list[str] = []
    for key in database.accounts:
        told, entries = acknowledged.get(key, {}), database.rows(key, "entry")
        for seq, micros in told.items():
            if seq not in entries or entries[seq]["amount_micros"] != micros:
                found.append(f"{key.account}: told of {micros} as {seq}, found {entries.get(seq)}")
        for seq in entries.keys() - told.keys():
            if entries[seq]["kind"] == "REVOCATION" and (key, entries[seq]["key"]) in revoked:
                continue
            if not _happens_by_itself(entries[seq], key, database):
                found.append(f"{key.account}: nobody was told of {entries[seq]}")
    return found


def _told(operation: Operation, outcome: Outcome) -> Iterator[tuple[int, int]]:
    match outcome:
        case Debited(entry=entry):
            yield entry.seq, entry.amount_micros
        case Granted(entry=entry) if entry is not None:
            assert isinstance(operation, GrantOnce)
            yield entry.seq, operation.amount_micros
        case Settled(entry_seq=seq) if seq:
            # Of a late settle, the expiry has charged what came from the hold.
            of_hold = 0 if outcome.late else outcome.from_hold_micros
            yield seq, -(outcome.overage_micros + of_hold)
        case Refunded(entry=entry):
            yield entry.seq, entry.amount_micros
        case Revoked(entry=entry) if entry is not None:
            yield entry.seq, -outcome.revoked_micros
        case Reinstated(entry=entry) if entry is not None:
            yield entry.seq, entry.amount_micros


def _happens_by_itself(entry: Row, key: AccountKey, database: Database) -> bool:
    """Whether an entry may be there without anybody having been told of it."""
    at: datetime = entry["create_time"]
    match entry["kind"]:
        case "EXPIRY":
            expire_time = _lot(entry, key, database).get("expire_time")
            return expire_time is not None and expire_time <= at
        case "EXPIRY_CHARGE":
            hold = database.rows(key, "reservation").get(entry["reservation_id"], {})
            charged = hold.get("expiry_charge_seq") == entry["seq"]
            return charged and bool(hold["expire_time"] <= at)
        case "ALLOWANCE":
            return len(database.rows(key, "allowance")) == 1
        case "GRANT" if entry["key"]:
            pending = database.rows(key, "pending_grant").get(entry["key"], {})
            landed = pending.get("entry_seq") == entry["seq"]
            return landed and bool(pending["effective_time"] <= at)
        case "GRANT":
            return bool(entry["reason"] == "signup" and entry["seq"] <= 2)
        case "REVOCATION":
            # Said before the grant came: taken in the moment in which it does.
            return bool(not entry["key"] and _lot(entry, key, database).get("create_time") == at)
        case "REINSTATEMENT":
            # What has expired was not to be revoked as well.
            return bool(not entry["key"] and _lot(entry, key, database).get("expired_micros"))
        case "REFUND":
            return _is_part_of_a_refund(entry, key, database)
        case _:
            return False


def _lot(entry: Row, key: AccountKey, database: Database) -> dict[str, Any]:
    return database.rows(key, "lot").get(entry["related_seq"], {})


def _is_part_of_a_refund(entry: Row, key: AccountKey, database: Database) -> bool:
    """The second half of one that had a grace time, or what a late settle gave back."""
    if entry["key"]:
        earlier = database.rows(key, "entry").values()
        return any(
            other["key"] == entry["key"] and other["seq"] < entry["seq"] for other in earlier
        )
    hold = database.rows(key, "reservation").get(entry["reservation_id"], {})
    return bool(hold.get("late") and hold["expiry_charge_seq"] == entry["related_seq"])
