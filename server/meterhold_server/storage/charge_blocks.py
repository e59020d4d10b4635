"""Blocks of charges in the database: which are due, how one is summed up, which are wrong.

Entries do not change and none is written between two others, so that a block is read without
locks. A block that lacks an entry is left alone until it is repaired. Several may sum up the same
block at once: the first makes it, and the others add nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from meterhold_server.core.charge_blocks import (
    BLOCK_ENTRIES,
    NO_LABEL,
    BlockKey,
    BlockLabels,
    ChargeBlock,
    labels_to_sum,
    whole_blocks,
)
from meterhold_server.core.model import CHARGES
from meterhold_server.storage.exchange import Connection
from meterhold_server.storage.time_range import Seqs

CHARGE_KINDS: Final = ", ".join(f"'{kind}'" for kind in CHARGES)
"""The kinds of charges as a list in SQL."""

_BLOCK: Final = "account_id = %(account_id)s AND seq BETWEEN %(first_seq)s AND %(last_seq)s"
_SUMMED_BY: Final = """
    (create_time AT TIME ZONE 'UTC')::date AS day,
    coalesce(usage ->> 'model', '') AS model, coalesce(usage ->> 'provider', '') AS provider"""


def charges_by_label(block: str, labels: str) -> str:
    """The charges among the entries of `block`, which is a condition: each once for each label.

    `labels` is an array of keys in SQL; under NO_LABEL a charge has no value.
    """
    # OFFSET 0 has the planner look into the JSON of a charge once, and not once for each label.
    return f"""
    SELECT label, labels ->> label AS value, day, model, provider, charged_micros
    FROM (
        SELECT labels, {_SUMMED_BY}, -amount_micros AS charged_micros
        FROM entry WHERE {block} AND kind IN ({CHARGE_KINDS}) OFFSET 0
    ) AS charge CROSS JOIN unnest({labels}) AS label"""


# A chunk of accounts that a walk looks at: those with blocks to make, and the last one, to go on
# from. Nothing is read of the blocks of accounts that have fewer entries than the smallest.
_CHUNK: Final = """
    WITH chunk AS MATERIALIZED (
        SELECT account_id, seq, row_number() OVER (ORDER BY account_id) AS number
        FROM account WHERE account_id > %(after)s::uuid
        ORDER BY account_id LIMIT %(limit)s
    ), looked_at AS (
        SELECT account_id, seq, number,
            CASE WHEN seq < (SELECT min(size) FROM unnest(%(sizes)s::integer[]) AS size) THEN false
            ELSE (SELECT sum(seq / size) FROM unnest(%(sizes)s::integer[]) AS size) > (
                SELECT count(*) FROM charge_block b
                WHERE b.account_id = chunk.account_id AND b.entry_count = ANY(%(sizes)s)
            ) END AS is_due
        FROM chunk
    )
    SELECT account_id, seq, is_due, (SELECT count(*) FROM chunk) FROM looked_at
    WHERE is_due OR number = (SELECT count(*) FROM chunk)
    ORDER BY account_id
