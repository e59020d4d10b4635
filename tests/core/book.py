"""A ledger in memory: decides one operation after the other and audits the books after each.

The tables, the laws and the state machine all run on it, so that every test checks every identity
of `invariants` after every step, whatever it is about.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from meterhold_server.core.copies import copy_of_state
from meterhold_server.core.decide import decide
from meterhold_server.core.invariants import violations
from meterhold_server.core.model import (
    Account,
    AccountKey,
    Entry,
    Rules,
    State,
    account_id_of,
)
from meterhold_server.core.operations import (
    Configure,
    Debit,
    DebitOnce,
    Expire,
    Extend,
    GrantOnce,
    Operation,
    Release,
    Reserve,
    Settle,
)
from meterhold_server.core.outcomes import Outcome
from meterhold_server.core.posting import Writes

START: Final = datetime(2026, 1, 1, tzinfo=UTC)
ALICE: Final = AccountKey("live", "alice", "credits")


class Book:
    """A state, its whole ledger, and a clock that only the test moves."""

    def __init__(self, state: State | None = None, rules: Rules | None = None) -> None:
        self.state = state or State()
        self.rules = rules or Rules()
        self.now = START
        self.entries: dict[str, list[Entry]] = {}
        self.written = Writes()
        """What the last call of `do` or `do_all` wants to have stored."""

    def twin(self) -> Book:
        """A book with the same history, which from here on goes its own way."""
        twin = Book(copy_of_state(self.state), self.rules)
        twin.now = self.now
        twin.entries = {account_id: list(ledger) for account_id, ledger in self.entries.items()}
        return twin

    def do(self, operation: Operation) -> Outcome:
        (outcome,) = self.do_all([operation])
        return outcome

    def do_all(self, operations: Sequence[Operation]) -> list[Outcome]:
        """Decide `operations` as one batch."""
        outcomes, self.written = decide(self.state, operations, self.now, self.rules)
        for entry in self.written.entries:
            self.entries.setdefault(entry.account_id, []).append(entry)
        self.audit()
        return outcomes

    def audit(self) -> None:
        """Fail unless every identity holds for every account and its whole ledger.

        And unless the account is written with each of its rows: that is what locks them, and what
        tells storage that there is something to write.
        """
        wrong = [
            violation
            for account in self.state.accounts.values()
            for violation in violations(account, self.entries.get(account.account_id, []))
        ]
        assert not wrong, "\n".join(wrong)
        rows = [*self.written.lots, *self.written.reservations, *self.written.pending]
        owners = {account_id for account_id, _ in rows}
        owners.update(entry.account_id for entry in self.written.entries)
        assert owners <= set(self.written.accounts), "rows are written without their account"

    def wait(self, span: timedelta) -> None:
        self.now += span

    def account(self, key: AccountKey = ALICE) -> Account:
        """The account as it stands; one with nothing in it if it does not exist."""
        account_id = account_id_of(key)
        return self.state.accounts.get(account_id) or Account(key, account_id)

    def ledger(self, key: AccountKey = ALICE) -> list[Entry]:
        return self.entries.get(account_id_of(key), [])

    def allow_credit(
        self, limit_micros: int, *, holds: bool = False, key: AccountKey = ALICE
    ) -> None:
        """Set the credit limit, creating the account if need be."""
        self.do(Configure(key, limit_micros, holds_use_credit=holds))


def grant(key: str, amount: int, *, account: AccountKey = ALICE, **fields: Any) -> GrantOnce:
    return GrantOnce(account, key, amount, **fields)


def reserve(
    reservation_id: str, amount: int, *, account: AccountKey = ALICE, **fields: Any
) -> Reserve:
    return Reserve(account, reservation_id, amount, **fields)


def settle(
    reservation_id: str, amount: int, *, account: AccountKey = ALICE, **fields: Any
) -> Settle:
    return Settle(account, reservation_id, amount, **fields)


def capture(
    reservation_id: str,
    capture_id: str,
    amount: int,
    *,
    account: AccountKey = ALICE,
    **fields: Any,
) -> Settle:
    return Settle(account, reservation_id, amount, keep_open=True, capture_id=capture_id, **fields)


def release(reservation_id: str, *, account: AccountKey = ALICE) -> Release:
    return Release(account, reservation_id)


def extend(reservation_id: str, *, account: AccountKey = ALICE, **fields: Any) -> Extend:
    return Extend(account, reservation_id, **fields)


def debit(amount: int, *, account: AccountKey = ALICE, **fields: Any) -> Debit:
    return Debit(account, amount, **fields)


def debit_once(key: str, amount: int, *, account: AccountKey = ALICE, **fields: Any) -> DebitOnce:
    return DebitOnce(account, key, amount, **fields)


def expire(*, account: AccountKey = ALICE) -> Expire:
    return Expire(account)
