"""Large ledgers, loaded in bulk past the service, and consistent by construction."""

from __future__ import annotations

from typing import Any, Final

import psycopg

ENTRIES_OF_ACCOUNT: Final = 100

_GRANTED: Final = 10**12
_CHARGED: Final = 1000

# Each account has one grant, and then charges of the same amount: of four, two are debits of which
# one has a key, one is a capture, and one is a debit by a key of the namespace. Entries are written
# in the order of time, so that those of an account lie far apart, as in life.
_STATEMENTS: Final = (
    """
    INSERT INTO account (
        account_id, namespace, account, unit, seq, granted_micros, spent_micros, expired_micros,
        revoked_micros, refunded_micros, held_micros, held_on_credit_micros, lots_available_micros,
        debt_micros, credit_limit_micros, holds_use_credit, next_expire_time, create_time
    )
    SELECT md5(n::text)::uuid, 'default', 'user-' || n, 'credits', %(each)s, %(granted)s,
           %(spent)s, 0, 0, 0, 0, 0, %(granted)s - %(spent)s, 0, 0, false, NULL, now()
    FROM generate_series(1, %(accounts)s) n
    """,
    """
    INSERT INTO lot (
        account_id, seq, granted_micros, available_micros, held_micros, live, priority, category,
        expire_time, create_time, idempotency_key
    )
    SELECT account_id, 1, %(granted)s, %(granted)s - %(spent)s, 0, true, 50, 'PAID', NULL, now(),
           'gift-' || account
    FROM account
    """,
    """
    INSERT INTO entry (
        account_id, seq, kind, amount_micros, remaining_after_micros, create_time, reservation_id,
        key, related_seq, parts, labels, usage
    )
    SELECT account_id, seq,
           CASE WHEN seq = 1 THEN 'GRANT' WHEN seq %% 4 = 2 THEN 'CAPTURE' ELSE 'DEBIT' END,
           CASE WHEN seq = 1 THEN %(granted)s ELSE -%(charged)s END,
           %(granted)s - %(charged)s * (seq - 1), now() + seq * interval '1 s',
           CASE WHEN seq %% 4 = 2 THEN 'job-' || seq END,
           CASE WHEN seq = 1 THEN 'gift-' || account WHEN seq %% 4 = 3 THEN 'request-' || seq
                WHEN seq %% 4 = 0 THEN 'fee-' || account || '-' || seq END,
           NULL,
           jsonb_build_array(jsonb_build_array(
               1, CASE WHEN seq = 1 THEN %(granted)s ELSE %(charged)s END)),
           jsonb_build_object('key', 'key-' || seq %% 20, 'run', 'run-' || seq / 100),
           jsonb_build_object('provider', 'acme', 'model', 'model-' || seq %% 7)
    FROM generate_series(1, %(each)s) AS seq
    CROSS JOIN (SELECT account_id, account FROM account) a
    """,
    """
    INSERT INTO reservation
    SELECT account_id, 'job-' || seq, 'SETTLED', %(charged)s, 0, 0, %(charged)s, %(charged)s, 0, 0,
           0, '[]', 'RELEASE', false, 900000000, now(), now(), now(), '[{}, {}]', '[{}, {}]', NULL,
           NULL
    FROM generate_series(2, %(each)s, 4) AS seq
    CROSS JOIN (SELECT account_id FROM account) a
    """,
    """
    INSERT INTO claim
    SELECT 'default', CASE WHEN seq = 1 THEN 'GRANT_ONCE' ELSE 'DEBIT_ONCE' END, key, account_id,
           seq, '{}', '{}', now()
    FROM entry WHERE seq = 1 OR seq %% 4 = 0
    """,
    """
    INSERT INTO account_claim
    SELECT account_id, 'DEBIT', key, seq, '{}', '{}', now() FROM entry WHERE seq %% 4 = 3
    """,
)


def load_ledger(
    connection: psycopg.Connection[Any], entries: int, each: int = ENTRIES_OF_ACCOUNT
) -> int:
    """Fill an empty, migrated database with accounts of `each` entries, at least `entries` in all.

    Answers how many there are. The connection must be the owner's, in autocommit mode.
    """
    accounts = -(-entries // each)
    values = {
        "accounts": accounts,
        "each": each,
        "granted": _GRANTED,
        "charged": _CHARGED,
        "spent": _CHARGED * (each - 1),
    }
    # Nothing of a benchmark has to survive a crash.
    connection.execute("SET synchronous_commit = off")
    for statement in _STATEMENTS:
        connection.execute(statement.encode(), values)
    connection.execute("VACUUM (ANALYZE)")
    return accounts * each
