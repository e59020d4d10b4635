"""Replays: an equal request gets the first answer again, a different one the field that differs."""

from __future__ import annotations

import pytest

from meterhold_server.core import replay
from meterhold_server.core.model import Overage, Receipt

from .table import check


def test_a_reserve_is_replayed_whatever_became_of_the_hold() -> None:
    check("""
        grant   gift 100            | granted 100
        reserve job 60 ttl=5m       | held 60 until=5m available=40 held=60 seq=1
        debit   40                  | debited 40
        reserve job 60 ttl=5m       | held 60 until=5m available=40 held=60 seq=1 replayed
        extend  job ttl=10m         | holds 60 until=10m
        reserve job 60 ttl=5m       | held 60 until=5m available=40 replayed
        at      10m
        expire                      | expired released=1
        reserve job 60 ttl=5m       | held 60 until=5m available=40 replayed
        settle  job 10              | charged 10 overage=10 late
        reserve job 60 ttl=5m       | held 60 until=5m available=40 held=60 seq=1 replayed
        balance available=50 held=0 spent=50 seq=3
    """)


def test_a_smaller_hold_is_replayed_as_small_though_there_is_more_by_now() -> None:
    check("""
        grant   gift 50             | granted 50
        reserve job 60 min=10       | held 50
        grant   more 50             | granted 50
        reserve job 60 min=10       | held 50 available=0 replayed
    """)


def test_a_settle_is_replayed() -> None:
    check("""
        grant   gift 100            | granted 100
        reserve job 60              | held 60
        settle  job 99              | charged 99 from_hold=60 overage=39 available=1
        grant   more 50             | granted 50
        settle  job 99              | charged 99 from_hold=60 overage=39 available=1 replayed
        at      30d
        settle  job 99              | charged 99 from_hold=60 overage=39 available=1 replayed
        ledger  GRANT+100 CAPTURE-99 GRANT+50
    """)


def test_a_shortfall_is_replayed_though_there_is_enough_by_now() -> None:
    check("""
        grant   gift 100            | granted 100
        reserve job 60              | held 60
        settle  job 110             | charged 100 from_hold=60 overage=40 shortfall=10
        grant   more 50             | granted 50
        settle  job 110             | charged 100 from_hold=60 overage=40 shortfall=10 replayed
        balance available=50
    """)


def test_a_late_settle_is_replayed_even_after_the_grace_time() -> None:
    check("""
        grant   gift 100                         | granted 100
        reserve job 60 ttl=5m on_expiry=charge   | held 60
        at      6m
        settle  job 45                           | charged 45 from_hold=45 released=15 late
        at      30d
        settle  job 45                           | charged 45 from_hold=45 released=15 late replayed
    """)


def test_a_capture_is_replayed_whatever_became_of_the_hold() -> None:
    check("""
        grant   gift 100            | granted 100
        reserve job 60 ttl=5m       | held 60
        capture job a 20            | charged 20 from_hold=20 entry=2 held=40
        capture job b 20            | charged 20 from_hold=20 entry=3 held=20
        capture job a 20            | charged 20 from_hold=20 entry=2 held=40 replayed
        release job                 | released
        capture job a 20            | charged 20 from_hold=20 entry=2 held=40 replayed
        at      30d
        capture job b 20            | charged 20 from_hold=20 entry=3 held=20 replayed
        ledger  GRANT+100 CAPTURE-20 CAPTURE-20
    """)


def test_an_extension_with_an_id_is_replayed_and_grows_once() -> None:
    check("""
        grant   gift 100                 | granted 100
        reserve job 10 ttl=5m            | held 10
        extend  job add=20 ttl=9m id=a   | holds 30 until=9m available=70
        at      1m
        extend  job add=20 ttl=9m id=a   | holds 30 until=9m available=70 replayed
        extend  job add=20 ttl=9m id=b   | holds 50 until=10m
        settle  job 0                    | charged 0 released=50
        extend  job add=20 ttl=9m id=a   | holds 30 until=9m available=70 replayed
    """)


def test_a_debit_with_an_id_is_replayed() -> None:
    check("""
        grant   gift 100            | granted 100
        debit   60 id=request       | debited 60 entry=2 available=40
        debit   40 id=other         | debited 40
        debit   60 id=request       | debited 60 entry=2 available=40 seq=2 replayed
        account bob
        grant   other 100           | granted 100
        debit   60 id=request       | debited 60 entry=2 available=40   # bob's own: his first
        balance available=40
    """)


def test_a_debit_once_is_replayed() -> None:
    check("""
        grant   gift 100            | granted 100
        debit_once key 60           | debited 60 entry=2 available=40
        debit_once other 40         | debited 40
        debit_once key 60           | debited 60 entry=2 available=40 seq=2 replayed
        ledger  GRANT+100 DEBIT-60 DEBIT-40
    """)


