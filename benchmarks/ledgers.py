"""Large ledgers, loaded in bulk past the service, and consistent by construction."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final, NamedTuple

import psycopg

from meterhold_server.core.model import AMOUNT_MICROS_MAX, AccountKey, account_id_of

NAMESPACE: Final = "default"
UNIT: Final = "credits"

_CHARGED: Final = 1000
_HELD: Final = 1000

Connection = psycopg.Connection[Any]


class Accounts(NamedTuple):
    """`accounts` accounts `prefix`0, `prefix`1 …, each with so many entries.

    The first entry is a grant, and the others are charges: of four, two are debits of which one has
    a key, one is a capture, and one is a debit by a key of the namespace. With `holds_last` each
    account has a hold, too, which expires so long after it was loaded.
    """

    prefix: str
    accounts: int
    entries: int
    holds_last: timedelta | None = None


_NAMES: Final = "CREATE TEMPORARY TABLE named (account_id uuid, account text, number bigint)"

# Entries are written in the order of time, so that those of an account lie far apart, as in life.
_STATEMENTS: Final = (
    """
    INSERT INTO account (
        account_id, namespace, account, unit, seq, granted_micros, spent_micros, expired_micros,
        revoked_micros, refunded_micros, held_micros, held_on_credit_micros, lots_available_micros,
        debt_micros, credit_limit_micros, holds_use_credit, next_expire_time, create_time
    )
    SELECT account_id, %(namespace)s, account, %(unit)s, %(each)s, %(granted)s, %(spent)s, 0, 0, 0,
           0, 0, %(granted)s - %(spent)s, 0, 0, false, NULL, now()
    FROM named
    """,
    """
    INSERT INTO lot (
        account_id, seq, granted_micros, available_micros, held_micros, live, priority, category,
        expire_time, create_time, idempotency_key
    )
    SELECT account_id, 1, %(granted)s, %(granted)s - %(spent)s, 0, true, 50, 'PAID', NULL, now(),
           'gift-' || account
    FROM named
    """,
    """
    INSERT INTO entry (
        account_id, seq, kind, amount_micros, remaining_after_micros, create_time, reservation_id,
        key, related_seq, parts, labels, usage
    )
    SELECT account_id, seq,
           CASE WHEN seq = 1 THEN 'GRANT' WHEN seq %% 4 = 2 THEN 'CAPTURE' ELSE 'DEBIT' END,
           CASE WHEN seq = 1 THEN %(granted)s ELSE -%(charged)s END,
           %(granted)s - %(charged)s * (seq - 1), now() + seq * interval '1 ms',
           CASE WHEN seq %% 4 = 2 THEN 'job-' || seq END,
           CASE WHEN seq = 1 THEN 'gift-' || account WHEN seq %% 4 = 3 THEN 'request-' || seq
                WHEN seq %% 4 = 0 THEN 'fee-' || account || '-' || seq END,
           NULL,
           jsonb_build_array(jsonb_build_array(
               1, CASE WHEN seq = 1 THEN %(granted)s ELSE %(charged)s END)),
           jsonb_build_object('key', 'key-' || seq %% 20, 'run', 'run-' || seq / 100),
           jsonb_build_object('provider', 'acme', 'model', 'model-' || seq %% 7)
    FROM generate_series(1, %(each)s::bigint) AS seq
    CROSS JOIN named
    """,
    """
    INSERT INTO reservation
    SELECT account_id, 'job-' || seq, 'SETTLED', %(charged)s, 0, 0, %(charged)s, %(charged)s, 0, 0,
           0, '[]', 'RELEASE', false, 900000000, now(), now(), now(),
           '[{"ttl": "900s", "on_expiry": "RELEASE", "amount_micros": 1000},
             {"balance": [2, 1000000000000000, 5000, 0, 0, 0, 1000, 0, 0, 0],
              "expire_time": "2026-01-01T00:00:00.123456+00:00", "held_micros": 1000}]',
           '[{"overage": "CAP", "amount_micros": 1000},
             {"late": false, "balance": [3, 1000000000000000, 6000, 0, 0, 0, 1000, 0, 0, 0],
              "settled": [1000, 1000, 0, 0, 0], "entry_seq": 3}]',
           NULL, NULL
    FROM generate_series(2, %(each)s::bigint, 4) AS seq
    CROSS JOIN named
    """,
    """
    INSERT INTO claim
    SELECT %(namespace)s, CASE WHEN seq = 1 THEN 'GRANT_ONCE' ELSE 'DEBIT_ONCE' END, key,
           account_id, seq,
           '{"unit": "credits", "account": "an-account", "overage": "REJECT",
             "amount_micros": 1000}',
           '{"balance": [3, 1000000000000000, 6000, 0, 0, 0, 0, 0, 0, 0]}', now()
    FROM named JOIN entry USING (account_id) WHERE seq = 1 OR seq %% 4 = 0
    """,
    """
    INSERT INTO account_claim
    SELECT account_id, 'DEBIT', key, seq, '{"overage": "REJECT", "amount_micros": 1000}',
           '{"balance": [3, 1000000000000000, 6000, 0, 0, 0, 0, 0, 0, 0]}', now()
    FROM named JOIN entry USING (account_id) WHERE seq %% 4 = 3
    """,
)

_HOLDS: Final = (
    """
    INSERT INTO reservation
    SELECT account_id, %(hold)s, 'ACTIVE', %(held)s, %(held)s, 0, 0, 0, 0, 0, 0,
           jsonb_build_array(jsonb_build_array(1, %(held)s)), 'RELEASE', false,
           900000000, now() + %(last)s + number * %(apart)s, now(), NULL,
           '[{"ttl": "900s", "on_expiry": "RELEASE", "amount_micros": 1000},
             {"balance": [2, 1000000000000000, 5000, 0, 0, 0, 1000, 0, 0, 0],
              "expire_time": "2026-01-01T00:00:00.123456+00:00", "held_micros": 1000}]',
           NULL, NULL, NULL
    FROM named
    """,
    """
    UPDATE lot SET available_micros = available_micros - %(held)s, held_micros = held_micros
           + %(held)s
    FROM named WHERE lot.account_id = named.account_id AND lot.seq = 1
    """,
    """
    UPDATE account SET held_micros = held_micros + %(held)s,
           lots_available_micros = lots_available_micros - %(held)s,
           next_expire_time = least(next_expire_time, now() + %(last)s + number * %(apart)s)
    FROM named WHERE account.account_id = named.account_id
    """,
)


def load_ledger(connection: Connection, *groups: Accounts) -> int:
    """Load accounts that are not there yet into a migrated database, and vacuum it.

    Answers how many entries were written. The connection must be a superuser's, in autocommit mode.
    """
    # Nothing of a benchmark has to survive a crash.
    connection.execute("SET synchronous_commit = off")
    for group in groups:
        charges = group.entries - 1
        values = {
            "namespace": NAMESPACE,
            "unit": UNIT,
            "each": group.entries,
            "granted": AMOUNT_MICROS_MAX,
            "charged": _CHARGED,
            "spent": _CHARGED * charges,
        }
        with connection.transaction():
            _name(connection, group)
            for statement in _STATEMENTS:
                connection.execute(statement.encode(), values)
            if group.holds_last is not None:
                _hold(connection, "live", group.holds_last, timedelta())
            connection.execute("DROP TABLE named")
    connection.execute("VACUUM (ANALYZE)")
    connection.execute("CHECKPOINT")
    # What is counted from here on is what was done to the ledger, not its making.
    connection.execute("SELECT pg_stat_reset()")
    return sum(group.accounts * group.entries for group in groups)


def hold(
    connection: Connection, group: Accounts, name: str, *, until: timedelta, within: timedelta
) -> None:
    """Give each account of a loaded group a hold. From `until` on, they become due one by one.

    The last is due `within` so long after the first. `name` is the reservation id, which none of
    the accounts may have used.
    """
    with connection.transaction():
        _name(connection, group)
        _hold(connection, name, until, within / group.accounts)
        connection.execute("DROP TABLE named")


def _name(connection: Connection, group: Accounts) -> None:
    connection.execute(_NAMES)
    with connection.cursor().copy("COPY named FROM STDIN") as copy:
        for number in range(group.accounts):
            name = f"{group.prefix}{number}"
            copy.write_row((account_id_of(AccountKey(NAMESPACE, name, UNIT)), name, number))
    connection.execute("ANALYZE named")


def _hold(connection: Connection, hold: str, last: timedelta, apart: timedelta) -> None:
    values = {"hold": hold, "held": _HELD, "last": last, "apart": apart}
    for statement in _HOLDS:
        connection.execute(statement.encode(), values)
