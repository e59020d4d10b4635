"""One batch, one transaction: needs → load → decide → persist → COMMIT.

The only path by which anything is ever written.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import psycopg

from meterhold_server.core.decide import decide
from meterhold_server.core.model import Rules
from meterhold_server.core.needs import needs
from meterhold_server.core.operations import Operation
from meterhold_server.core.outcomes import Outcome
from meterhold_server.storage.errors import Fault, fault_at_commit, fault_before_commit
from meterhold_server.storage.evidence import Evidence, evidence_of
from meterhold_server.storage.load import load
from meterhold_server.storage.persist import persist
from meterhold_server.storage.session import Session


class Unresolved(NamedTuple):
    """A COMMIT whose answer was lost, and what the callers are to be told if it went through."""

    transaction_id: str
    evidence: Evidence | None
    outcomes: list[Outcome]


class BatchFault(Exception):
    """A batch that failed in the database. `unresolved` is set if it may have been committed."""

    def __init__(self, fault: Fault, cause: str, unresolved: Unresolved | None = None) -> None:
        super().__init__(cause)
        self.fault = fault
        self.unresolved = unresolved


def transact(session: Session, operations: Sequence[Operation], rules: Rules) -> list[Outcome]:
    """Decide and commit a batch. Answers the outcomes, in order, after COMMIT returned.

    Raises BatchFault; the session is then out of its transaction, or closed.
    """
    unresolved = None
    try:
        state, now, transaction_id = load(session.connection, needs(operations))
        outcomes, writes = decide(state, operations, now, rules)
        if writes:
            unresolved = Unresolved(transaction_id, evidence_of(writes), outcomes)
            session.doubtful = False
            persist(session.connection, writes)
    except psycopg.Error as error:
        fault = fault_at_commit(error) if unresolved else fault_before_commit(error)
        raise BatchFault(fault, repr(error), unresolved) from error
    finally:
        session.leave_transaction()
    if unresolved and session.doubtful:
        raise BatchFault(Fault.UNKNOWN, "committed here, perhaps not on the standby")
    return outcomes