"""
_MADE: Final = "SELECT first_seq, entry_count FROM charge_block WHERE account_id = %(account_id)s"
_EXTENT: Final = f"""
    SELECT count(*), min(create_time), max(create_time) FROM entry WHERE {_BLOCK}"""
_SUMS_OF_LABELS: Final = f"""
    SELECT label, count(*) FROM (
        SELECT DISTINCT pair.key AS label, pair.value, {_SUMMED_BY}
        FROM entry CROSS JOIN LATERAL (
            SELECT '{NO_LABEL}' AS key, NULL AS value
            UNION ALL SELECT key, value FROM jsonb_each_text(labels)
        ) AS pair
        WHERE {_BLOCK} AND kind IN ({CHARGE_KINDS})
    ) AS sums GROUP BY label"""
_INSERT_BLOCK: Final = """
    INSERT INTO charge_block VALUES (%(account_id)s, %(first_seq)s, %(entry_count)s,
        %(first_time)s, %(last_time)s, %(summed)s, %(varied)s)
    ON CONFLICT DO NOTHING"""
_INSERT_SUMS: Final = f"""
    INSERT INTO charge_summary
    SELECT %(account_id)s, %(first_seq)s, %(entry_count)s, label, row_number() OVER (),
        value, day, model, provider, sum(charged_micros), count(*)
    FROM ({charges_by_label(_BLOCK, "%(summed)s::text[] || ARRAY['']")}) AS charges
    GROUP BY label, value, day, model, provider"""
_BLOCKS: Final = """
    SELECT account_id, first_seq, entry_count, first_time, last_time, summed_labels, varied_labels
    FROM charge_block
    WHERE account_id = %(account_id)s AND first_seq BETWEEN %(first)s AND %(last)s"""


_BEFORE_ALL: Final = "00000000-0000-0000-0000-000000000000"
"""No account has this id: each is a hash."""


class Chunk(NamedTuple):
    """Accounts with blocks to make, by id and `seq`, and the id to go on after; None = the end."""

    due: list[tuple[str, int]]
    next_after: str | None


def accounts_with_due_blocks(
    connection: Connection,
    after: str | None,
    limit: int,
    entry_counts: Iterable[int] = BLOCK_ENTRIES,
) -> Chunk:
    """Look at the next `limit` accounts after an id, in the order of ids; None = from the first."""
    named = {"after": after or _BEFORE_ALL, "limit": limit, "sizes": list(entry_counts)}
    rows = connection.execute(_CHUNK, named, prepare=True).fetchall()
    due = [(account_id, seq) for account_id, seq, is_due, _ in rows if is_due]
    full = bool(rows) and rows[-1][3] == limit
    return Chunk(due, rows[-1][0] if full else None)


def due_blocks(
    connection: Connection, account_id: str, seq: int, entry_counts: Iterable[int] = BLOCK_ENTRIES
) -> list[BlockKey]:
    """The blocks of an account that are full by its entry `seq` and not made yet."""
    rows = connection.execute(_MADE, {"account_id": account_id}, prepare=True).fetchall()
    made = {BlockKey(account_id, *row) for row in rows}
    return [key for key in whole_blocks(account_id, seq, entry_counts) if key not in made]


def make_block(connection: Connection, key: BlockKey) -> bool:
    """Sum a block up, in a transaction. False if an entry is missing, or another has made it.

    Raises psycopg.Error.
    """
    named: dict[str, Any] = key._asdict() | {"last_seq": key.last_seq}
    with connection.transaction():
        extent = connection.execute(_EXTENT, named, prepare=True).fetchone()
        assert extent is not None, "an aggregate has a row"
        count, first_time, last_time = extent
        if count != key.entry_count:
            return False
        sums = dict(connection.execute(_SUMS_OF_LABELS, named, prepare=True).fetchall())
        summed, varied = labels_to_sum(sums, key.entry_count)
        named |= {"first_time": first_time, "last_time": last_time}
        named |= {"summed": _array(summed), "varied": _array(varied)}
        if connection.execute(_INSERT_BLOCK, named, prepare=True).rowcount == 0:
            return False
        if summed is not None:
            connection.execute(_INSERT_SUMS, named, prepare=True)
    return True


def read_blocks(connection: Connection, account_id: str, seqs: Seqs) -> list[ChargeBlock]:
    """The blocks of an account that begin among some of its entries."""
    named = {"account_id": account_id, **seqs._asdict()}
    return [
        ChargeBlock(BlockKey(*row[:3]), row[3], row[4], BlockLabels(_tuple(row[5]), _tuple(row[6])))
        for row in connection.execute(_BLOCKS, named, prepare=True).fetchall()
    ]


def _array(labels: tuple[str, ...] | None) -> list[str] | None:
    return None if labels is None else list(labels)


def _tuple(labels: list[str] | None) -> tuple[str, ...] | None:
    return None if labels is None else tuple(labels)
