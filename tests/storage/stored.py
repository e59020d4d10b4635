"""A ledger in a database that is written as a lane writes it, and compared with one in memory."""

from __future__ import annotations

from collections.abc import Sequence

from core.book import Book
from meterhold_server.batching.transaction import transact
from meterhold_server.core.model import AccountKey, Rules
from meterhold_server.core.operations import Operation
from meterhold_server.core.outcomes import Outcome
from meterhold_server.storage.session import Session
from support import contents


class Stored:
    def __init__(self, url: str) -> None:
        self.url = url
        self.session = Session(url)

    def do_all(self, operations: Sequence[Operation]) -> list[Outcome]:
        return transact(self.session, operations, Rules())

    def do_each(self, operations: Sequence[Operation]) -> list[Outcome]:
        return [self.do_all([operation])[0] for operation in operations]

    def allow_credit(self, key: AccountKey, limit: int, *, holds: bool) -> None:
        self.session.connection.execute(
            "UPDATE account SET credit_limit_micros = %s, holds_use_credit = %s"
            " WHERE (namespace, account, unit) = (%s, %s, %s)",
            (limit, holds, *key),
        )

    def check_equal_to(self, book: Book, namespace: str) -> None:
        """Compare everything stored with what the core has in memory."""
        found = contents.state(self.session.connection, namespace)
        expected = book.twin().state
        for account in expected.accounts.values():
            account.lots.sort(key=lambda lot: lot.seq)
        assert found.accounts == expected.accounts
        assert found.claims == expected.claims
        assert found.tombstones == expected.tombstones
        assert found.defaults == expected.defaults
        ledger = contents.ledger(self.session.connection, namespace)
        assert ledger == [entry for key in sorted(book.entries) for entry in book.entries[key]]
