"""What is decided is what is stored, and what is stored is what the next batch decides upon."""

from __future__ import annotations

from datetime import timedelta

import pytest

from core.book import (
    ALICE,
    START,
    Book,
    capture,
    debit,
    debit_once,
    expire,
    extend,
    grant,
    release,
    reserve,
    settle,
)
from meterhold_server.core.model import (
    AMOUNT_MICROS_MAX,
    AccountKey,
    LotCategory,
    OnExpiry,
    Overage,
    account_id_of,
)
from meterhold_server.core.needs import needs
from meterhold_server.core.operations import Operation
from meterhold_server.storage import due, pages
from meterhold_server.storage.load import load
from meterhold_server.storage.verify import verify

from .conftest import SetClock
from .stored import Stored

LABELS = {"key": "k", "работа": "тест ✓", "quote": "\"'\\", "empty": ""}
USAGE = {"model": "m", "input_tokens": 2**62, "provider_cost_micros": 1}
METADATA = '{"a":[1,2.5,null,true,{}],"b":"é\\"\\\\"}'
CASH = {"currency_code": "EUR", "minor_units": -995}
SOURCE = {"provider": "shop", "order_id": "o-1", "test_mode": True, "variant": ""}
MINUTE = timedelta(minutes=1)
ODD = timedelta(days=6, seconds=1, microseconds=7)
WHOLE_LIFE: list[tuple[timedelta, list[Operation]]] = [
    (
        timedelta(microseconds=123456),
        [
            grant(
                "everything",
                1000,
                legacy_keys=("older", "oldest"),
                reason="purchase",
                category=LotCategory.PROMOTIONAL,
                priority=-7,
                expire_time=START + ODD,
                cash=CASH,
                source=SOURCE,
                labels=LABELS,
                metadata=METADATA,
            ),
            grant("nothing more", AMOUNT_MICROS_MAX),
        ],
    ),
    (
        MINUTE,
        [
            reserve("plain", 100),
            reserve(
                "everything",
                200,
                ttl=ODD,
                min_amount_micros=1,
                min_available_micros=2,
                on_expiry=OnExpiry.CHARGE,
                labels=LABELS,
                metadata=METADATA,
            ),
            reserve("soon charged", 50, ttl=MINUTE, on_expiry=OnExpiry.CHARGE, labels=LABELS),
            reserve("soon released", 50, ttl=MINUTE),
            reserve("let go", 10),
        ],
    ),
    (
        timedelta(seconds=1),
        [
            capture("everything", "first", 30, labels=LABELS, usage=USAGE, metadata=METADATA),
            extend("plain", ttl=timedelta(hours=1), add_amount_micros=7, extend_id="more"),
            extend("everything", on_expiry=OnExpiry.RELEASE),
            release("let go"),
            debit(5, request_id="request", labels=LABELS, usage=USAGE, metadata=METADATA),
            debit_once("once", 6, labels=LABELS, usage=USAGE, metadata=METADATA),
            debit(1),
        ],
    ),
    (2 * MINUTE, [expire()]),
    (
        MINUTE,
        [
            settle("soon charged", 20, usage=USAGE),
            settle("soon released", 20, overage=Overage.OVERDRAFT, metadata=METADATA),
            settle("plain", 300, labels=LABELS),
            # equal requests, answered from what was stored of the first ones
            debit_once("once", 6, usage=USAGE),
            grant("oldest", 1000),
            capture("everything", "first", 30, usage=USAGE),
            settle("soon charged", 20, usage=USAGE),
            extend("plain", ttl=timedelta(hours=1), add_amount_micros=7, extend_id="more"),
        ],
    ),
    (ODD, [expire()]),
]


def test_every_field_of_a_whole_life(whole: Stored, set_clock: SetClock) -> None:
    book = Book()
    for pause, operations in WHOLE_LIFE:
        book.wait(pause)
        set_clock(book.now)
        assert whole.do_all(operations) == book.do_all(operations)
        whole.check_equal_to(book, ALICE.namespace)
    assert {r.state.value for r in book.account().reservations.values()} == {
        "SETTLED",
        "RELEASED",
        "EXPIRED",
    }
    assert verify(whole.url).clean


def test_what_is_loaded_is_what_was_decided(whole: Stored, set_clock: SetClock) -> None:
    """All that an operation may touch: what it names, and the lots that have something left."""
    book = Book()
    for pause, operations in WHOLE_LIFE[:3]:
        book.wait(pause)
        set_clock(book.now)
        whole.do_all(operations)
        book.do_all(operations)
    every = [operation for _, operations in WHOLE_LIFE for operation in operations]
    loaded = load(whole.session.connection, needs(every))
    assert loaded.now == book.now
    expected = book.state
    for account in expected.accounts.values():
        account.lots = [lot for lot in account.lots if lot.live]
        account.charges = {}
    assert loaded.state == expected
    assert all(account.stored for account in loaded.state.accounts.values())


def test_an_account_that_does_not_exist_is_not_loaded(whole: Stored) -> None:
    loaded = load(whole.session.connection, needs([reserve("job", 1), debit_once("key", 1)]))
    assert loaded.state.accounts == {}
    assert loaded.state.claims == {}


@pytest.mark.slow
def test_the_largest_numbers_fit(whole: Stored, set_clock: SetClock) -> None:
    book = Book()
    set_clock(book.now)
    operations = [grant(f"gift-{number}", AMOUNT_MICROS_MAX) for number in range(9000)]
    operations.append(grant("one too many", 1))
    outcomes = whole.do_all(operations)
    assert outcomes == book.do_all(operations)
    assert book.account().granted_micros == 9 * 10**18
    read = pages.read_account(whole.session.connection, account_id_of(ALICE))
    assert read is not None
    assert read.account.remaining_micros == 9 * 10**18


class TestDueAccounts:
    """The sweeper asks by the database's own clock, which no test may set."""

    @pytest.fixture(autouse=True)
    def accounts(self, whole: Stored) -> None:
        keys = [AccountKey("live", f"account-{number}", "credits") for number in range(6)]
        whole.do_all([grant(f"gift-{key.account}", 10, account=key) for key in keys])
        whole.do_all(
            [
                reserve("job", 1, account=key, ttl=timedelta(minutes=minutes))
                for key, minutes in zip(keys[1:], (10, 30, 20, 0.00001, 40), strict=True)
            ]
        )

    def test_what_is_not_due_is_not_told(self, whole: Stored) -> None:
        (only,) = due.due_accounts(whole.session.connection, 100)
        assert only.account.account == "account-4"
        assert 0 <= only.lag_seconds < 60

    def test_the_longest_overdue_come_first_and_no_more_than_asked(self, whole: Stored) -> None:
        whole.session.connection.execute(
            "UPDATE account SET next_expire_time = next_expire_time - interval '25 minutes'"
        )
        found = due.due_accounts(whole.session.connection, 100)
        assert [one.account.account for one in found] == ["account-4", "account-1", "account-3"]
        assert [one.lag_seconds for one in found] == sorted(
            (one.lag_seconds for one in found), reverse=True
        )
        assert found[:2] == [
            one._replace(lag_seconds=found[place].lag_seconds)
            for place, one in enumerate(due.due_accounts(whole.session.connection, 2))
        ]
