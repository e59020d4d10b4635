"""In which order, and when by the database's clock, operations were carried out.

Lanes are observed, not changed. Each batch is one transaction, whose time was read while its
accounts were locked: whatever touches one account is in the order of these times.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from operator import attrgetter
from typing import NamedTuple

import psycopg
import pytest

from meterhold_server.batching import transaction
from meterhold_server.batching.transaction import BatchFault
from meterhold_server.core.model import Rules
from meterhold_server.core.needs import Needs
from meterhold_server.core.operations import Operation
from meterhold_server.core.outcomes import Outcome
from meterhold_server.storage.exchange import Connection
from meterhold_server.storage.load import Loaded, load
from meterhold_server.storage.session import Session


class Batch(NamedTuple):
    now: datetime
    operations: Sequence[Operation]
    outcomes: Sequence[Outcome]


class Lost(NamedTuple):
    """A batch whose COMMIT was not answered. Without evidence it is done again in any case."""

    transaction_id: str
    batch: Batch
    has_evidence: bool


class Line(NamedTuple):
    now: datetime
    operation: Operation
    outcome: Outcome
    """What the lane made of it, whether or not anybody was told."""


@dataclass
class Journal:
    batches: list[Batch] = field(default_factory=list)
    doubtful: list[Lost] = field(default_factory=list)
    done_again: list[Batch] = field(default_factory=list)
    """Those that were done, and then again as nothing of them could tell: see `evidence_of`."""
    faults: int = 0

    def observe(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Write down what all lanes of this process do from now on."""
        times = threading.local()
        transact = transaction.transact

        def timed(connection: Connection, needs: Needs) -> Loaded:
            loaded = load(connection, needs)
            times.now = loaded.now
            return loaded

        def observed(
            session: Session, operations: Sequence[Operation], rules: Rules
        ) -> list[Outcome]:
            try:
                outcomes = transact(session, operations, rules)
            except BatchFault as fault:
                self.faults += 1
                if fault.unresolved:
                    unresolved = fault.unresolved
                    batch = Batch(times.now, list(operations), unresolved.outcomes)
                    has_evidence = unresolved.evidence is not None
                    self.doubtful.append(Lost(unresolved.transaction_id, batch, has_evidence))
                raise
            self.batches.append(Batch(times.now, list(operations), outcomes))
            return outcomes

        monkeypatch.setattr("meterhold_server.batching.transaction.load", timed)
        monkeypatch.setattr("meterhold_server.batching.lane.transact", observed)

    def resolve(self, database_url: str) -> int:
        """Find out of each doubtful batch whether it was done. Answers of how many it was."""
        with psycopg.connect(database_url) as connection:
            done = [lost for lost in self.doubtful if _is_committed(connection, lost)]
        self.batches += [lost.batch for lost in done]
        self.done_again += [lost.batch for lost in done if not lost.has_evidence]
        return len(done)

    def lines(self) -> Iterator[Line]:
        """All that was done, by time."""
        for now, operations, outcomes in sorted(self.batches, key=attrgetter("now")):
            for operation, outcome in zip(operations, outcomes, strict=True):
                yield Line(now, operation, outcome)


def _is_committed(connection: psycopg.Connection[tuple[str]], lost: Lost) -> bool:
    query = "SELECT pg_xact_status(%s::text::xid8)"
    row = connection.execute(query, (lost.transaction_id,)).fetchone()
    return row == ("committed",)
