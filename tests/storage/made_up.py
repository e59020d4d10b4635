"""Ledgers that nobody has written call by call: many entries over many months, at random."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

import psycopg
from psycopg.types.json import Jsonb

from meterhold_server.core.model import AccountKey, EntryKind, account_id_of

START: Final = datetime(2025, 12, 20, 22, 30, tzinfo=UTC)
"""So that the first months are of two years, and a week is in both."""

_POSITIVE: Final = frozenset(
    {EntryKind.GRANT, EntryKind.REFUND, EntryKind.ALLOWANCE, EntryKind.REINSTATEMENT}
)
_KINDS: Final = [*EntryKind, *[EntryKind.DEBIT] * 20, *[EntryKind.CAPTURE] * 15]
_PAUSES: Final = (
    *(timedelta(seconds=seconds) for seconds in (0, 0, 1, 59, 600)),
    *(timedelta(hours=hours) for hours in (1, 5, 23, 24 * 5)),
)


class Row(NamedTuple):
    """An entry, and what of it has been given back."""

    account: AccountKey
    seq: int
    kind: EntryKind
    amount_micros: int
    create_time: datetime
    labels: dict[str, str] | None
    usage: dict[str, Any] | None
    refunded_micros: int


def ledger(
    chance: random.Random, key: AccountKey, count: int, *, clock_steps: bool = True
) -> list[Row]:
    """`count` entries of an account. Time passes at random, and is now and then set back."""
    now, rows = START, list[Row]()
    for seq in range(1, count + 1):
        kind = chance.choice(_KINDS)
        micros = chance.choice([1, 5, 5, 10, 10**15])
        rows.append(
            Row(
                key,
                seq,
                kind,
                micros if kind in _POSITIVE else -micros,
                now,
                _labels(chance),
                _usage(chance),
                chance.randint(1, micros) if chance.random() < 0.2 else 0,
            )
        )
        now += chance.choice(_PAUSES)
        if clock_steps and chance.random() < 0.03:
            # Set right again with the next entry at the latest: no two steps add up.
            rows[-1] = rows[-1]._replace(create_time=rows[-1].create_time - timedelta(minutes=59))
    return rows


def regular(key: AccountKey, count: int) -> list[Row]:
    """Debits of 1 to 10 at one time. The label `key` has two values, and `run` one for each."""
    [template] = ledger(random.Random(1), key, 1)
    debit = template._replace(kind=EntryKind.DEBIT, create_time=START, refunded_micros=0)
    return [
        debit._replace(
            seq=seq,
            amount_micros=-(seq % 10 + 1),
            labels={"key": f"key-{seq % 2}", "run": f"run-{seq}"},
            usage={"model": "large", "provider": "acme"},
        )
        for seq in range(1, count + 1)
    ]


def store(url: str, rows: Sequence[Row], **totals: int) -> None:
    """Write them, and the accounts that they are of, as their owner; `totals` of each account."""
    seqs: dict[AccountKey, int] = {}
    for row in rows:
        seqs[row.account] = max(row.seq, seqs.get(row.account, 0))
    with psycopg.connect(url) as connection, connection.cursor() as cursor:
        for key, seq in seqs.items():
            store_account(connection, key, seq, **totals)
        cursor.executemany(
            "INSERT INTO entry (account_id, seq, kind, amount_micros, remaining_after_micros,"
            " create_time, parts, labels, usage) VALUES (%s, %s, %s, %s, 0, %s, '[]', %s, %s)",
            [
                (
                    account_id_of(row.account),
                    row.seq,
                    row.kind.value,
                    row.amount_micros,
                    row.create_time,
                    Jsonb(row.labels) if row.labels else None,
                    Jsonb(row.usage) if row.usage else None,
                )
                for row in rows
            ],
        )
        cursor.executemany(
            "INSERT INTO charge_refund VALUES (%s, %s, %s)",
            [
                (account_id_of(row.account), row.seq, row.refunded_micros)
                for row in rows
                if row.refunded_micros
            ],
        )


def store_account(
    connection: psycopg.Connection[Any], key: AccountKey, seq: int = 0, **totals: int
) -> None:
    """An account of these totals, to which its remaining credits are fitted."""
    numbers = dict.fromkeys(
        ("granted", "spent", "expired", "revoked", "refunded", "held", "debt", "pending"), 0
    )
    numbers |= totals
    remaining = numbers["granted"] + numbers["refunded"]
    remaining -= numbers["spent"] + numbers["expired"] + numbers["revoked"]
    row = {
        "account_id": account_id_of(key),
        **key._asdict(),
        "seq": seq,
        **{f"{name}_micros": value for name, value in numbers.items()},
        "lots_available_micros": remaining - numbers["held"] + numbers["debt"],
        "held_on_credit_micros": 0,
        "credit_limit_micros": 0,
        "holds_use_credit": False,
        "create_time": START,
    }
    names, slots = ", ".join(row), ", ".join(f"%({name})s" for name in row)
    connection.execute(f"INSERT INTO account ({names}) VALUES ({slots})".encode(), row)


def _labels(chance: random.Random) -> dict[str, str] | None:
    possible = {"key": ["a", "b", "é"], "run": ["7", ""], "we'ird %(x)s": ["1"]}
    found = {key: chance.choice(v) for key, v in possible.items() if chance.random() < 0.6}
    return found or None


def _usage(chance: random.Random) -> dict[str, Any] | None:
    possible: dict[str, list[Any]] = {
        "model": ["large", "small", "Small"],
        "provider": ["acme"],
        "input_tokens": [7],
    }
    found = {key: chance.choice(v) for key, v in possible.items() if chance.random() < 0.7}
    return found or None
