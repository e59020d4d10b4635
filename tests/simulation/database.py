"""A model of the database: rows, row locks, transactions, and connections that can be lost.

It promises what PostgreSQL promises at READ COMMITTED, and no more. A row lock is had by one
transaction; whoever waits for it sees what the other has committed. A transaction that inserts a
key another has inserted waits for its end. A COMMIT that was received is carried out whatever
becomes of the line. A crash forgets what was not committed, with the numbers of its transactions.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import Enum, auto
from typing import Any, Final

import psycopg
from psycopg.pq import TransactionStatus

from core.shelf import Shelf
from meterhold_server.core.model import State
from meterhold_server.core.needs import Needs
from meterhold_server.core.posting import Writes
from meterhold_server.storage import evidence, session
from meterhold_server.storage.load import Loaded, _refuse_half_seen
from meterhold_server.storage.rows import claim_key_row
from simulation.scheduler import Owner, Scheduler, Signal

START: Final = datetime(2026, 1, 1, tzinfo=UTC)
LOCK_SECONDS_MAX: Final = 1.0
POISON: Final = "\0"
"""In the metadata of an operation: what the database cannot store."""


class Status(Enum):
    IN_PROGRESS = auto()
    COMMITTED = auto()
    ABORTED = auto()


@dataclass(eq=False)
class Transaction:
    number: int
    ended: Signal
    status: Status = Status.IN_PROGRESS
    received_commit: bool = False
    locks: set[Hashable] = field(default_factory=set)
    inserted: set[Hashable] = field(default_factory=set)
    waits_for: Transaction | None = None


@dataclass
class Chances:
    """How often what goes wrong, for each exchange with the database."""

    cut: float = 0.0
    freeze: float = 0.0
    serialization_failure: float = 0.0
    doubtful_commit: float = 0.0
    slow: float = 0.0
    stall: float = 0.0
    """That a COMMIT which was received takes seconds."""


class Database:
    """One primary."""

    def __init__(self, scheduler: Scheduler, latency_seconds: float, chances: Chances) -> None:
        self.scheduler = scheduler
        self.latency_seconds = latency_seconds
        self.chances = chances
        self.rows = Shelf(State())
        self.up = True
        self.connections: list[Connection] = []
        self.faults: dict[str, int] = {}
        self.deadlocks = 0
        self._statuses: dict[int, Status] = {}
        self._next_number = 1
        self._under_way: list[Transaction] = []
        self._locked: dict[Hashable, Transaction] = {}
        self._inserting: dict[Hashable, Transaction] = {}

    def clock(self) -> datetime:
        """The database's time: the only one that means anything."""
        return START + timedelta(microseconds=round(self.scheduler.now * 1e6))

    def count(self, fault: str) -> None:
        self.faults[fault] = self.faults.get(fault, 0) + 1
        self.scheduler.note("fault", fault)

    def travel(self) -> float:
        """How long a message to or from the database is under way."""
        chance = self.scheduler.random
        slow = 50 if self.chances.slow and chance.random() < self.chances.slow else 1
        return chance.expovariate(1 / self.latency_seconds) * slow

    def begin(self) -> Transaction:
        transaction = Transaction(self._next_number, Signal(self.scheduler))
        self._next_number += 1
        self._statuses[transaction.number] = Status.IN_PROGRESS
        self._under_way.append(transaction)
        return transaction

    def lock(self, transaction: Transaction, key: Hashable) -> None:
        """Wait for a row. Raises what PostgreSQL says of a deadlock, or of a wait too long."""
        until = self.scheduler.now + LOCK_SECONDS_MAX
        while (owner := self._locked.get(key)) not in (None, transaction):
            assert owner is not None
            self._wait(transaction, owner, until)
        self._locked[key] = transaction
        transaction.locks.add(key)

    def insert(self, transaction: Transaction, key: Hashable, taken: bool) -> None:
        """Take a key, after whoever is about to. Raises a unique violation if it is `taken`."""
        until = self.scheduler.now + LOCK_SECONDS_MAX
        while (owner := self._inserting.get(key)) not in (None, transaction):
            assert owner is not None
            self._wait(transaction, owner, until)
            if owner.status is Status.COMMITTED:
                taken = True
        if taken:
            raise psycopg.errors.UniqueViolation(f"{key} is taken")
        self._inserting[key] = transaction
        transaction.inserted.add(key)

    def _wait(self, transaction: Transaction, owner: Transaction, until: float) -> None:
        blocking: Transaction | None = owner
        while blocking is not None:
            if blocking is transaction:
                self.deadlocks += 1
                raise psycopg.errors.DeadlockDetected("each waits for the other")
            blocking = blocking.waits_for
        transaction.waits_for = owner
        given = owner.ended.wait(until - self.scheduler.now)
        transaction.waits_for = None
        if transaction.status is Status.ABORTED:
            raise psycopg.OperationalError("the server closed the connection")
        if not given:
            raise psycopg.errors.LockNotAvailable("waited too long")

    def end(self, transaction: Transaction, status: Status) -> None:
        """Commit or abort, unless it has ended already."""
        if transaction.status is not Status.IN_PROGRESS:
            return
        transaction.status = status
        self._statuses[transaction.number] = status
        self._under_way.remove(transaction)
        for key in transaction.locks:
            self._locked.pop(key, None)
        for key in transaction.inserted:
            self._inserting.pop(key, None)
        transaction.ended.give()

    def commit(self, transaction: Transaction, writes: Writes) -> None:
        """What becomes of a COMMIT that was received."""
        if transaction.status is Status.IN_PROGRESS:
            self.rows.persist(writes)
            self.scheduler.note("commit", transaction.number, len(writes.entries))
            self.end(transaction, Status.COMMITTED)

    def status(self, number: int) -> str:
        """`pg_xact_status`."""
        if number >= self._next_number:
            raise psycopg.errors.InvalidParameterValue(f"transaction {number} is in the future")
        return self._statuses[number].name.lower().replace("_", " ")

    def crash(self, down_seconds: float) -> None:
        """Go down at once, and come back with what was committed."""
        self.count("database crash")
        self.up = False
        for connection in list(self.connections):
            connection.break_off()
        for transaction in list(self._under_way):
            self.end(transaction, Status.ABORTED)
        # Numbers that were given to nothing that was logged are given again.
        kept = [n for n, status in self._statuses.items() if status is Status.COMMITTED]
        self._next_number = max(kept, default=0) + 1
        self._statuses = {n: self._statuses[n] for n in self._statuses if n < self._next_number}
        self.scheduler.after(down_seconds, self._come_up)

    def _come_up(self) -> None:
        self.up = True

    def due(self, limit: int) -> list[Any]:
        """As `storage.due.due_accounts`."""
        now = self.clock()
        due = [
            (account.next_expire_time, account.key)
            for account in self.rows.accounts.values()
            if account.next_expire_time is not None and account.next_expire_time <= now
        ]
        return [(key, (now - at).total_seconds()) for at, key in sorted(due)[:limit]]


