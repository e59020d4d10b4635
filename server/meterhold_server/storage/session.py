"""The connection of a lane, with what it takes to find out about a COMMIT whose answer was lost."""

from __future__ import annotations

from typing import Final

import psycopg
from psycopg.errors import Diagnostic
from psycopg.pq import TransactionStatus

from meterhold_server.storage.connection import connect_lane, sever, severed_if_silent

# The timeline is part of the name of the WAL file being written. It grows at a failover, and then
# the number of a transaction may have been given to another one.
_TIMELINE: Final = "SELECT left(pg_walfile_name(pg_current_wal_insert_lsn()), 8)"
_STATUS: Final = f"SELECT pg_xact_status(%s::text::xid8), ({_TIMELINE})"
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
        try:
            with severed_if_silent(self.connection):
                row = self.connection.execute(_TIMELINE).fetchone()  # type: ignore[arg-type, unused-ignore]
        except BaseException:
            self.close()
            raise
        self.timeline = str(row[0]) if row else ""

    def transaction_committed(self, transaction_id: str, timeline: str) -> bool | None:
        """What became of a transaction of an earlier session; None if that cannot be said (yet).

        Raises psycopg.Error.
        """
        row = self.connection.execute(_STATUS, (transaction_id,)).fetchone()  # type: ignore[arg-type, unused-ignore]
        status, now_on = row or (None, None)
        if now_on != timeline:
            return None
        if status == "committed":
            self.doubtful = False
            self.connection.execute(_REPLICATED)
            return None if self.doubtful else True
        return False if status == "aborted" else None

    def leave_transaction(self) -> None:
        """Roll back what is open; close the connection if even that fails."""
        idle = self.connection.info.transaction_status is TransactionStatus.IDLE
        if self.connection.closed or idle:
            return
        try:
            self.connection.rollback()
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
