"""Money is neither made nor lost, whatever is asked of many accounts by many callers at once.

A second, naive set of rules folds the same operations, and must come to the same numbers.
"""

from __future__ import annotations

import os
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Final, NamedTuple

import pytest

from meterhold_server.core.operations import (
    Debit,
    DebitOnce,
    Expire,
    GrantOnce,
    RefundCharge,
    ReinstateGrant,
    Reserve,
    RevokeGrant,
)
from meterhold_server.core.outcomes import Debited, Granted, Refunded, Rejected, Reserved
from robustness.conservation import acknowledged, floors
from robustness.conservation.book import Book
from robustness.conservation.callers import SHARED_UNIT
from robustness.conservation.comparison import differences
from robustness.conservation.journal import Line
from robustness.conservation.run import RULES, Run, run
from robustness.conservation.told import told
from support.database import DatabaseServer, name_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SEED: Final = int(os.environ.get("METERHOLD_TEST_SEED") or random.randrange(2**32))
OPERATIONS: Final = int(os.environ.get("METERHOLD_TEST_OPERATIONS") or floors.PER)
PLANTED: Final = 30
"""How many wrong numbers of each sort are planted, each in an account by itself."""


class Folded(NamedTuple):
    """A run, and what the model makes of it."""

    run: Run
    lines: list[Line]
    book: Book
    wrong_answers: list[str]


@pytest.fixture(scope="module")
def folded(database_server: DatabaseServer, template: str) -> Iterator[Folded]:
    print(f"METERHOLD_TEST_SEED={SEED}")  # noqa: T201 - to run a failure again
    url = database_server.create_database(template)
    done = run(url, SEED, OPERATIONS)
    print(done.seconds)  # noqa: T201 - what took how long
    lines = list(done.journal.lines())
    yield Folded(done, lines, *_fold(lines))
    database_server.drop_database(name_of(url))


def test_the_audit_finds_nothing(folded: Folded) -> None:
    assert folded.run.violations == ()


def test_all_that_was_told_is_what_the_model_says(folded: Folded) -> None:
    assert folded.wrong_answers == []


def test_the_model_agrees_on_every_number_of_every_account(folded: Folded) -> None:
    assert differences(folded.book.accounts, folded.run.database) == []


def test_nobody_was_told_what_was_not_done(folded: Folded) -> None:
    """Each outcome that a caller has is the one of its own operation, carried out once.

    What may be done twice counts once less for each batch that was done again on purpose.
    """
    done = Counter(id(line.operation) for line in folded.lines)
    for batch in folded.run.journal.done_again:
        done.subtract(id(operation) for operation in batch.operations)
    by_operation = {id(line.operation): line.outcome for line in folded.lines}
    told_of = folded.run.load.told
    wrong = [call for key, call in told_of.items() if told(by_operation[key]) != told(call[1])]
    assert wrong == []
    assert {done[key] for key in told_of} == {1}


def test_every_entry_is_known_to_somebody_or_its_time_had_come(folded: Folded) -> None:
    load = folded.run.load
    known = acknowledged.entries_told(load.told.values())
    assert acknowledged.unexplained(known, load.unknown, folded.run.database) == []


def test_every_unknown_is_resolved_by_its_key(folded: Folded) -> None:
    load = folded.run.load
    least = OPERATIONS // 500
    assert load.resolved == len(load.unknown) >= least
    done = {id(line.operation) for line in folded.lines}
    carried_out = sum(id(operation) in done for operation in load.unknown)
    assert least // 10 <= carried_out, "some were done though nobody waited"
    assert OPERATIONS // 4_000 <= folded.run.lost_and_done <= len(folded.run.journal.doubtful)


def test_a_lost_or_altered_operation_is_seen(folded: Folded) -> None:
    """The model can fail: one operation less, or one micro more, and it does not agree."""
    chance = random.Random(SEED)
    by_unit = _by_unit(folded.lines)
    units = sorted({key.unit for key in folded.book.accounts} - {SHARED_UNIT})
    for unit in chance.sample(units, PLANTED):
        lines = by_unit[unit]
        assert _disagreements(folded, lines, unit) == []
        done = [number for number, line in enumerate(lines) if _is_a_first_success(line)]
        lost = chance.choice(done)
        assert _disagreements(folded, lines[:lost] + lines[lost + 1 :], unit), lines[lost]
        altered = chance.choice([number for number in done if _moves_its_amount(lines[number])])
        lines[altered] = _altered(lines[altered])
        assert _disagreements(folded, lines, unit), lines[altered]


def test_much_happened(folded: Folded) -> None:
    answers = [told(line.outcome) for line in folded.lines]
    operations = Counter(type(line.operation).__name__ for line in folded.lines)
    names = Counter(answer.name for answer in answers)
    replays = Counter(answer.name for answer in answers if answer.replayed)
    accounts = folded.book.accounts.values()
    entries = Counter(line.kind for account in accounts for line in account.ledger)
    counts = {"operations": operations, "names": names, "replays": replays, "entries": entries}
    print({what: dict(count.most_common()) for what, count in counts.items()})  # noqa: T201
    too_few = floors.missing(operations, floors.OPERATIONS, OPERATIONS)
    too_few += floors.missing(names, floors.OUTCOMES | floors.REFUSALS, OPERATIONS)
    too_few += floors.missing(replays, floors.REPLAYS, OPERATIONS)
    too_few += floors.missing(entries, floors.ENTRIES, OPERATIONS)
    few = min(OPERATIONS, floors.PER)
    too_few += floors.missing({"accounts": len(accounts)}, floors.ACCOUNTS, few)
    assert too_few == []


def _fold(lines: Iterable[Line]) -> tuple[Book, list[str]]:
    """What the model makes of it all, and which answers it does not agree with."""
    book = Book(RULES.ttl_default, RULES.settle_grace)
    wrong = []
    for line in lines:
        answer = book.enter(line.operation, line.now)
        if answer != told(line.outcome):
            wrong.append(f"{line}, and by the model {answer}")
    return book, wrong


def _by_unit(lines: Iterable[Line]) -> dict[str, list[Line]]:
    """What concerns the accounts of a unit. What was refused there only let time pass."""
    found: dict[str, list[Line]] = defaultdict(list)
    for line in lines:
        unit = line.operation.account.unit
        if isinstance(line.operation, RevokeGrant | ReinstateGrant) and not unit:
            # It names no account; who made up the key of the grant has a unit of the same number.
            unit = f"unit-{line.operation.grant_key[1:].partition('-')[0]}"
        if isinstance(line.outcome, Rejected):
            line = line._replace(operation=Expire(line.operation.account))
        found[unit].append(line)
    return found


def _disagreements(folded: Folded, lines: Iterable[Line], unit: str) -> list[str]:
    book, _ = _fold(lines)
    return differences(book.accounts, folded.run.database, unit=unit)


def _is_a_first_success(line: Line) -> bool:
    """And one that a replay could not stand in for: it was written at its own time."""
    match line.outcome:
        case Granted(entry=None):
            return False
        case Debited() | Granted() | Refunded() | Reserved():
            return not line.outcome.replayed
        case _:
            return False


def _moves_its_amount(line: Line) -> bool:
    """Not if it takes what there is: a hold with a minimum, or a refund of all that is left."""
    asked = line.operation
    return not isinstance(asked, Reserve) and getattr(asked, "amount_micros", 0) > 0


def _altered(line: Line) -> Line:
    asked = line.operation
    assert isinstance(asked, Debit | DebitOnce | GrantOnce | RefundCharge)
    return line._replace(operation=replace(asked, amount_micros=asked.amount_micros + 1))
