"""Batching is invisible in the database too.

The same operations are carried out three times: whole batches in one database, one by one in
another, and by the pure core in memory. All three give the same answers and end in the same state,
to the last row and field.
"""

from __future__ import annotations

from datetime import timedelta
from itertools import count

import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from core.book import ALICE, START, Book, debit, debit_once, expire, grant, reserve, settle
from core.strategies import ACCOUNTS, MINUTE, Batch, batches, in_namespace
from meterhold_server.core.model import OnExpiry
from meterhold_server.core.operations import GrantOnce, Operation, RevokeGrant
from meterhold_server.core.outcomes import Revoked
from meterhold_server.storage.verify import verify
from support import contents

from .conftest import SetClock
from .stored import Stored

DIFFERENTIAL = settings(
    max_examples=60,
    deadline=None,
    print_blob=True,
    # Each example has a namespace of its own in the databases that it shares with the others.
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)

_namespaces = count()
_credits = st.sampled_from([None, None, (25, False), (25, True), (1000, True)])
_openings = st.tuples(*(st.sampled_from([100, 40, 0]) for _ in ACCOUNTS))


@pytest.mark.slow
def test_batches_one_by_one_and_in_memory_are_the_same(
    whole: Stored, one_by_one: Stored, set_clock: SetClock
) -> None:
    @DIFFERENTIAL
    @given(script=batches, opening=_openings, credit=_credits)
    def check(
        script: list[Batch], opening: tuple[int, ...], credit: tuple[int, bool] | None
    ) -> None:
        namespace = f"n{next(_namespaces)}"
        accounts = [key._replace(namespace=namespace) for key in ACCOUNTS]
        book = Book()
        book.now = START
        set_clock(book.now)
        first: list[Operation] = [
            grant(f"first-{key.account}", amount, account=key)
            for key, amount in zip(accounts, opening, strict=True)
            if amount
        ]
        if first:
            assert whole.do_all(first) == one_by_one.do_each(first) == book.do_all(first)
        if credit:
            limit, holds = credit
            for operation in first:
                book.allow_credit(limit, holds=holds, key=operation.account)
                for stored in (whole, one_by_one):
                    stored.allow_credit(operation.account, limit, holds=holds)
        for pause, batch in script:
            book.wait(pause)
            set_clock(book.now)
            operations = [in_namespace(operation, namespace) for operation in batch]
            outcomes = whole.do_all(operations)
            alone = one_by_one.do_each(operations)
            note(f"{book.now} {operations} → {outcomes}")
            assert outcomes == alone
            assert outcomes == book.do_all(operations)
        rows = contents.rows(whole.session.connection, namespace)
        assert rows == contents.rows(one_by_one.session.connection, namespace)
        for stored in (whole, one_by_one):
            stored.check_equal_to(book, namespace)

    check()
    for stored in (whole, one_by_one):
        assert verify(stored.url).violations == ()


def test_a_batch_sees_what_it_did_itself(
    whole: Stored, one_by_one: Stored, set_clock: SetClock
) -> None:
    """An account, its first lot, a key and its replay, a refusal: all inside one batch."""
    set_clock(START)
    operations: list[Operation] = [
        debit_once("early", 10),
        grant("gift", 100, legacy_keys=("gift-of-old",)),
        debit_once("early", 10),
        debit_once("early", 10),
        debit_once("early", 11),
        grant("gift-of-old", 100),
        GrantOnce(ALICE, "late", 10, expire_time=START + timedelta(microseconds=1)),
    ]
    outcomes = whole.do_all(operations)
    assert outcomes == one_by_one.do_each(operations) == Book().do_all(operations)
    connections = (whole.session.connection, one_by_one.session.connection)
    first, second = (contents.rows(connection, ALICE.namespace) for connection in connections)
    assert first == second
    assert len(first["entry"]) == 3


def test_a_late_settle_gives_back_to_a_lot_with_nothing_left(
    whole: Stored, one_by_one: Stored, set_clock: SetClock
) -> None:
    """The lot is not among the live ones: only the loaded reservation tells that it is needed."""
    book = Book()
    batches_of_a_hold: list[list[Operation]] = [
        [
            grant("spent", 50),
            grant("left", 50),
            reserve("job", 50, ttl=MINUTE, on_expiry=OnExpiry.CHARGE),
        ],
        [expire()],
        [settle("job", 20)],
    ]
    for operations in batches_of_a_hold:
        set_clock(book.now)
        outcomes = book.do_all(operations)
        assert whole.do_all(operations) == one_by_one.do_each(operations) == outcomes
        book.wait(2 * MINUTE)
    for stored in (whole, one_by_one):
        stored.check_equal_to(book, ALICE.namespace)
    assert book.account().available_micros == 80


def test_a_grant_gets_another_key_and_is_revoked_by_it(
    whole: Stored, one_by_one: Stored, set_clock: SetClock
) -> None:
    """Its lot has nothing left: only the batch's own grant tells that it is needed."""
    book = Book()
    set_clock(book.now)
    revoke = RevokeGrant(ALICE, "newer", fraction_ppm=1_000_000)
    batches_of_a_grant: list[list[Operation]] = [
        [grant("older", 50), debit(50), grant("other", 30)],
        [
            grant("new", 50, legacy_keys=("older",)),
            grant("newer", 50, legacy_keys=("new",)),
            revoke,
        ],
    ]
    for operations in batches_of_a_grant:
        outcomes = book.do_all(operations)
        assert whole.do_all(operations) == one_by_one.do_each(operations) == outcomes
    assert isinstance(outcomes[-1], Revoked)
    assert book.account().debt_micros == 20