class _Info:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @property
    def transaction_status(self) -> TransactionStatus:
        busy = self._connection.transaction is not None
        return TransactionStatus.INTRANS if busy else TransactionStatus.IDLE


class _Answer:
    def __init__(self, row: tuple[Any, ...] | None) -> None:
        self._row = row

    def fetchone(self) -> tuple[Any, ...] | None:
        return self._row


class Connection:
    """A line to the database, as much of it as a lane uses."""

    def __init__(self, database: Database, owner: Owner) -> None:
        self.owner = owner
        self.closed = False
        self.transaction: Transaction | None = None
        self.info = _Info(self)
        self.session: session.Session | None = None
        self._database = database
        self._severed = Signal(database.scheduler)
        self._frozen = False
        self._broken = False
        database.scheduler.sleep(database.travel())
        if not database.up:
            raise psycopg.OperationalError("connection refused")
        database.connections.append(self)

    def travel(self, after: str = "") -> None:
        """Be under way for a while, or for ever, or get lost. Raises psycopg.Error."""
        database = self._database
        chance, chances = database.scheduler.random, database.chances
        self._check()
        drawn = chance.random()
        if drawn < chances.cut:
            database.count(f"line cut {after}".strip())
            self.break_off()
        elif drawn < chances.cut + chances.freeze:
            database.count(f"line frozen {after}".strip())
            self._frozen = True
            self._severed.wait()
        else:
            database.scheduler.sleep(database.travel())
        self._check()

    def _check(self) -> None:
        if self.closed:
            raise psycopg.OperationalError("the connection is closed")
        if self._broken:
            self.close()
            raise psycopg.OperationalError("the connection was lost")

    def break_off(self) -> None:
        """Cut the line. The server notices later what it was not to commit."""
        self._broken = True
        self._forget()
        self._severed.give()

    def sever(self) -> None:
        """Cut it from this side."""
        self.break_off()

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._forget()

    def _forget(self) -> None:
        if self in self._database.connections:
            self._database.connections.remove(self)
        transaction, self.transaction = self.transaction, None
        if transaction is not None and not transaction.received_commit:
            database = self._database
            seconds = 3 * database.travel()
            database.scheduler.after(seconds, lambda: _abort_unless_received(database, transaction))

    def rollback(self) -> None:
        """End the transaction without a trace."""
        transaction, self.transaction = self.transaction, None
        if transaction is not None:
            self._database.end(transaction, Status.ABORTED)

    def execute(self, query: Any, parameters: Any = None) -> _Answer:
        """The few statements by which a session finds out about a lost COMMIT."""
        self.travel()
        if query is session._STATUS:
            return _Answer((self._database.status(int(parameters[0])),))
        if query is session._REPLICATED:
            return _Answer(None)
        return _Answer(_written_at(self._database.rows, query, parameters))


def _abort_unless_received(database: Database, transaction: Transaction) -> None:
    if not transaction.received_commit:
        database.end(transaction, Status.ABORTED)


