"""Which labels a block keeps sums of, and which blocks a report takes."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.book import START
from meterhold_server.core.charge_blocks import (
    BLOCK_ENTRIES,
    BlockKey,
    BlockLabels,
    ChargeBlock,
    cover,
    labels_to_sum,
    whole_blocks,
)

TIME_OF_AN_ENTRY = timedelta(minutes=1)
NOTHING = BlockLabels(None, None)


@pytest.mark.parametrize(
    ("sums", "expected"),
    [
        ({}, BlockLabels((), ())),
        ({"": 1}, BlockLabels((), ())),
        ({"": 512}, BlockLabels((), ())),
        ({"": 513}, NOTHING),
        ({"": 513, "key": 1}, NOTHING),
        ({"": 8, "key": 100, "run": 4000}, BlockLabels(("key",), ("run",))),
        ({"": 8, "key": 504}, BlockLabels(("key",), ())),
        ({"": 8, "key": 505}, BlockLabels((), ("key",))),
        ({"": 8, "b": 500, "a": 500, "c": 499}, BlockLabels(("a", "b", "c"), ())),
        # All together no more than half of the entries: 8 + 4 * 508 = 2040 of 2048.
        (
            {"": 8, **dict.fromkeys("abcde", 500)},
            BlockLabels(("a", "b", "c", "d"), ("e",)),
        ),
        (
            {"": 8, "few": 1, **{f"key-{n:02}": 4096 for n in range(64)}},
            BlockLabels(("few",), tuple(f"key-{n:02}" for n in range(64))),
        ),
        ({"": 8, "few": 1, **{f"key-{n}": 4096 for n in range(65)}}, BlockLabels(("few",), None)),
    ],
)
def test_labels_with_few_values_are_summed(sums: dict[str, int], expected: BlockLabels) -> None:
    assert labels_to_sum(sums, 4096) == expected


@pytest.mark.parametrize(
    ("labels", "label", "expected"),
    [
        (BlockLabels(("key",), ("run",)), "", ""),
        (BlockLabels(("key",), ("run",)), "key", "key"),
        (BlockLabels(("key",), ("run",)), "run", None),
        (BlockLabels(("key",), ("run",)), "never used", ""),
        (BlockLabels(("key",), None), "perhaps used", None),
        (BlockLabels(("key",), None), "key", "key"),
        (NOTHING, "", None),
        (NOTHING, "key", None),
    ],
)
def test_a_block_says_by_which_sums_it_tells_a_label(
    labels: BlockLabels, label: str, expected: str | None
) -> None:
    assert labels.sums_for(label) == expected


def test_blocks_are_whole_and_begin_at_the_first_entry() -> None:
    assert list(whole_blocks("a", 3, (4, 2))) == [BlockKey("a", 1, 2)]
    assert [key[1:] for key in whole_blocks("a", 9, (4, 2))] == [
        *((1, 2), (3, 2), (5, 2), (7, 2)),
        *((1, 4), (5, 4)),
    ]
    assert list(whole_blocks("a", min(BLOCK_ENTRIES) - 1)) == []
    assert len(list(whole_blocks("a", 65_536))) == 17


def time_of(seq: int) -> datetime:
    return START + TIME_OF_AN_ENTRY * seq


def block(first_seq: int, entry_count: int, labels: BlockLabels) -> ChargeBlock:
    key = BlockKey("a", first_seq, entry_count)
    return ChargeBlock(key, time_of(first_seq), time_of(key.last_seq), labels)


LABELS = st.sampled_from([BlockLabels((), ()), BlockLabels(("key",), ()), NOTHING])
BLOCKS = st.lists(st.builds(block, st.integers(1, 60), st.integers(1, 20), LABELS), max_size=30)
TIMES = st.one_of(st.none(), st.integers(-2, 90).map(time_of))


@given(BLOCKS, st.integers(1, 60), st.integers(0, 80), TIMES, TIMES, st.sampled_from(["", "key"]))
def test_every_entry_is_read_once(
    blocks: list[ChargeBlock],
    first: int,
    last: int,
    start: datetime | None,
    end: datetime | None,
    label: str,
) -> None:
    found = cover(blocks, (first, last), (start, end), label)
    ranges = [(key.first_seq, key.last_seq) for key, _ in found.sums]
    read = [seq for a, b in [*ranges, *found.rest] for seq in range(a, b + 1)]
    assert sorted(read) == list(range(first, last + 1))
    for key, sums in found.sums:
        assert sums in {one.labels.sums_for(label) for one in blocks if one.key == key}
        assert start is None or time_of(key.first_seq) >= start
        assert end is None or time_of(key.last_seq) < end


def test_large_blocks_are_taken_first_and_small_ones_at_the_edges() -> None:
    keep = BlockLabels(("key",), ("run",))
    blocks = [
        *(block(seq, 4, keep) for seq in range(1, 41, 4)),
        *(block(seq, 16, BlockLabels(("key", "run"), ())) for seq in (1, 17)),
    ]
    found = cover(blocks, (1, 43), (time_of(5), None), "key")
    assert [key[1:] for key, _ in found.sums] == [
        *((5, 4), (9, 4), (13, 4)),
        (17, 16),
        *((33, 4), (37, 4)),
    ]
    assert found.rest == [(1, 4), (41, 43)]
    only_large = cover(blocks, (1, 43), (None, None), "run")
    assert [key[1:] for key, _ in only_large.sums] == [(1, 16), (17, 16)]
    assert only_large.rest == [(33, 43)]
