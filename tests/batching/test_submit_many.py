"""Operations that are submitted together: one message, few transactions, answers in order."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from itertools import pairwise

import pytest

from core.book import ALICE, debit, debit_once, grant
from core.strategies import BOB
from meterhold_server.batching.failures import Failure, FailureReason
from meterhold_server.batching.lane import LaneLimits
from meterhold_server.core.model import AccountKey
from meterhold_server.core.operations import Chain, Operation
from meterhold_server.core.outcomes import (
    Chained,
    Debited,
    Granted,
    Outcome,
    Reason,
    Rejected,
)
from meterhold_server.storage.verify import verify
from support.engines import Observer, running
from support.proxy import Cut, Proxy
from support.waiting import until


def seqs(answers: Sequence[Outcome | Failure]) -> list[int]:
    assert all(isinstance(answer, Debited) for answer in answers), answers
    return [answer.entry.seq for answer in answers if isinstance(answer, Debited)]


async def test_they_share_a_transaction_and_keep_their_order(
    database_url: str, batch_sizes: list[int]
) -> None:
    async with running(database_url) as engine:
        await engine.submit(grant("gift", 10_000))
        answers = await engine.submit_many([debit(n + 1) for n in range(100)])
    assert seqs(answers) == list(range(2, 102))
    assert [answer.entry.amount_micros for answer in answers if isinstance(answer, Debited)] == [
        -n - 1 for n in range(100)
    ]
    assert batch_sizes == [1, 100]


async def test_more_than_a_batch_is_cut(database_url: str, batch_sizes: list[int]) -> None:
    async with running(database_url) as engine:
        await engine.submit(grant("gift", 10_000))
        assert seqs(await engine.submit_many([debit(1)] * 1000)) == list(range(2, 1002))
    assert batch_sizes == [1, 256, 256, 256, 232]


async def test_what_fits_into_one_transaction_is_not_torn_apart(
    database_url: str, observer: Observer, batch_sizes: list[int]
) -> None:
    async with running(database_url, LaneLimits(batch_operations_max=6)) as engine:
        await engine.submit(grant("gift", 10_000))
        observer.lock(ALICE)
        first = engine.submit(debit(1))
        await until(observer.blocked)
        waiting = [engine.submit_many([debit(1)] * number) for number in (4, 4, 2, 8)]
        last = engine.submit(debit(1))
        observer.let_go()
        many = await asyncio.gather(*waiting)
        assert isinstance(await last, Debited)
        await first
    assert batch_sizes == [1, 1, 4, 4 + 2, 6, 2 + 1]
    assert [seq for answers in many for seq in seqs(answers)] == list(range(3, 21))


async def test_the_operations_of_a_chain_are_counted_one_by_one(
    database_url: str, observer: Observer, batch_sizes: list[int]
) -> None:
    async with running(database_url, LaneLimits(batch_operations_max=3)) as engine:
        await engine.submit(grant("gift", 10_000))
        pair, long = Chain((debit(1), debit(2))), Chain((debit(1),) * 5)
        answers = await engine.submit_many([pair, debit(1), pair, pair, long, debit(1)])
    assert [type(answer) for answer in answers] == [
        Chained, Debited, Chained, Chained, Chained, Debited,
    ]  # fmt: skip
    assert batch_sizes == [1, 2, 1, 1, 1, 1]
    assert len(observer.entries(ALICE)) == 1 + 2 + 1 + 2 + 2 + 5 + 1


async def test_what_a_chain_joins_keeps_its_order(database_url: str) -> None:
    """Each operation is covered only by those before it."""
    keys = [AccountKey("live", f"account-{number}", "credits") for number in range(4)]
    async with running(database_url, lanes=4) as engine:
        await engine.submit(grant("gift", 100, account=keys[0]))
        for turn in range(10):
            moves: list[Operation] = []
            for step, (source, target) in enumerate(pairwise([*keys, keys[0]])):
                key = f"{turn}-{step}"
                moves.append(
                    Chain(
                        (
                            debit_once(key, 100, account=source),
                            grant(key, 100, account=target),
                        )
                    )
                )
            answers = await engine.submit_many(moves)
            assert not [
                outcome
                for answer in answers
                if isinstance(answer, Chained)
                for outcome in answer.outcomes
                if isinstance(outcome, Rejected)
            ]
    assert verify(database_url).clean


async def test_the_first_that_is_named_with_a_key_has_it(
    database_url: str, observer: Observer
) -> None:
    """Though the account is held up and others are free."""
    async with running(database_url, lanes=2) as engine:
        await engine.submit_many([grant("gift", 100), grant("present", 100, account=BOB)])
        observer.lock(ALICE)
        submitted = engine.submit_many(
            [
                debit_once("once", 1),
                debit(1, account=BOB),
                debit_once("once", 1, account=BOB),
                grant("bonus", 1),
                grant("prize", 1, account=BOB, legacy_keys=("bonus",)),
            ]
        )
        await until(observer.blocked)
        observer.let_go()
        answers = await submitted
    assert [type(answer) for answer in answers] == [Debited, Debited, Rejected, Granted, Rejected]
    assert [answer.reason for answer in answers if isinstance(answer, Rejected)] == [
        Reason.IDEMPOTENCY_MISMATCH
    ] * 2


async def test_chains_in_opposite_directions_do_not_deadlock(database_url: str) -> None:
    async with running(database_url, lanes=2) as engine, running(database_url, lanes=2) as other:
        keys = [ALICE, BOB]
        for key in keys:
            await engine.submit(grant(f"gift-{key.account}", 10_000, account=key))

        def moves(name: str, source: AccountKey, target: AccountKey) -> list[Operation]:
            return [
                Chain(
                    (
                        debit_once(f"{name}-{number}", 1, account=source),
                        grant(f"{name}-{number}", 1, account=target),
                    )
                )
                for number in range(20)
            ]

        there, back = (keys[0], keys[1]), (keys[1], keys[0])
        pending = [
            each.submit_many(moves(f"{number}-{turn}", *way))
            for turn in range(5)
            for number, (each, way) in enumerate([(engine, there), (other, back), (other, there)])
        ]
        for answers in await asyncio.gather(*pending):
            assert all(isinstance(answer, Chained) for answer in answers), answers
    assert verify(database_url).clean


async def test_a_full_queue_refuses_all_that_come_together(
    database_url: str, observer: Observer
) -> None:
    """As long as it is not full it takes all on, so that none of them has to be torn apart."""
    async with running(database_url, LaneLimits(queue_operations_max=3)) as engine:
        await engine.submit(grant("gift", 1000))
        observer.lock(ALICE)
        first = engine.submit(debit(1))
        await until(observer.blocked)
        taken_on = engine.submit_many([debit(1)] * 5)
        refused = await engine.submit_many([debit(1)] * 2)
        with pytest.raises(Failure):
            engine.submit(debit(1))
        observer.let_go()
        assert seqs([await first, *await taken_on]) == list(range(2, 8))
        assert seqs(await engine.submit_many([debit(1)])) == [8], "there is room again"
    assert [each.reason for each in refused if isinstance(each, Failure)] == [
        FailureReason.OVERLOADED
    ] * 2


async def test_what_nobody_waits_for_any_more_or_is_too_late_is_not_begun(
    database_url: str, observer: Observer
) -> None:
    async with running(database_url) as engine:
        await engine.submit(grant("gift", 1000))
        observer.lock(ALICE)
        first = engine.submit(debit(1))
        await until(observer.blocked)
        left = engine.submit_many([debit_once("left", 1)] * 2)
        late = engine.submit_many([debit_once("late", 1)] * 2, time.monotonic())
        stayed = engine.submit_many([debit_once("stayed", 1)], time.monotonic() + 60)
        left.cancel()
        observer.let_go()
        await first
        assert [each.reason for each in await late if isinstance(each, Failure)] == [
            FailureReason.DEADLINE_PASSED
        ] * 2
        assert seqs(await stayed) == [3]
    assert observer.ask("SELECT key FROM claim WHERE kind = 'DEBIT_ONCE'") == [("stayed",)]


async def test_close_carries_out_what_waits(database_url: str, observer: Observer) -> None:
    async with running(database_url, LaneLimits(batch_operations_max=4)) as engine:
        await engine.submit(grant("gift", 1000))
        observer.lock(ALICE)
        first = engine.submit(debit(1))
        await until(observer.blocked)
        waiting = [engine.submit_many([debit(1)] * 3), engine.submit_many([debit(1)] * 3)]
        closing = asyncio.create_task(engine.close())
        for _ in range(3):  # the task, and then the task of its lane, begin
            await asyncio.sleep(0)
        refused = await engine.submit_many([debit(1)] * 2)
        observer.let_go()
        await closing
        done = await asyncio.gather(*waiting)
        assert seqs([await first, *done[0], *done[1]]) == list(range(2, 9))
    assert [each.reason for each in refused if isinstance(each, Failure)] == [
        FailureReason.SHUTTING_DOWN
    ] * 2


@pytest.mark.parametrize(
    "cut", [Cut.BEFORE, Cut.AFTER, Cut.DURING], ids=lambda cut: cut.name.lower()
)
async def test_a_chain_whose_commit_was_cut_was_done_whole_or_is_done_again(
    proxy: Proxy, observer: Observer, cut: Cut, database_url: str
) -> None:
    async with running(proxy.url) as engine:
        await engine.submit(grant("gift", 1000))
        proxy.cut_commits(cut)
        chain = Chain((debit_once("move", 60), grant("move", 60, account=BOB)))
        (answer,) = await engine.submit_many([chain])
        assert proxy.cut.is_set()
        assert isinstance(answer, Chained)
        assert [type(outcome) for outcome in answer.outcomes] == [Debited, Granted]
    assert observer.entries(ALICE) == [(1, "GRANT", 1000), (2, "DEBIT", -60)]
    assert observer.entries(BOB) == [(1, "GRANT", 60)]
    assert verify(database_url).clean


async def test_poison_harms_no_other(
    database_url: str, observer: Observer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A chain is carried out, or fails, as one."""
    observer.ask("ALTER TABLE entry ADD CHECK (amount_micros <> -13)")
    async with running(database_url) as engine:
        await engine.submit(grant("gift", 1000))
        chain = Chain((debit(1), debit(13)))
        answers = await engine.submit_many([debit(2), chain, debit(3), debit(13), debit(4)])
    assert [type(answer) for answer in answers] == [Debited, Failure, Debited, Failure, Debited]
    assert [amount for *_, amount in observer.entries(ALICE)] == [1000, -2, -3, -4]
