"""Putting credits in: an entry and the lot that it opens. Debt is repaid first."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from meterhold_server.core import funds
from meterhold_server.core.model import Account, Entry, EntryKind, Lot, LotCategory, Part
from meterhold_server.core.posting import Posting


@dataclass(slots=True)
class Terms:
    """What a lot is like, and what its entry says besides."""

    priority: int = 50
    category: LotCategory = LotCategory.PAID
    expire_time: datetime | None = None
    idempotency_key: str = ""
    cash: dict[str, Any] | None = None
    source: dict[str, Any] | None = None
    labels: dict[str, str] | None = None
    metadata: str | None = None
    reason: str = ""


class Deposit(NamedTuple):
    entry: Entry
    lot: Lot
    debt_repaid_micros: int


def deposit(
    posting: Posting, account: Account, kind: EntryKind, micros: int, terms: Terms
) -> Deposit:
    """Grant `micros`. The caller has checked that there is room for them."""
    repaid = funds.repay(account, micros)
    account.granted_micros += micros
    entry = posting.entry(
        account,
        kind,
        micros,
        [Part(account.seq + 1, micros - repaid)],
        key=terms.idempotency_key,
        labels=terms.labels,
        metadata=terms.metadata,
        reason=terms.reason,
    )
    lot = Lot(
        account.account_id,
        entry.seq,
        granted_micros=micros,
        available_micros=micros - repaid,
        held_micros=0,
        priority=terms.priority,
        category=terms.category,
        expire_time=terms.expire_time,
        create_time=posting.now,
        idempotency_key=terms.idempotency_key,
        cash=terms.cash,
        source=terms.source,
    )
    funds.add_lot(posting, account, lot)
    return Deposit(entry, lot, repaid)
