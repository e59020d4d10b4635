"""Accounts that lived at random, and hands that damage rows of theirs at random."""

from __future__ import annotations

import random
from itertools import count
from typing import Any

import psycopg
from hypothesis import strategies as st

from core.book import ALICE, START, grant
from core.strategies import ACCOUNTS, Batch, in_namespace
from meterhold_server.core.model import AccountKey, account_id_of

from .conftest import SetClock
from .stored import Stored

_AMOUNTS = {
    "account": (
        "seq",
        "granted_micros",
        "spent_micros",
        "expired_micros",
        "revoked_micros",
        "refunded_micros",
        "held_micros",
        "held_on_credit_micros",
        "lots_available_micros",
        "debt_micros",
    ),
    "lot": (
        "available_micros",
        "held_micros",
        "expired_micros",
        "repaid_micros",
        "revoked_micros",
        "revoked_here_micros",
    ),
    "reservation": (
        "reserved_micros",
        "open_micros",
        "on_credit_micros",
        "captured_micros",
        "from_hold_micros",
        "released_micros",
        "expiry_charged_micros",
        "expiry_charge_seq",
    ),
    "charge_refund": ("refunded_micros", "charge_seq"),
    "entry": ("amount_micros", "remaining_after_micros", "related_seq"),
}
_CHANGES = (1, -1, 3, -7, 50, -50)
_ALTERED = [
    f"UPDATE {table} SET {name} = {name} + {change}"
    for table, names in _AMOUNTS.items()
    for name in names
    for change in _CHANGES
]
_OTHERS = [
    "DELETE FROM entry",
    "DELETE FROM entry",
    "DELETE FROM lot",
    "DELETE FROM reservation",
    "DELETE FROM charge_refund",
    "UPDATE account SET next_expire_time = NULL",
    "UPDATE entry SET parts = '[[1, 5]]'",
    "UPDATE entry SET parts = '[]'",
    "UPDATE entry SET kind = 'EXPIRY', related_seq = 1",
    "UPDATE entry SET kind = 'CORRECTION'",
    "UPDATE entry SET kind = 'REFUND'",
    "UPDATE entry SET kind = 'DEBIT'",
    "UPDATE entry SET kind = 'GRANT'",
    "UPDATE entry SET kind = 'CAPTURE'",
    "UPDATE entry SET kind = 'REVOCATION'",
    """UPDATE entry SET kind = 'CORRECTION', metadata = '{"lot_seq": 1, "expired_micros": 5}'""",
    """UPDATE entry SET kind = 'CORRECTION', metadata = '{"charge_seq": [3]}'""",
    "UPDATE entry SET related_seq = 1",
    "UPDATE entry SET related_seq = NULL",
    "UPDATE entry SET reservation_id = 'job'",
    "UPDATE entry SET reservation_id = NULL",
    "UPDATE reservation SET parts = '[[1, 5]]'",
    "UPDATE reservation SET parts = '[]'",
    "UPDATE reservation SET state = 'ACTIVE'",
    "UPDATE reservation SET state = 'RELEASED'",
    "UPDATE reservation SET state = 'SETTLED'",
    "UPDATE reservation SET end_time = NULL",
    "UPDATE reservation SET closing = NULL",
]

Deeds = list[tuple[str, int]]
"""Statements, each for one row of an account: that of the number given, counted in circles."""

damages: st.SearchStrategy[Deeds] = st.lists(
    st.tuples(
        st.one_of(st.sampled_from(_ALTERED), st.sampled_from(_ALTERED), st.sampled_from(_OTHERS)),
        st.integers(0, 30),
    ),
    min_size=0,
    max_size=3,
)


def random_damages(chance: random.Random) -> Deeds:
    """Damage to one to three rows, about as often an amount as anything else."""
    return [
        (chance.choice(chance.choice([_ALTERED, _OTHERS])), chance.randrange(31))
        for _ in range(chance.randint(1, 3))
    ]


_namespaces = count()


def live_at_random(whole: Stored, set_clock: SetClock, script: list[Batch]) -> AccountKey:
    """Let the accounts of a new namespace live. Answers the one that most is about."""
    namespace = f"n{next(_namespaces)}"
    now = START
    set_clock(now)
    whole.do_all(
        [
            grant(f"first-{key.account}", 60, account=key._replace(namespace=namespace))
            for key in ACCOUNTS
        ]
    )
    for pause, batch in script:
        now += pause
        set_clock(now)
        whole.do_all([in_namespace(operation, namespace) for operation in batch])
    return ALICE._replace(namespace=namespace)


def damage(owner: psycopg.Connection[Any], account: AccountKey, done: Deeds) -> None:
    """Damage one row with each statement, if there is a row."""
    account_id = account_id_of(account)
    for statement, number in done:
        words = statement.split()
        table = words[2] if words[0] == "DELETE" else words[1]
        rows = owner.execute(
            f"SELECT ctid::text FROM {table} WHERE account_id = %s ORDER BY ctid".encode(),
            (account_id,),
        ).fetchall()
        if rows:
            row = rows[number % len(rows)][0]
            owner.execute(f"{statement} WHERE ctid = '{row}'::tid".encode())
