"""Engines for tests, closed when the test ends, and what they did to the database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import psycopg
import pytest

from meterhold_server.batching.engine import Engine
from meterhold_server.batching.failures import Failure
from meterhold_server.batching.lane import LaneLimits
from meterhold_server.batching.transaction import transact
from meterhold_server.core.model import AccountKey, Rules, account_id_of
from meterhold_server.core.operations import Operation
from meterhold_server.core.outcomes import Outcome
from meterhold_server.storage.session import Session

_LANES = (
    "SELECT pid, wait_event_type, wait_event, state FROM pg_stat_activity"
    " WHERE application_name LIKE 'meterhold %' AND datname = current_database()"
)


@asynccontextmanager
async def running(
    database_url: str,
    limits: LaneLimits | None = None,
    *,
    rules: Rules | None = None,
    lanes: int = 1,
) -> AsyncIterator[Engine]:
    engine = Engine(database_url, rules or Rules(), limits or LaneLimits(), lanes=lanes)
    try:
        yield engine
    finally:
        await engine.close()


async def answers(engine: Engine, operations: Iterable[Operation]) -> list[Outcome | BaseException]:
    """Submit all at once. What got no outcome answers its Failure."""
    futures = [engine.submit(operation) for operation in operations]
    return await asyncio.gather(*futures, return_exceptions=True)


async def failure(future: asyncio.Future[Outcome]) -> Failure:
    with pytest.raises(Failure) as caught:
        await future
    return caught.value


def record_batches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of operations of each transaction that is tried from now on."""
    sizes: list[int] = []

    def recorded(session: Session, operations: Sequence[Operation], rules: Rules) -> list[Outcome]:
        sizes.append(len(operations))
        return transact(session, operations, rules)

    monkeypatch.setattr("meterhold_server.batching.lane.transact", recorded)
    return sizes


class Observer:
    """Connections beside the lanes, of the owner of the database: one to look, one to lock."""

    def __init__(self, database_url: str) -> None:
        self._connection = psycopg.connect(database_url, autocommit=True)
        # A transaction sees pg_stat_activity as it was when it first looked.
        self._locking = psycopg.connect(database_url)

    def ask(self, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """The rows of a query; none for a statement that has no answer."""
        cursor = self._connection.execute(query.encode(), parameters or None)
        return cursor.fetchall() if cursor.description else []

    def one(self, query: str, *parameters: Any) -> Any:
        ((value,),) = self.ask(query, *parameters)
        return value

    def entries(self, account: AccountKey) -> list[tuple[int, str, int]]:
        """The ledger of an account: seq, kind and amount."""
        return self.ask(
            "SELECT seq, kind, amount_micros FROM entry WHERE account_id = %s ORDER BY seq",
            account_id_of(account),
        )

    def lock(self, account: AccountKey) -> None:
        """Keep an account from every lane, until `let_go`. Waits for who has it."""
        self._locking.execute(
            "SELECT FROM account WHERE account_id = %s FOR UPDATE", (account_id_of(account),)
        )

    def hold_lock(self, number: int) -> None:
        """Keep an advisory lock, until `let_go`, for a query to wait for."""
        self._locking.execute("SELECT pg_advisory_xact_lock(%s)", (number,))

    def wait_for_deadlocks(self, seconds: int) -> None:
        """Let the others be the victims of a deadlock that is found sooner than that."""
        self._locking.execute(f"SET deadlock_timeout = '{seconds}s'".encode())

    def let_go(self) -> None:
        self._locking.rollback()

    def lanes(self) -> list[int]:
        """The backends of lanes and readers that are connected."""
        return [pid for pid, *_ in self.ask(_LANES)]

    def blocked(self) -> list[int]:
        """Those of them that wait for a lock."""
        return [pid for pid, kind, *_ in self.ask(_LANES) if kind == "Lock"]

    def waiting_for(self, event: str) -> list[int]:
        """Those of them that wait for `event`, as pg_stat_activity names it."""
        return [pid for pid, _, name, _ in self.ask(_LANES) if name == event]

    def close(self) -> None:
        self._connection.close()
        self._locking.close()
