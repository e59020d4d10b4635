"""An operation that cannot be carried out harms no other.

The edge lets none of these through. Should one come through after all, its caller is told of a bug
and everyone else's answer is as if it had never been there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

import pytest
from structlog.testing import capture_logs
from structlog.typing import EventDict

from core.book import ALICE, Book, debit, debit_once, grant, reserve
from meterhold_server.batching import transaction
from meterhold_server.batching.failures import Failure, FailureReason
from meterhold_server.core.decide import Decision, decide
from meterhold_server.core.model import AccountKey, Rules, State
from meterhold_server.core.operations import Operation
from meterhold_server.core.outcomes import Debited, Outcome, Rejected, Reserved
from meterhold_server.storage.verify import verify
from support.engines import Observer, answers, running

OTHER = AccountKey("live", "other", "credits")
COMPANY: list[Operation] = [
    operation
    for number in range(7)
    for operation in (
        debit_once(f"key-{number % 5}", 1 + number % 5),
        reserve(f"job-{number}", 20),
        debit(3, account=OTHER),
    )
]
"""Twenty-one operations: charges, replays, holds, and refusals from the fifth hold on."""

POISON: dict[str, Operation] = {
    "NUL in a reservation id": reserve("job\0", 1),
    "NUL in a key": debit_once("key\0", 1),
    "NUL in a label": debit(1, labels={"run": "\0"}),
    "NUL in metadata": debit(1, metadata='{"note": "\\u0000"}'),
    "metadata that is not JSON": debit(1, metadata="{not JSON"),
    "an id too long for an index": reserve("".join(map(chr, range(256, 9000))), 1),
    "a time past the calendar": reserve("job", 1, ttl=timedelta.max),
    "half a character": debit_once("\ud800", 1),
}


@pytest.fixture(autouse=True)
def logged() -> Iterator[list[EventDict]]:
    """What is logged, kept from a console that takes seconds to draw a traceback."""
    with capture_logs() as logs:
        yield logs


def balances(outcomes: Sequence[object]) -> list[object]:
    """Outcomes without their times, which differ from run to run."""
    return [
        (type(outcome), outcome.balance, getattr(outcome, "replayed", None))
        if isinstance(outcome, Debited | Reserved)
        else outcome
        for outcome in outcomes
    ]


def as_if_alone() -> list[object]:
    book = Book()
    book.do(grant("gift", 100))
    book.do(grant("other", 100, account=OTHER))
    outcomes = book.do_all(COMPANY)
    assert any(isinstance(outcome, Rejected) for outcome in outcomes)
    return balances(outcomes)


async def with_company(
    database_url: str, poison: Operation, place: int
) -> tuple[list[Outcome | BaseException], Failure]:
    """Submit the poison in the midst of the others. Answers theirs, and its own."""
    async with running(database_url) as engine:
        await answers(engine, [grant("gift", 100), grant("other", 100, account=OTHER)])
        operations = [*COMPANY[:place], poison, *COMPANY[place:]]
        outcomes = await answers(engine, operations)
    failed = outcomes.pop(place)
    assert isinstance(failed, Failure)
    return outcomes, failed


@pytest.mark.parametrize("place", [0, 9, len(COMPANY)])
@pytest.mark.parametrize("poison", POISON.values(), ids=POISON)
async def test_what_cannot_be_stored_is_answered_alone(
    database_url: str, logged: list[EventDict], poison: Operation, place: int
) -> None:
    outcomes, failed = await with_company(database_url, poison, place)
    assert failed.reason is FailureReason.INTERNAL
    assert failed.applied is False
    (log,) = (line for line in logged if line["event"] == "operation_failed")
    assert log["error_id"] == failed.error_id != ""
    assert balances(outcomes) == as_if_alone()
    assert verify(database_url).clean


async def test_what_the_core_fails_on_is_answered_alone(
    database_url: str, monkeypatch: pytest.MonkeyPatch, batch_sizes: list[int]
) -> None:
    poison = debit(666)

    def fail(
        state: State, operations: Sequence[Operation], now: datetime, rules: Rules
    ) -> Decision:
        decision = decide(state, operations, now, rules)
        assert poison not in operations
        return decision

    monkeypatch.setattr(transaction, "decide", fail)
    outcomes, failed = await with_company(database_url, poison, 9)
    assert failed.reason is FailureReason.INTERNAL
    assert balances(outcomes) == as_if_alone()
    assert len(batch_sizes) < 20, "it is found by halving, not one by one"
    assert verify(database_url).clean


async def test_several_are_each_found(database_url: str, observer: Observer) -> None:
    async with running(database_url) as engine:
        await engine.submit(grant("gift", 100))
        poison = POISON["metadata that is not JSON"]
        outcomes = await answers(engine, [poison, debit(1), poison, debit(2), poison])
    assert [isinstance(outcome, Failure) for outcome in outcomes] == [True, False] * 2 + [True]
    assert observer.entries(ALICE)[1:] == [(2, "DEBIT", -1), (3, "DEBIT", -2)]
    error_ids = {o.error_id for o in outcomes if isinstance(o, Failure)}
    assert len(error_ids) == 3