def test_a_debit_that_went_to_another_account_is_a_conflict_not_a_second_charge() -> None:
    check("""
        grant   gift 100            | granted 100
        debit_once key 60           | debited 60
        account bob
        grant   other 100           | granted 100
        debit_once key 60           | refused IDEMPOTENCY_MISMATCH field=account original=alice
        account alice unit=tokens
        grant   tokens 100          | granted 100
        debit_once key 60           | refused IDEMPOTENCY_MISMATCH field=unit original=credits
        account nobody
        debit_once key 60           | refused IDEMPOTENCY_MISMATCH field=account original=alice
        grant   gift 100            | refused IDEMPOTENCY_MISMATCH field=account original=alice
        nothing nobody
        account alice namespace=test
        grant   gift 100            | granted 100
        debit_once key 60           | debited 60
    """)


def test_a_grant_is_replayed_with_the_debt_it_repaid() -> None:
    check("""
        grant   gift 10                   | granted 10
        debit   40 overage=overdraft      | debited 40
        grant   more 50 expires=5m        | granted 50 repaid=30 entry=3 available=20
        at      1h
        grant   more 50 expires=5m        | granted 50 repaid=30 entry=3 available=20 seq=3 replayed
        balance available=0 expired=20
    """)


def test_one_key_may_name_one_operation_of_each_kind() -> None:
    check("""
        grant   key 100             | granted 100
        debit_once key 10           | debited 10
        debit   10 id=key           | debited 10
        reserve key 10              | held 10
        capture key key 5           | charged 5 from_hold=5
        extend  key add=1 id=key    | holds 6
    """)


@pytest.mark.parametrize(
    ("first", "again", "field", "original"),
    [
        ("60", "61", "amount_micros", "60"),
        ("60", "61 ttl=5m", "amount_micros", "60"),
        ("60 ttl=5m", "60 ttl=5m1s", "ttl", "300s"),
        ("60 ttl=5m", "60", "ttl", "300s"),
        ("60 ttl=1s500000us", "60 ttl=1s", "ttl", "1.500000s"),
        ("60", "60 ttl=15m", "ttl", ""),
        ("60 min=10", "60 min=11", "min_amount_micros", "10"),
        ("60", "60 min=11", "min_amount_micros", "0"),
        ("60 floor=10", "60", "min_available_micros", "10"),
        ("60", "60 floor=10", "min_available_micros", "0"),
        ("60 on_expiry=charge", "60", "on_expiry", "CHARGE"),
        ("60", "60 on_expiry=charge", "on_expiry", "RELEASE"),
    ],
)
def test_each_field_of_a_reserve(first: str, again: str, field: str, original: str) -> None:
    _compares("reserve next", first, again, field, original)


@pytest.mark.parametrize(
    ("first", "again", "field", "original"),
    [
        ("60", "61", "amount_micros", "60"),
        ("60", "0", "amount_micros", "60"),
        ("0", "60", "amount_micros", "0"),
        ("60", "60 overage=reject", "overage", "CAP"),
        ("60 overage=overdraft", "60", "overage", "OVERDRAFT"),
        ("60 usage=model:m", "60 usage=model:n", "usage", "{'model':'m'}"),
        ("60 usage=model:m", "60", "usage", "{'model':'m'}"),
        ("60", "60 usage=model:m", "usage", ""),
    ],
)
@pytest.mark.parametrize("operation", ["settle job", "capture job a"])
def test_each_field_of_a_settle(
    operation: str, first: str, again: str, field: str, original: str
) -> None:
    _compares(operation, first, again, field, original)


@pytest.mark.parametrize(
    ("first", "again", "field", "original"),
    [
        ("ttl=5m", "ttl=6m", "ttl", "300s"),
        ("ttl=5m", "", "ttl", "300s"),
        ("add=5", "add=6", "add_amount_micros", "5"),
        ("add=5", "", "add_amount_micros", "5"),
        ("ttl=5m", "ttl=5m add=5", "add_amount_micros", "0"),
        ("on_expiry=charge", "on_expiry=release", "on_expiry", "CHARGE"),
        ("ttl=5m", "ttl=5m on_expiry=release", "on_expiry", ""),
    ],
)
def test_each_field_of_an_extension(first: str, again: str, field: str, original: str) -> None:
    _compares("extend job id=a", first, again, field, original)


@pytest.mark.parametrize(
    ("first", "again", "field", "original"),
    [
        ("60", "61", "amount_micros", "60"),
        ("60", "60 overage=overdraft", "overage", "REJECT"),
        ("60 overage=overdraft", "60", "overage", "OVERDRAFT"),
        ("60 usage=model:m", "60 usage=model:n", "usage", "{'model':'m'}"),
        ("60", "60 usage=model:m", "usage", ""),
    ],
)
@pytest.mark.parametrize("operation", ["debit id=request", "debit_once key"])
def test_each_field_of_a_debit(
    operation: str, first: str, again: str, field: str, original: str
) -> None:
    _compares(operation, first, again, field, original)


