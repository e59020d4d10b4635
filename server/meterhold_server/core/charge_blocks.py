"""Blocks: runs of an account's entries whose charges are summed up, once and for ever.

Entries never change and `seq` has no gaps, so the sums of a whole block stay right. Here is what a
block keeps sums of, and which blocks a report may take instead of the charges themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Final, NamedTuple

BLOCK_ENTRIES: Final = (4096, 65_536)
"""How many entries a block may have. Blocks of a size follow each other from the first entry on.

Small ones leave few charges at the edges of a report. Large ones make few sums of very many
charges, and keep sums of labels that have too many values for a small one.
"""

NO_LABEL: Final = ""
"""Stands in the place of a label's key for the sums that are not by label."""

_ENTRIES_PER_SUM_MIN: Final = 8
_ENTRIES_PER_SUM_IN_ALL_MIN: Final = 2
_VARIED_LABELS_MAX: Final = 64


class BlockKey(NamedTuple):
    """Which entries of which account: `entry_count` of them from `first_seq` on."""

    account_id: str
    first_seq: int
    entry_count: int

    @property
    def last_seq(self) -> int:
        return self.first_seq + self.entry_count - 1


class BlockLabels(NamedTuple):
    """The keys of labels in a block: `summed` have sums by value, `varied` have too many values.

    No charge has any other key. None as `varied` says that any key may be one of those; None as
    `summed` that nothing at all is summed up.
    """

    summed: tuple[str, ...] | None
    varied: tuple[str, ...] | None

    def sums_for(self, label: str) -> str | None:
        """The key of the sums that tell the values of `label`. None if only the charges can."""
        if self.summed is None:
            return None
        if label == NO_LABEL or label in self.summed:
            return label
        return None if self.varied is None or label in self.varied else NO_LABEL


class ChargeBlock(NamedTuple):
    """A block, and when its first and its last entry were made, by their times."""

    key: BlockKey
    first_time: datetime
    last_time: datetime
    labels: BlockLabels

    def is_within(self, start_time: datetime | None, end_time: datetime | None) -> bool:
        """Whether all of it is of a range of time. None = open."""
        begun = start_time is None or self.first_time >= start_time
        return begun and (end_time is None or self.last_time < end_time)


class Cover(NamedTuple):
    """Blocks with the key of the sums to take of each, and the seqs to read charge by charge."""

    sums: list[tuple[BlockKey, str]]
    rest: list[tuple[int, int]]


def labels_to_sum(sums: Mapping[str, int], entry_count: int) -> BlockLabels:
    """Which labels to keep sums of, by the number of sums that each would have.

    All sums together have to be clearly fewer than the entries. The labels with the fewest come
    first. The sums under `NO_LABEL` are those of all charges; charges without a label add as many
    to it.
    """
    without = sums.get(NO_LABEL, 0)
    if without * _ENTRIES_PER_SUM_MIN > entry_count:
        return BlockLabels(None, None)
    summed, varied = list[str](), list[str]()
    left = entry_count // _ENTRIES_PER_SUM_IN_ALL_MIN - without
    for count, label in sorted((n + without, label) for label, n in sums.items() if label):
        if count * _ENTRIES_PER_SUM_MIN > entry_count or count > left:
            varied.append(label)
        else:
            summed.append(label)
            left -= count
    listed = tuple(sorted(varied)) if len(varied) <= _VARIED_LABELS_MAX else None
    return BlockLabels(tuple(sorted(summed)), listed)


def cover(
    blocks: Iterable[ChargeBlock],
    seqs: tuple[int, int],
    times: tuple[datetime | None, datetime | None],
    label: str,
) -> Cover:
    """Put together all entries from the first to the last of `seqs`, each once.

    Takes what blocks there are of a range of time, large ones first, if they can tell the values of
    `label`. What lies between them is the rest.
    """
    following, last_seq = seqs
    found = Cover([], [])
    for block in sorted(blocks, key=lambda one: (one.key.first_seq, -one.key.entry_count)):
        sums = block.labels.sums_for(label)
        fits = block.key.first_seq >= following and block.key.last_seq <= last_seq
        if sums is None or not fits or not block.is_within(*times):
            continue
        if block.key.first_seq > following:
            found.rest.append((following, block.key.first_seq - 1))
        found.sums.append((block.key, sums))
        following = block.key.last_seq + 1
    if following <= last_seq:
        found.rest.append((following, last_seq))
    return found


def whole_blocks(
    account_id: str, seq: int, entry_counts: Iterable[int] = BLOCK_ENTRIES
) -> Iterator[BlockKey]:
    """All blocks of an account that are full by its entry `seq`, small ones first, by `seq`."""
    for entry_count in sorted(entry_counts):
        for first_seq in range(1, seq - entry_count + 2, entry_count):
            yield BlockKey(account_id, first_seq, entry_count)
