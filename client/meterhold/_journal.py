"""What could not be delivered yet: in a file that survives the process, or in memory.

A record is the list of settles that end one hold. Each carries its key, so that delivering one
twice, by two processes that share the file say, charges once.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from google.protobuf import json_format

from meterhold.v1 import metering_service_pb2

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meterhold.v1.metering_service_pb2 import SettleRequest

_LOCK_SECONDS = 10.0

_SCHEMA = """
CREATE TABLE IF NOT EXISTS undelivered (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    post_time REAL NOT NULL,
    settles TEXT NOT NULL,
    own_id TEXT NOT NULL,
    refusal TEXT
)
"""


class Record(NamedTuple):
    """The settles that end one hold, in order, and when they were posted (seconds since 1970).

    With an `own_id` only a hold that was made by the block of that id is ended.
    """

    number: int
    post_time: float
    settles: list[SettleRequest]
    own_id: str


class Store(Protocol):
    """Where records wait."""

    def add(self, settles: Sequence[SettleRequest], own_id: str) -> None: ...

    def pending(self) -> list[Record]: ...

    def done(self, record: Record) -> None: ...

    def refuse(self, record: Record, refusal: str) -> None: ...

    def refused_count(self) -> int: ...


class Journal:
    """A file of records, an SQLite database. Safe to share between threads and processes.

    What the server refused for good stays in it, with the refusal, for a person to look at.
    """

    def __init__(self, path: str | Path) -> None:
        """Open or make the file. Raises sqlite3.Error if that is not possible."""
        self._path = Path(path)
        with self._open() as database, database:
            database.execute(_SCHEMA)

    def add(self, settles: Sequence[SettleRequest], own_id: str) -> None:
        text = json.dumps([json_format.MessageToDict(settle) for settle in settles])
        with self._open() as database, database:
            database.execute(
                "INSERT INTO undelivered (post_time, settles, own_id) VALUES (?, ?, ?)",
                (time.time(), text, own_id),
            )

    def pending(self) -> list[Record]:
        with self._open() as database:
            rows = database.execute(
                "SELECT number, post_time, settles, own_id FROM undelivered"
                " WHERE refusal IS NULL ORDER BY number"
            ).fetchall()
        return [
            Record(number, post_time, _parse(text), own_id)
            for number, post_time, text, own_id in rows
        ]

    def done(self, record: Record) -> None:
        with self._open() as database, database:
            database.execute("DELETE FROM undelivered WHERE number = ?", (record.number,))

    def refuse(self, record: Record, refusal: str) -> None:
        with self._open() as database, database:
            database.execute(
                "UPDATE undelivered SET refusal = ? WHERE number = ?", (refusal, record.number)
            )

    def refused_count(self) -> int:
        with self._open() as database:
            (count,) = database.execute(
                "SELECT count(*) FROM undelivered WHERE refusal IS NOT NULL"
            ).fetchone()
        return int(count)

    def _open(self) -> closing[sqlite3.Connection]:
        # For each use anew: connections must not pass between threads, and this is no hot path.
        database = sqlite3.connect(self._path, timeout=_LOCK_SECONDS)
        database.execute("PRAGMA synchronous = FULL")
        return closing(database)


class Memory:
    """Records for as long as the process lives."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._records: dict[int, Record] = {}
        self._added = 0

    def add(self, settles: Sequence[SettleRequest], own_id: str) -> None:
        with self._lock:
            self._added += 1
            record = Record(self._added, time.time(), list(settles), own_id)
            self._records[self._added] = record

    def pending(self) -> list[Record]:
        with self._lock:
            return list(self._records.values())

    def done(self, record: Record) -> None:
        with self._lock:
            self._records.pop(record.number, None)

    def refuse(self, record: Record, refusal: str) -> None:
        self.done(record)

    def refused_count(self) -> int:
        return 0


def _parse(text: str) -> list[SettleRequest]:
    return [
        json_format.ParseDict(settle, metering_service_pb2.SettleRequest())
        for settle in json.loads(text)
    ]