@pytest.mark.parametrize(
    ("first", "again", "field", "original"),
    [
        ("60", "61", "amount_micros", "60"),
        ("60 reason=a", "60 reason=b", "reason", "a"),
        ("60", "60 reason=b", "reason", ""),
        ("60", "60 category=promotional", "category", "PAID"),
        ("60 category=promotional", "60", "category", "PROMOTIONAL"),
        ("60", "60 priority=10", "priority", "50"),
        ("60 priority=0", "60 priority=10", "priority", "0"),
        ("60 priority=10", "60 priority=0", "priority", "10"),
        ("60 expires=1h", "60 expires=2h", "expire_time", "2026-01-01T01:00:00+00:00"),
        ("60 expires=1h", "60", "expire_time", "2026-01-01T01:00:00+00:00"),
        ("60", "60 expires=1h", "expire_time", ""),
        ("60 cash=currency:EUR", "60 cash=currency:USD", "cash", "{'currency':'EUR'}"),
        ("60", "60 source=order:o", "source", ""),
        ("60 source=order:o", "60 source=order:p", "source", "{'order':'o'}"),
    ],
)
def test_each_field_of_a_grant(first: str, again: str, field: str, original: str) -> None:
    _compares("grant key", first, again, field, original)


@pytest.mark.parametrize(
    "operation",
    [
        pytest.param("reserve next 60", id="reserve"),
        pytest.param("settle job 60", id="settle"),
        pytest.param("capture job a 60", id="capture"),
        pytest.param("debit 60 id=request", id="debit"),
        pytest.param("debit_once key 60", id="debit_once"),
        pytest.param("grant key 60", id="grant"),
    ],
)
def test_labels_and_metadata_are_not_compared(operation: str) -> None:
    check(f"""
        grant   gift 500                        | granted 500
        reserve job 100                         | held 100
        {operation} labels=run:a metadata=[1]   | done
        {operation} labels=run:b metadata=[2]   | done replayed
        {operation}                             | done replayed
    """)


@pytest.mark.parametrize(
    "operation",
    [
        pytest.param("reserve next 60", id="reserve"),
        pytest.param("settle job 70 overage=reject", id="settle"),
        pytest.param("capture job a 70 overage=reject", id="capture"),
        pytest.param("extend job add=60 id=a", id="extend"),
        pytest.param("debit 60 id=request", id="debit"),
        pytest.param("debit_once key 60", id="debit_once"),
    ],
)
def test_a_refusal_is_not_remembered(operation: str) -> None:
    check(f"""
        grant   gift 20      | granted 20
        reserve job 10       | held 10
        {operation}          | refused INSUFFICIENT_CREDITS available=10 required=60
        {operation}          | refused INSUFFICIENT_CREDITS available=10 required=60
        grant   more 50      | granted 50
        {operation}          | done
        {operation}          | done replayed
    """)


def test_a_refused_request_may_be_changed_before_it_is_tried_again() -> None:
    check("""
        grant   gift 20             | granted 20
        reserve job 60              | refused INSUFFICIENT_CREDITS
        reserve job 20 ttl=1m       | held 20
        debit_once key 60           | refused INSUFFICIENT_CREDITS
        account bob
        grant   other 20            | granted 20
        debit_once key 20           | debited 20
    """)


def test_a_mismatch_leaves_the_first_answer_as_it_was() -> None:
    check("""
        grant   gift 100            | granted 100
        reserve job 60              | held 60
        reserve job 61              | refused IDEMPOTENCY_MISMATCH field=amount_micros original=60
        reserve job 60              | held 60 replayed
        settle  job 10              | charged 10 from_hold=10 released=50
        settle  job 11              | refused IDEMPOTENCY_MISMATCH field=amount_micros original=10
        settle  job 10              | charged 10 from_hold=10 released=50 replayed
    """)


def _compares(operation: str, first: str, again: str, field: str, original: str) -> None:
    """With the fields of `first` it is done; with those of `again` it is another request."""
    check(f"""
        grant   gift 500            | granted 500
        reserve job 100             | held 100
        {operation} {first}         | done
        {operation} {again}         | refused IDEMPOTENCY_MISMATCH field={field} original={original}
        {operation} {first}         | done replayed
    """)


@pytest.mark.parametrize(
    ("asked", "stored", "quoted"),
    [
        ({"overage": Overage.OVERDRAFT}, {"overage": "OVERDRAFT"}, "'OVERDRAFT'"),
        (
            {"usage": {"model": "m", "input_tokens": 1}},
            {"usage": {"input_tokens": 1, "model": "m"}},
            "{'input_tokens': 1, 'model': 'm'}",
        ),
        ({"amount_micros": 5}, {"amount_micros": 5}, "5"),
    ],
)
def test_a_refusal_quotes_the_original_alike_from_the_batch_and_from_the_database(
    asked: replay.Request, stored: replay.Request, quoted: str
) -> None:
    for original in (asked, stored):
        refused = replay.mismatch({}, Receipt(original, {}))
        assert refused is not None
        assert repr(refused.details["original"]) == quoted
