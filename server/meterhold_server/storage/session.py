"""The connection of a lane, with what it takes to find out about a COMMIT whose answer was lost."""

from __future__ import annotations

from typing import Final

import psycopg
from psycopg.errors import Diagnostic
from psycopg.pq import TransactionStatus

from meterhold_server.storage.connection import connect_lane, sever
from meterhold_server.storage.evidence import Evidence
from meterhold_server.storage.exchange import exchange
from meterhold_server.storage.statements import ROLLBACK

_STATUS: Final = "SELECT pg_xact_status(%s::text::xid8)"
# Its commit waits for the synchronous standbys, if there are any, and so for all commits before it.
# A commit whose wait for them was broken off is known as committed, and may be lost in a failover.
_REPLICATED: Final = "SELECT pg_logical_emit_message(true, 'meterhold', '')"
_SUCCESSFUL_WITH_DOUBT: Final = "01000"


class Session:
    """An open lane connection. Not for use by two threads, but for `sever`."""

    def __init__(self, url: str) -> None:
        """Connect. Raises psycopg.Error."""
        self.connection = connect_lane(url)
        self.connection.add_notice_handler(self._notice)
        # A commit came with a warning: done here, perhaps not on the synchronous standby.
        self.doubtful = False

    def transaction_committed(self, transaction_id: str, evidence: Evidence | None) -> bool | None:
        """Whether a transaction of an earlier session did what `evidence` says.

        None if that cannot be said (yet). False also if there is no evidence, when it is as good to
        do it again. Raises psycopg.Error.
        """
        try:
            row = self.connection.execute(_STATUS, (transaction_id,)).fetchone()
        except psycopg.errors.InvalidParameterValue:
            # The number is yet to be given: a crash has taken the transaction that had it.
            return False
        status = row[0] if row else None
        if status not in ("committed", "aborted"):
            return None
        if status == "aborted" or evidence is None or not evidence.is_in(self.connection):
            return False
        self.doubtful = False
        self.connection.execute(_REPLICATED)
        return None if self.doubtful else True

    def leave_transaction(self) -> None:
        """Roll back what is open; close the connection if even that fails."""
        idle = self.connection.info.transaction_status is TransactionStatus.IDLE
        if self.connection.closed or idle:
            return
        try:
            # Not by psycopg's own rollback, which would drop what is prepared.
            exchange(self.connection, [(ROLLBACK, {})])
        except psycopg.Error:
            self.close()

    def sever(self) -> None:
        """Cut the line, from any thread: whoever waits for the database gets an error at once."""
        sever(self.connection)

    def close(self) -> None:
        self.connection.close()

    def _notice(self, diagnostic: Diagnostic) -> None:
        if diagnostic.sqlstate == _SUCCESSFUL_WITH_DOUBT:
            self.doubtful = True
