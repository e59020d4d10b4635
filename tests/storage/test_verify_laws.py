"""Two laws: SQL and the core find the same damage, and a rebuild only ever makes things better."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, event, given, note, settings
from hypothesis import strategies as st

from core.book import ALICE, START, grant
from core.strategies import ACCOUNTS, Batch, batches, in_namespace
from meterhold_server.core.invariants import differences
from meterhold_server.core.model import AccountKey, account_id_of
from meterhold_server.core.operations import Rebuild
from meterhold_server.core.outcomes import Rebuilt
from meterhold_server.storage.verify import verify, verify_account
from support import contents

from .conftest import SetClock
from .damage import unfenced
from .stored import Stored

LAW = settings(
    max_examples=100,
    deadline=None,
    print_blob=True,
    # Each example has a namespace of its own in the database that it shares with the others.
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)

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
    "lot": ("available_micros", "held_micros", "expired_micros", "repaid_micros"),
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
_changes = st.sampled_from([1, -1, 3, -7, 50, -50])
_altered = st.sampled_from(
    [(table, name) for table, names in _AMOUNTS.items() for name in names]
).flatmap(
    lambda column: _changes.map(
        lambda change: f"UPDATE {column[0]} SET {column[1]} = {column[1]} + {change}"
    )
)
_others = st.sampled_from(
    [
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
        "UPDATE entry SET reservation_id = 'job'",
        "UPDATE reservation SET parts = '[[1, 5]]'",
        "UPDATE reservation SET parts = '[]'",
    ]
)
damages = st.lists(st.tuples(st.one_of(_altered, _altered, _others), st.integers(0, 30)),
                   min_size=0, max_size=3)  # fmt: skip
"""Statements, each for one row of an account: that of the number given, counted in circles."""

_namespaces = count()


@pytest.fixture
def owner(whole: Stored) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(whole.url, autocommit=True) as connection:
        yield connection


def _live(whole: Stored, set_clock: SetClock, script: list[Batch]) -> AccountKey:
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


def _damage(
    owner: psycopg.Connection[Any], account: AccountKey, done: list[tuple[str, int]]
) -> None:
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


@pytest.mark.slow
def test_sql_and_the_core_agree_and_a_rebuild_never_harms(
    whole: Stored, owner: psycopg.Connection[Any], set_clock: SetClock
) -> None:
    connection = whole.session.connection

    @LAW
    @given(script=batches, done=damages)
    def check(script: list[Batch], done: list[tuple[str, int]]) -> None:
        account = _live(whole, set_clock, script)
        account_id = account_id_of(account)
        _damage(owner, account, done)
        state = contents.state(connection, account.namespace)
        ledger = [e for e in contents.ledger(connection, account.namespace)
                  if e.account_id == account_id]  # fmt: skip
        by_core = differences(state.accounts[account_id], ledger)
        found = verify_account(connection, account_id)
        assert found is not None
        by_sql = [each for each in found.differences if each.what != "claim"]
        note(f"SQL: {by_sql}\ncore: {by_core}")
        assert bool(by_sql) == bool(by_core)
        assert done or not by_sql, "what operations made is sound"

        (rebuilt,) = whole.do_all([Rebuild(account)])
        assert isinstance(rebuilt, Rebuilt)
        after = [e for e in contents.ledger(connection, account.namespace)
                 if e.account_id == account_id]  # fmt: skip
        assert [e for e in after if e not in rebuilt.corrections] == ledger, "history stays"
        assert bool(by_sql) or not rebuilt.corrections
        left = verify_account(connection, account_id)
        assert left is not None
        note(f"posted: {rebuilt.corrections}\nleft: {left.differences}")
        now = [each for each in left.differences if each.what != "claim"]
        event(f"damaged {bool(by_sql)}, clean after it {not now}")
        rows = contents.rows(connection, account.namespace)
        (again,) = whole.do_all([Rebuild(account)])
        assert isinstance(again, Rebuilt)
        assert not again.corrections
        assert contents.rows(connection, account.namespace) == rows, "a second rebuild does nothing"

    connection.execute("SET lock_timeout = 0")
    with unfenced(owner):
        check()
        owner.execute(
            "TRUNCATE account, lot, reservation, charge_refund, entry, claim, account_claim"
        )


@pytest.mark.slow
def test_whatever_operations_make_is_sound(whole: Stored, set_clock: SetClock) -> None:
    @LAW
    @given(script=batches)
    def check(script: list[Batch]) -> None:
        _live(whole, set_clock, script)

    check()
    found = verify(whole.url)
    assert found.violations == ()
    assert found.accounts >= 2
