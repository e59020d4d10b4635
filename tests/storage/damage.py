"""A ledger with something of everything, and hands that may damage it past every fence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import psycopg

from core.book import (
    ALICE,
    START,
    capture,
    debit,
    debit_once,
    expire,
    grant,
    reserve,
    settle,
)
from core.strategies import BOB, HOUR, MINUTE
from meterhold_server.core.model import AccountKey, OnExpiry, Overage, account_id_of
from meterhold_server.core.operations import Configure, Operation, RefundCharge

from .conftest import SetClock
from .stored import Stored

CAROL = AccountKey("live", "carol", "credits")

ALICE_ONLY = f"WHERE account_id = '{account_id_of(ALICE)}'"

# Alice's entries, by seq: 1 GRANT 100, 2 GRANT 80 that expires, 3 CAPTURE 10, 4 CAPTURE 15,
# 5 DEBIT 5, 6 DEBIT 7, 7 REFUND 2 of entry 5, 8 EXPIRY_CHARGE 10, 9 REFUND 6 by a late settle,
# 10 EXPIRY 21 of the second lot, 11 CAPTURE 3. She is left with 97, of which 17 are held.
_LIFE: list[tuple[timedelta, list[Operation]]] = [
    (
        timedelta(),
        [
            grant("gift", 100),
            grant("promotion", 80, priority=10, expire_time=START + HOUR),
            reserve("open", 30, ttl=48 * HOUR, on_expiry=OnExpiry.CHARGE),
            capture("open", "first", 10),
            reserve("done", 20),
            settle("done", 15),
            debit_once("key", 5),
            debit(7, request_id="request"),
            RefundCharge(ALICE, "back", 5, 2),
            reserve("late", 10, ttl=MINUTE, on_expiry=OnExpiry.CHARGE),
            grant("gift-bob", 50, account=BOB),
            Configure(BOB, 100, holds_use_credit=True),
            reserve("on credit", 70, account=BOB),
            debit(20, account=BOB, overage=Overage.OVERDRAFT),
            grant("gift-carol", 100, account=CAROL),
            reserve("carol's", 5, account=CAROL),
        ],
    ),
    (2 * MINUTE, [expire(), settle("late", 4)]),
    (2 * HOUR, [expire(), capture("open", "second", 3)]),
]


def live(stored: Stored, set_clock: SetClock) -> None:
    """Let three accounts do all that accounts do."""
    now = START
    for pause, operations in _LIFE:
        now += pause
        set_clock(now)
        stored.do_all(operations)


@contextmanager
def unfenced(connection: psycopg.Connection[Any]) -> Iterator[None]:
    """Take down every constraint and trigger. In the end they come back, and all rows must fit."""
    constraints = connection.execute(
        "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint"
        " WHERE contype = 'c' AND connamespace = 'public'::regnamespace"
    ).fetchall()
    for table, name, _ in constraints:
        connection.execute(f"ALTER TABLE {table} DROP CONSTRAINT {name}".encode())
    connection.execute("ALTER TABLE entry DISABLE TRIGGER ALL")
    yield
    connection.execute("ALTER TABLE entry ENABLE ALWAYS TRIGGER entry_keeps_rows")
    connection.execute("ALTER TABLE entry ENABLE ALWAYS TRIGGER entry_keeps_all")
    for table, name, definition in constraints:
        added = f"ALTER TABLE {table} ADD CONSTRAINT {name} {definition}"
        connection.execute(added.encode())
