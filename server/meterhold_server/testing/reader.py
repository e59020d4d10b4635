"""The reader's twin: each read of `storage` has a namesake here that looks into memory."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, TypeVar

from meterhold_server.core.credentials import Credential, Scope
from meterhold_server.core.invariants import differences
from meterhold_server.core.model import (
    Account,
    Allowance,
    Claim,
    ClaimKey,
    ClaimKind,
    Defaults,
    DefaultsKey,
    Entry,
    Lot,
    PendingGrant,
    PendingState,
    Reservation,
    ReservationState,
)
from meterhold_server.core.operations import capture_key
from meterhold_server.storage.entry_pages import EntryFilter, EntryPage
from meterhold_server.storage.pages import LOTS_WITH_BALANCE_MAX, AccountRead
from meterhold_server.storage.reports import SpendQuery, SpendReport, Stats
from meterhold_server.storage.verify import DIFFERENCES_MAX, AccountVerification
from meterhold_server.testing import reports
from meterhold_server.testing.engine import MemoryEngine

_T = TypeVar("_T")


class MemoryReader:
    """Answers the rows themselves and no copies: nothing changes them before they are sent."""

    def __init__(self, engine: MemoryEngine) -> None:
        self._engine = engine
        self._credentials: dict[str, Credential] = {}

    async def run(self, read: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """As `Reader.run`."""
        return getattr(self, read.__name__)(*args, **kwargs)

    def create_credential(
        self, *, scopes: Sequence[Scope], actor: str, certificate_name: None = None, **given: Any
    ) -> Credential:
        """Nobody is asked for it in memory."""
        made = Credential(
            scopes=frozenset(scopes),
            certificate_name=certificate_name,
            create_time=self._engine.clock(),
            **given,
        )
        self._credentials[made.credential_id] = made
        return made

    def page_of_credentials(
        self, namespace: str, *, after: tuple[datetime, str] | None, limit: int
    ) -> list[Credential]:
        found = sorted(self._credentials.values(), key=_credential_order)
        return [one for one in found if after is None or _credential_order(one) > after][:limit]

    def revoke_credential(
        self, namespace: str, credential_id: str, *, actor: str
    ) -> Credential | None:
        found = self._credentials.get(credential_id)
        if found is not None and found.revoke_time is None:
            found = replace(found, revoke_time=self._engine.clock())
            self._credentials[credential_id] = found
        return found

    def read_account(self, account_id: str) -> AccountRead | None:
        account = self._engine.state.accounts.get(account_id)
        return AccountRead(account, self._engine.clock()) if account else None

    def read_live_lots(self, account_id: str) -> list[Lot]:
        return [lot for lot in self._lots(account_id) if lot.live][:LOTS_WITH_BALANCE_MAX]

    def read_pending_grants(self, account_id: str) -> list[PendingGrant]:
        account = self._engine.state.accounts.get(account_id)
        waiting = account.pending.values() if account else ()
        found = [one for one in waiting if one.state is PendingState.PENDING]
        return sorted(found, key=lambda one: one.effective_time)[:LOTS_WITH_BALANCE_MAX]

    def read_allowances(self, account_ids: Sequence[str]) -> dict[str, Allowance]:
        accounts = [self._engine.state.accounts[account_id] for account_id in account_ids]
        return {one.account_id: one.allowance for one in accounts if one.allowance is not None}

    def read_defaults(self, key: DefaultsKey) -> Defaults | None:
        return self._engine.state.defaults.get(key)

    def read_reservation(self, account_id: str, reservation_id: str) -> Reservation | None:
        account = self._engine.state.accounts.get(account_id)
        return account.reservations.get(reservation_id) if account else None

    def read_entry(self, account_id: str, seq: int) -> Entry | None:
        entries = self._entries(account_id)
        return entries[seq - 1] if 0 < seq <= len(entries) else None

    def read_entry_by_key(
        self, namespace: str, kinds: Sequence[ClaimKind], key: str, account_id: str
    ) -> Entry | None:
        for kind in kinds:
            claim = self._engine.state.claims.get(ClaimKey(kind, namespace, key))
            if claim and claim.account_id == account_id and (entry := self._entry_of(claim)):
                return entry
        return None

    def read_capture_seq(self, account_id: str, reservation_id: str, capture_id: str) -> int | None:
        if not capture_id:
            found = self.read_reservation(account_id, reservation_id)
            return found.settle_seq if found else None
        key = ClaimKey(ClaimKind.CAPTURE, account_id, capture_key(reservation_id, capture_id))
        claim = self._engine.state.claims.get(key)
        return claim.entry.seq if claim and claim.entry else None

    def page_of_entries(
        self,
        account_id: str,
        wanted: EntryFilter,
        *,
        oldest_first: bool,
        after_seq: int | None,
        limit: int,
    ) -> EntryPage:
        matching = filter(wanted.matches, self._entries(account_id))
        found = _page(matching, _seq, after_seq, limit + 1, newest_first=not oldest_first)
        return EntryPage(found[:limit], found[limit - 1].seq if len(found) > limit else None)

    def page_of_reservations(
        self,
        account_id: str,
        *,
        states: Sequence[ReservationState],
        after: tuple[datetime, str] | None,
        limit: int,
    ) -> list[Reservation]:
        account = self._engine.state.accounts.get(account_id)
        all_there_are = account.reservations.values() if account else ()
        found = [r for r in all_there_are if not states or r.state in states]
        return _page(found, lambda r: (r.create_time, r.reservation_id), after, limit)

    def page_of_accounts(
        self,
        namespace: str,
        *,
        account_prefix: str,
        after: tuple[str, str] | None,
        limit: int,
    ) -> list[AccountRead]:
        found = [
            AccountRead(account, self._engine.clock())
            for account in self._engine.state.accounts.values()
            if account.key.namespace == namespace and account.key.account.startswith(account_prefix)
        ]
        return _page(found, lambda read: read.account.key[1:], after, limit, newest_first=False)

    def page_of_lots(
        self, account_id: str, *, include_spent: bool, after_seq: int | None, limit: int
    ) -> list[Lot]:
        found = [lot for lot in self._lots(account_id) if include_spent or lot.live]
        return _page(found, _seq, after_seq, limit)

    def read_stats(self, namespace: str, unit: str) -> Stats:
        return reports.stats(self._engine.clock(), self._accounts(namespace, unit))

    def read_spend(self, wanted: SpendQuery) -> SpendReport:
        charges = [
            reports.Charge(account, entry)
            for account in self._accounts(wanted.namespace, wanted.unit)
            if wanted.account_id in (None, account.account_id)
            for entry in self._entries(account.account_id)
        ]
        return reports.spend(self._engine.clock(), charges, wanted)

    def _accounts(self, namespace: str, unit: str) -> list[Account]:
        everyone = self._engine.state.accounts.values()
        return [a for a in everyone if (a.key.namespace, a.key.unit) == (namespace, unit)]

    def _entry_of(self, claim: Claim) -> Entry | None:
        """What it made; of a grant that was pending, what it has become."""
        if claim.entry:
            return claim.entry
        # A revocation that came before its grant may have named an account that does not exist.
        account = self._engine.state.accounts.get(claim.account_id)
        pending = account and account.pending.get(claim.receipt.answer.get("pending_key", ""))
        return self.read_entry(claim.account_id, pending.entry_seq) if pending else None

    def verify_account(self, account_id: str) -> AccountVerification | None:
        account = self._engine.state.accounts.get(account_id)
        if account is None:
            return None
        entries = self._entries(account_id)
        found = differences(account, entries)[:DIFFERENCES_MAX]
        return AccountVerification(account, len(entries), found)

    def remove_wrong_blocks(self, account_id: str) -> int:
        """There are no blocks: reports read every charge."""
        return 0

    def _lots(self, account_id: str) -> Collection[Lot]:
        """In spend order."""
        account = self._engine.state.accounts.get(account_id)
        return account.lots if account else ()

    def _entries(self, account_id: str) -> Sequence[Entry]:
        return self._engine.entries.get(account_id, ())


def _seq(item: Entry | Lot) -> int:
    return item.seq


def _page(
    items: Iterable[_T],
    key: Callable[[_T], Any],
    after: Any,
    limit: int,
    *,
    newest_first: bool = True,
) -> list[_T]:
    """Up to `limit` items in the order of their keys, from the one after `after` on."""
    in_order = sorted(items, key=key, reverse=newest_first)
    if after is not None:
        in_order = [i for i in in_order if (key(i) < after if newest_first else key(i) > after)]
    return in_order[:limit]


def _credential_order(credential: Credential) -> tuple[datetime, str]:
    return credential.create_time, credential.credential_id