def _written_at(rows: Shelf, query: Any, parameters: dict[str, Any]) -> tuple[Any, ...] | None:
    """What the row of an Evidence says."""
    (written,) = (name for name, (known, _) in evidence._TIMES.items() if known is query)
    key = tuple(parameters.values())
    if written == "entry":
        entry = rows.entries.get((key[0], key[1]))
        return (entry.create_time,) if entry else None
    if written.endswith("reservation"):
        held = rows.reservations.get((key[0], key[1]))
        if held is None:
            return None
        return (held.create_time if written == "reservation" else held.end_time,)
    for claim in rows.claims.values():
        if claim_key_row(claim.claim_key) == key:
            return (claim.create_time,)
    return None


def load(connection: Connection, needs: Needs) -> Loaded:
    """The model of `storage.load.load`."""
    database = connection._database
    connection.travel()
    transaction = connection.transaction = database.begin()
    try:
        accounts = [
            each for each in lock_order(needs.account_ids) if each in database.rows.accounts
        ]
        for account_id in accounts:
            database.lock(transaction, account_id)
        now = read_clock(database, transaction)
        _pause(database)
        tombstones = [key for key in sorted(needs.tombstones) if key in database.rows.tombstones]
        for key in [*sorted(needs.changed_defaults), *tombstones]:
            database.lock(transaction, key)
        _pause(database)
        _fail_by_chance(database)
        state = database.rows.look_up(needs, accounts, tombstones)
        _refuse_half_seen(state)
        database.rows.look_further(state, now, needs)
    except psycopg.Error:
        connection.rollback()
        raise
    connection.travel()
    return Loaded(state, now, str(transaction.number))


def lock_order(account_ids: Iterable[str]) -> list[str]:
    """In which order a batch locks its accounts."""
    return sorted(account_ids)


def read_clock(database: Database, transaction: Transaction) -> datetime:
    """The time of a batch: read when its accounts are locked."""
    return database.clock()


def _pause(database: Database) -> None:
    """Let others come in between, every now and then."""
    if database.scheduler.random.random() < 0.2:
        database.scheduler.sleep(database.travel())


def _fail_by_chance(database: Database) -> None:
    if database.scheduler.random.random() < database.chances.serialization_failure:
        database.count("serialization failure")
        raise psycopg.errors.SerializationFailure("by chance")


def _stall_seconds(database: Database) -> float:
    chance = database.scheduler.random
    if chance.random() >= database.chances.stall:
        return 0.0
    database.count("commit stalled")
    return chance.uniform(0.2, 3.0)


def persist(connection: Connection, writes: Writes) -> None:
    """The model of `storage.persist.persist`."""
    database, transaction = connection._database, connection.transaction
    assert transaction is not None, "load has begun it"
    connection.travel("before commit")
    try:
        _insert_keys(database, transaction, writes)
        _fail_by_chance(database)
    except psycopg.Error:
        connection.rollback()
        raise
    transaction.received_commit = True
    seconds = database.travel() + _stall_seconds(database)
    database.scheduler.after(seconds, lambda: database.commit(transaction, writes))
    connection.travel("at commit")
    while transaction.status is Status.IN_PROGRESS:
        transaction.ended.wait()
        connection._check()
    if transaction.status is Status.ABORTED:
        raise psycopg.OperationalError("the server went down")
    connection.transaction = None
    if database.scheduler.random.random() < database.chances.doubtful_commit:
        database.count("doubtful commit")
        assert connection.session is not None
        connection.session.doubtful = True


def _insert_keys(database: Database, transaction: Transaction, writes: Writes) -> None:
    """New accounts, then claims, each sorted: where batches of several lanes may meet."""
    _refuse_poison(writes)
    rows = database.rows
    for account in sorted(writes.accounts.values(), key=lambda each: each.account_id):
        if not account.stored:
            database.insert(transaction, account.account_id, account.account_id in rows.accounts)
    for defaults in sorted(writes.defaults.values(), key=lambda each: each.key):
        if not defaults.stored:
            database.insert(transaction, defaults.key, defaults.key in rows.defaults)
    for tombstone in sorted(writes.tombstones.values(), key=lambda each: each.grant_key):
        if not tombstone.stored:
            key = tombstone.grant_key
            database.insert(transaction, key, key in rows.tombstones)
    for claim in sorted(writes.claims, key=lambda each: each.claim_key):
        database.insert(transaction, claim.claim_key, claim.claim_key in rows.claims)


def _refuse_poison(writes: Writes) -> None:
    """As psycopg does before anything is sent."""
    if any(POISON in (entry.metadata or "") for entry in writes.entries):
        raise psycopg.DataError("text cannot contain NUL")


class SimulatedSession(session.Session):
    """The session of a lane, on a line of the model."""

    def __init__(self, database: Database, owner: Owner) -> None:
        connection: Any = Connection(database, owner)
        connection.session = self
        self.connection = connection
        self.doubtful = False


def exchange(connection: Any, commands: Any) -> None:
    """What a session sends by itself: ROLLBACK."""
    connection.travel()
    connection.rollback()


def sever(connection: Any) -> None:
    connection.sever()
