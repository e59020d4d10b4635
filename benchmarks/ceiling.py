"""The ceiling: the same work as bare SQL on sets, over one connection, with no service before it.

It keeps no lots, no running balances in the ledger, no fields to compare a repeated request with,
and refuses the whole set of an account that does not cover it. No service that commits to
PostgreSQL can be faster than this; how near one comes is what it makes of the database.

As a module it takes its orders as JSON in its first argument; `benchmarks.rounds` reads the rest.
"""

from __future__ import annotations

import json
import secrets
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Any, Final

import psycopg

from benchmarks.rounds import BEGIN, END, figures, mark

Connection = psycopg.Connection[Any]

TABLES: Final = """
CREATE TABLE account (
    id integer PRIMARY KEY, balance bigint NOT NULL, held bigint NOT NULL
) WITH (fillfactor = 50);
CREATE TABLE ledger (
    seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account_id integer NOT NULL,
    operation_id uuid NOT NULL UNIQUE,
    delta bigint NOT NULL,
    create_time timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE TABLE hold (
    id uuid PRIMARY KEY,
    account_id integer NOT NULL,
    amount bigint NOT NULL,
    active boolean NOT NULL,
    expire_time timestamptz NOT NULL
) WITH (fillfactor = 85);
CREATE TABLE counter (value bigint NOT NULL);
INSERT INTO counter VALUES (0);
"""

_ASKED: Final = """
    asked AS (SELECT * FROM unnest(%(accounts)s::integer[], %(ids)s::uuid[]) AS a (account_id, id)),
    sums AS (
        SELECT account_id, count(*) * %(amount)s::bigint AS total FROM asked GROUP BY account_id
    ),
    locked AS MATERIALIZED (
        SELECT account.id FROM account JOIN sums ON account.id = sums.account_id
        ORDER BY account.id FOR NO KEY UPDATE OF account
    )"""

_DEBIT: Final = f"""
WITH {_ASKED}, covered AS (
    UPDATE account SET balance = balance - total FROM sums JOIN locked ON locked.id = account_id
    WHERE account.id = account_id AND balance - held >= total RETURNING account.id
)
INSERT INTO ledger (account_id, operation_id, delta)
SELECT account_id, asked.id, -%(amount)s::bigint
FROM asked JOIN covered ON covered.id = account_id"""

_RESERVE: Final = f"""
WITH {_ASKED}, covered AS (
    UPDATE account SET held = held + total FROM sums JOIN locked ON locked.id = account_id
    WHERE account.id = account_id AND balance - held >= total RETURNING account.id
)
INSERT INTO hold
SELECT asked.id, account_id, %(amount)s::bigint, true, clock_timestamp() + interval '10 min'
FROM asked JOIN covered ON covered.id = account_id"""

_SETTLE: Final = f"""
WITH {_ASKED}, closed AS (
    UPDATE hold SET active = false FROM asked JOIN locked ON locked.id = asked.account_id
    WHERE hold.id = asked.id AND active RETURNING hold.id, hold.account_id, hold.amount
), charged AS (
    INSERT INTO ledger (account_id, operation_id, delta)
    SELECT account_id, id, -%(amount)s::bigint FROM closed
), ended AS (
    SELECT account_id, count(*) AS holds, sum(amount)::bigint AS freed FROM closed GROUP BY 1
)
UPDATE account SET held = held - freed, balance = balance - holds * %(amount)s::bigint
FROM ended WHERE account.id = ended.account_id"""

_COMMIT: Final = "UPDATE counter SET value = value + 1"


@dataclass(slots=True)
class Orders:
    """`batch` operations in a statement, each committed; `seconds` after `warm_up_seconds`.

    A `commit` is the smallest there is: one row, one number.
    """

    url: str
    workload: str
    accounts: int
    batch: int
    seconds: float
    warm_up_seconds: float


def prepare(url: str, accounts: int) -> None:
    """Make the tables in an empty database."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(TABLES)
        connection.execute(
            "INSERT INTO account SELECT n, 10 ^ 15, 0 FROM generate_series(0, %s - 1) AS n",
            [accounts],
        )
        connection.execute("VACUUM (ANALYZE)")


def measure(orders: Orders) -> dict[str, Any]:
    with psycopg.connect(orders.url, autocommit=True) as connection:
        connection.execute("SET jit = off")
        job = _JOBS[orders.workload](connection, orders)
        _repeat(job, orders.warm_up_seconds)
        mark(BEGIN)
        started = time.perf_counter()
        latencies, operations = _repeat(job, orders.seconds)
        elapsed = time.perf_counter() - started
        mark(END)
    return figures(operations, elapsed, latencies)


def _repeat(job: Callable[[int], int], seconds: float) -> tuple[list[float], int]:
    latencies: list[float] = []
    operations = 0
    started = end = time.perf_counter()
    for number in count():
        if end - started >= seconds:
            break
        begun = end
        operations += job(number)
        end = time.perf_counter()
        latencies.append(end - begun)
    return latencies, operations


def _debit(connection: Connection, orders: Orders) -> Callable[[int], int]:
    # Once in a while the planner takes the sets for small and loops over one for each row of the
    # other: a quarter of the rate, until the statement is prepared anew.
    connection.execute("SET enable_nestloop = off")

    def job(number: int) -> int:
        return _whole(orders, _execute(connection, _DEBIT, _set(orders, number, amount=5)))

    return job


def _pair(connection: Connection, orders: Orders) -> Callable[[int], int]:
    """A set of holds, and then a set of the charges of these. Two operations each."""

    def job(number: int) -> int:
        holds = _set(orders, number, amount=1000)
        held = _whole(orders, _execute(connection, _RESERVE, holds))
        _execute(connection, _SETTLE, holds | {"amount": 700})
        return 2 * held

    return job


def _commit(connection: Connection, orders: Orders) -> Callable[[int], int]:
    def job(number: int) -> int:
        return _execute(connection, _COMMIT, {})

    return job


def _whole(orders: Orders, done: int) -> int:
    if done != orders.batch:
        raise RuntimeError(f"a set was not covered: {done} of {orders.batch} were done")
    return done


def _execute(connection: Connection, query: str, values: dict[str, Any]) -> int:
    return connection.execute(query.encode(), values, prepare=True).rowcount


def _set(orders: Orders, number: int, *, amount: int) -> dict[str, Any]:
    first = number * orders.batch
    accounts = [n * 7919 % orders.accounts for n in range(first, first + orders.batch)]
    ids = [secrets.token_hex(16) for _ in accounts]
    return {"accounts": accounts, "ids": ids, "amount": amount}


_JOBS: Final = {"debit": _debit, "pair": _pair, "commit": _commit}


if __name__ == "__main__":
    print(json.dumps(measure(Orders(**json.loads(sys.argv[1])))))
