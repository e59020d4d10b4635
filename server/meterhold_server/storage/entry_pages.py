"""Pages of an account's ledger, by kind, labels and time.

A page with a filter looks at a bounded number of entries, so that it takes no longer where few
entries match. It may then be short, or empty, and still say where the next one begins.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, Final, NamedTuple

import orjson
from sqlalchemy import BigInteger, bindparam, cast, func, select
from sqlalchemy import Text as SqlText
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from meterhold_server.core.model import Entry, EntryKind
from meterhold_server.storage.exchange import Connection
from meterhold_server.storage.rows import entry_from
from meterhold_server.storage.statements import compiled
from meterhold_server.storage.tables import RARE_KINDS, entry
from meterhold_server.storage.time_range import ALL_SEQS, Seqs, seqs_between

LOOKED_AT_MAX: Final = 1000
"""How many entries a page with a filter looks at."""

SCATTERED_MAX: Final = 200
"""The same for entries of rare kinds, each of which may have to be fetched from somewhere else."""

_FREQUENT: Final = frozenset({EntryKind.DEBIT, EntryKind.CAPTURE})

# Each kind is a range of the index of rare kinds.
_RARE_SEQS: Final = f"""
    SELECT seq FROM unnest(%(kinds)s::text[]) AS wanted (of_kind), LATERAL (
        SELECT seq FROM entry
        WHERE account_id = %(account_id)s AND kind = of_kind AND {RARE_KINDS}
            AND seq BETWEEN %(first)s AND %(last)s
        ORDER BY seq {{order}} LIMIT %(limit)s
    ) AS found
    ORDER BY seq {{order}} LIMIT %(limit)s
"""


class EntryFilter(NamedTuple):
    """Which entries: of one of `kinds`, with all of `labels`, from a time on and before another.

    What is not set leaves out nothing.
    """

    kinds: tuple[EntryKind, ...] = ()
    labels: dict[str, str] | None = None
    start_time: datetime | None = None
    end_time: datetime | None = None

    def matches(self, of: Entry) -> bool:
        return (
            (not self.kinds or of.kind in self.kinds)
            and (not self.labels or self.labels.items() <= (of.labels or {}).items())
            and (self.start_time is None or of.create_time >= self.start_time)
            and (self.end_time is None or of.create_time < self.end_time)
        )


class EntryPage(NamedTuple):
    """Entries, and the `seq` after which the next page begins; None if there is nothing more."""

    entries: list[Entry]
    next_after_seq: int | None


class _Look(NamedTuple):
    """Where a page looks: in a range, or at those listed; and where it ends if more follow."""

    seqs: Seqs | list[int]
    end_seq: int | None


def page_of_entries(
    connection: Connection,
    account_id: str,
    wanted: EntryFilter,
    *,
    oldest_first: bool,
    after_seq: int | None,
    limit: int,
) -> EntryPage:
    """Up to `limit` (at most 1000) entries, from the one after `after_seq` on.

    What it reads on the way is never changed afterwards, so that several statements see no less
    than one would.
    """
    look = _Look(ALL_SEQS.beyond(after_seq, oldest_first=oldest_first), None)
    if wanted != EntryFilter():
        look = _look(connection, account_id, wanted, oldest_first, after_seq, limit)
    found = _matching(connection, account_id, wanted, look.seqs, oldest_first, limit + 1)
    if len(found) > limit:
        return EntryPage(found[:limit], found[limit - 1].seq)
    return EntryPage(found, look.end_seq)


def _look(
    connection: Connection,
    account_id: str,
    wanted: EntryFilter,
    oldest_first: bool,
    after_seq: int | None,
    limit: int,
) -> _Look:
    seqs = seqs_between(connection, account_id, wanted.start_time, wanted.end_time)
    seqs = seqs.beyond(after_seq, oldest_first=oldest_first)
    if not wanted.kinds or not _FREQUENT.isdisjoint(wanted.kinds):
        some = seqs.at_most(LOOKED_AT_MAX, oldest_first=oldest_first)
        return _Look(some, (some.last if oldest_first else some.first) if some != seqs else None)
    # Of rare kinds alone, all that are looked at match, unless there are other conditions.
    alone = wanted == EntryFilter(wanted.kinds)
    count = limit + 1 if alone else SCATTERED_MAX
    listed = _rare_seqs(connection, account_id, wanted.kinds, seqs, oldest_first, count)
    return _Look(listed, listed[-1] if len(listed) == count else None)


def _rare_seqs(
    connection: Connection,
    account_id: str,
    kinds: Sequence[EntryKind],
    seqs: Seqs,
    oldest_first: bool,
    limit: int,
) -> list[int]:
    query = _RARE_SEQS.format(order="ASC" if oldest_first else "DESC")
    named = {
        "account_id": account_id,
        "kinds": [kind.value for kind in dict.fromkeys(kinds)],
        "first": seqs.first,
        "last": seqs.last,
        "limit": limit,
    }
    # Here and below planned anew each time, as what is right for one filter is not for another.
    return [row[0] for row in connection.execute(query.encode(), named, prepare=False).fetchall()]


def _matching(
    connection: Connection,
    account_id: str,
    wanted: EntryFilter,
    seqs: Seqs | list[int],
    oldest_first: bool,
    limit: int,
) -> list[Entry]:
    by_list = isinstance(seqs, list)
    query = _query(by_list, oldest_first, tuple(map(bool, wanted)))
    named = {
        "account_id": account_id,
        "seqs": seqs if by_list else [],
        "first": None if by_list else seqs[0],
        "last": None if by_list else seqs[1],
        "kinds": [kind.value for kind in wanted.kinds],
        "labels": orjson.dumps(wanted.labels).decode(),
        "start_time": wanted.start_time,
        "end_time": wanted.end_time,
        "limit": limit,
    }
    anew = False if any(wanted) else None
    return [entry_from(row) for row in connection.execute(query, named, prepare=anew).fetchall()]


@lru_cache(maxsize=64)
def _query(by_list: bool, oldest_first: bool, conditions: tuple[bool, ...]) -> str:
    """The SQL of a page. `conditions` says which fields of the filter are set."""

    def of(name: str, column: Any) -> Any:
        return bindparam(name, type_=column.type)

    seq, account_id, create_time = entry.c.seq, entry.c.account_id, entry.c.create_time
    listed = seq == func.any(cast(bindparam("seqs"), ARRAY(BigInteger)))
    look = listed if by_list else seq.between(of("first", seq), of("last", seq))
    possible = (
        entry.c.kind == func.any(cast(bindparam("kinds"), ARRAY(SqlText))),
        entry.c.labels.contains(cast(bindparam("labels", type_=SqlText), JSONB)),
        create_time >= of("start_time", create_time),
        create_time < of("end_time", create_time),
    )
    chosen = (one for one, is_set in zip(possible, conditions, strict=True) if is_set)
    query = select(entry).where(account_id == of("account_id", account_id), look, *chosen)
    order = seq.asc() if oldest_first else seq.desc()
    return compiled(query.order_by(order).limit(bindparam("limit")))
