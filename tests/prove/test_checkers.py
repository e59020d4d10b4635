"""Each rule by itself: a sound history, and the same with one thing wrong."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from meterhold_server.prove import search, witness
from meterhold_server.prove.history import History, Method, Refusal, Told
from prove.histories import ALICE, balance, call, entry, held, history, reserve, told

GRACE_SECONDS = 10.0


def sound() -> History:
    """A grant of 100, a hold of 60, a debit of 30, a refusal of 50, and a settle at 40."""
    mine = {"reservation_id": "job", "key": ""}
    return history(
        [
            call("gift", Method.GRANT, 100, told((0, 2), balance(1, 100, micros=100, entry=1))),
            reserve("job", 60, told((10, 10.5), balance(1, 100, 60, micros=60, expire_time=110.0))),
            call("buy", Method.DEBIT, 30, told((11, 12), balance(2, 70, 60, micros=30, entry=2))),
            call(
                "more",
                Method.DEBIT,
                50,
                told((13, 14), refusal=Refusal("INSUFFICIENT_CREDITS", 10, 50)),
            ),
            call(
                "end",
                Method.SETTLE,
                40,
                told((15, 16), balance(3, 30, 0, micros=40, entry=3)),
                **mine,
            ),
            call("look", Method.BALANCE, 0, told((17, 18), balance(3, 30))),
        ],
        [
            entry(1, "GRANT", 100, 100, "gift"),
            entry(2, "DEBIT", -30, 70, "buy", create_time=11.5),
            entry(3, "CAPTURE", -40, 30, "end", create_time=15.5, reservation_id="job"),
        ],
        [held("job", "SETTLED", 60, captured_micros=40, end_time=15.5)],
    )


def test_the_sound_one_breaks_no_rule() -> None:
    assert witness.check(sound()) == []
    assert search.check(sound(), GRACE_SECONDS) == []


def skips_a_number(wrong: History) -> None:
    entries = wrong.books[ALICE].entries
    entries[2] = entries[2]._replace(seq=4)


def adds_up_wrongly(wrong: History) -> None:
    entries = wrong.books[ALICE].entries
    entries[1] = entries[1]._replace(remaining_after_micros=71)


def goes_back_in_time(wrong: History) -> None:
    entries = wrong.books[ALICE].entries
    entries[2] = entries[2]._replace(create_time=1.0)


def loses_what_it_acknowledged(wrong: History) -> None:
    del wrong.books[ALICE].entries[2]


def does_it_twice(wrong: History) -> None:
    book = wrong.books[ALICE]
    book.entries.append(entry(4, "DEBIT", -30, 0, "buy", create_time=20.0))
    book.remaining_micros = book.available_micros = 0


def has_what_nobody_asked_for(wrong: History) -> None:
    book = wrong.books[ALICE]
    book.entries.append(entry(4, "DEBIT", -5, 25, "nobody", create_time=20.0))
    book.remaining_micros = book.available_micros = 25


def charges_another_amount(wrong: History) -> None:
    wrong.calls[2].micros = 29


def does_what_it_refused(wrong: History) -> None:
    book = wrong.books[ALICE]
    book.entries.append(entry(4, "DEBIT", -50, -20, "more", create_time=20.0))
    book.remaining_micros = book.available_micros = -20


def refuses_what_is_covered(wrong: History) -> None:
    wrong.calls[3].attempts[0].refusal = Refusal("INSUFFICIENT_CREDITS", 60, 50)


def refuses_by_a_state_that_never_was(wrong: History) -> None:
    wrong.calls[3].attempts[0].refusal = Refusal("INSUFFICIENT_CREDITS", -500, 50)


def orders_against_time(wrong: History) -> None:
    # The debit, second in the ledger, is asked for after the settle, third, had returned.
    wrong.calls[2].attempts[0].call_time = 16.5
    wrong.calls[2].attempts[0].return_time = 16.6


def reads_the_past(wrong: History) -> None:
    wrong.calls[5].attempts[0].answer = balance(1, 100)


def answers_a_replay_differently(wrong: History) -> None:
    again = balance(2, 70, 60, micros=31, entry=2, replayed=True)
    wrong.calls[2].attempts.append(told((20, 21), again))


def refuses_what_was_done(wrong: History) -> None:
    refusal = Refusal("INSUFFICIENT_CREDITS", 30, 60)
    wrong.calls[2].attempts.append(told((20, 21), refusal=refusal))


def ends_a_hold_twice(wrong: History) -> None:
    released = call(
        "free",
        Method.RELEASE,
        0,
        told((20, 21), balance(3, 30)),
        key="",
        reservation_id="job",
    )
    wrong.calls.append(released)


def forgets_a_hold(wrong: History) -> None:
    wrong.books[ALICE].holds.clear()


def holds_too_much(wrong: History) -> None:
    wrong.books[ALICE].held_micros = 1
    wrong.books[ALICE].available_micros = 29


def expires_too_early(wrong: History) -> None:
    refusal = Refusal("RESERVATION_EXPIRED")
    late = call("late", Method.SETTLE, 1, told((20, 21), refusal=refusal), key="")
    late.reservation_id = "job"
    wrong.calls.append(late)


def takes_another_key(wrong: History) -> None:
    wrong.calls[2].misuse = True


def breaks(wrong: History) -> None:
    wrong.calls[2].attempts[0].told = Told.BROKEN


def tears_a_chain(wrong: History) -> None:
    wrong.calls[2].chain = wrong.calls[3].chain = "chain"


def goes_below_zero(wrong: History) -> None:
    wrong.calls[2].attempts[0].answer = balance(2, 70, 80, micros=30, entry=2)


@pytest.mark.parametrize(
    ("damage", "rule"),
    [
        (skips_a_number, "sequence"),
        (adds_up_wrongly, "sum"),
        (goes_back_in_time, "time"),
        (loses_what_it_acknowledged, "lost"),
        (does_it_twice, "doubled"),
        (has_what_nobody_asked_for, "phantom"),
        (charges_another_amount, "amount"),
        (does_what_it_refused, "refused"),
        (refuses_what_is_covered, "refused"),
        (refuses_by_a_state_that_never_was, "refused"),
        (orders_against_time, "real time"),
        (reads_the_past, "real time"),
        (answers_a_replay_differently, "replay"),
        (refuses_what_was_done, "replay"),
        (ends_a_hold_twice, "ended twice"),
        (forgets_a_hold, "lost"),
        (holds_too_much, "held"),
        (expires_too_early, "early"),
        (takes_another_key, "misuse"),
        (breaks, "broken"),
        (tears_a_chain, "chain"),
        (goes_below_zero, "floor"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_one_thing_wrong_breaks_a_rule(damage: Callable[[History], None], rule: str) -> None:
    wrong = sound()
    damage(wrong)
    assert rule in {violation.rule for violation in witness.check(wrong)}


@pytest.mark.parametrize(
    "damage",
    [
        loses_what_it_acknowledged,
        does_it_twice,
        has_what_nobody_asked_for,
        charges_another_amount,
        does_what_it_refused,
        refuses_what_is_covered,
        refuses_by_a_state_that_never_was,
        orders_against_time,
        reads_the_past,
        answers_a_replay_differently,
        refuses_what_was_done,
        ends_a_hold_twice,
        holds_too_much,
        expires_too_early,
        goes_below_zero,
    ],
    ids=lambda value: value.__name__,
)
def test_no_order_explains_one_thing_wrong(damage: Callable[[History], None]) -> None:
    wrong = sound()
    damage(wrong)
    assert [violation.rule for violation in search.check(wrong, GRACE_SECONDS)] == ["search"]


def test_a_late_landing_is_no_doubling() -> None:
    """An attempt that got no answer may have done it, and the next is told of it."""
    late = sound()
    answer = late.calls[2].attempts[0].answer
    assert answer is not None
    again = answer._replace(replayed=True)
    late.calls[2].attempts = [told((11, float("inf"))), told((20, 21), again)]
    assert witness.check(late) == []
    assert search.check(late, GRACE_SECONDS) == []


def test_a_settle_may_become_too_late_while_it_is_under_way() -> None:
    expire_time = 110.5
    grant = call("gift", Method.GRANT, 100, told((0, 1), balance(1, 100, micros=100, entry=1)))
    granted = balance(1, 100, 60, micros=60, expire_time=expire_time)
    refused = told(
        (expire_time + 1, expire_time + GRACE_SECONDS + 1), refusal=Refusal("RESERVATION_EXPIRED")
    )
    settle = call("late", Method.SETTLE, 60, refused, reservation_id="job", key="")
    late = history(
        [grant, reserve("job", 60, told((10, 11), granted)), settle],
        [entry(1, "GRANT", 100, 100, "gift")],
        [held("job", "EXPIRED", 60, expire_time=expire_time)],
    )
    assert witness.check(late) == []
    assert search.check(late, GRACE_SECONDS) == []


def test_one_of_two_equal_settles_has_done_it_for_both() -> None:
    never = float("inf")
    grant = call("gift", Method.GRANT, 100, told((0, 1), balance(1, 100, micros=100, entry=1)))
    granted = balance(1, 100, 60, micros=60, expire_time=110.5)
    again = balance(2, 60, micros=40, entry=2, replayed=True)
    mine = {"reservation_id": "job", "key": ""}
    settles = [
        call(name, Method.SETTLE, 40, told((at, never)), told((at + 1, at + 2), again), **mine)
        for name, at in (("first", 15), ("second", 20))
    ]
    both = history(
        [grant, reserve("job", 60, told((10, 11), granted)), *settles],
        [
            entry(1, "GRANT", 100, 100, "gift"),
            entry(2, "CAPTURE", -40, 60, "first", reservation_id="job"),
        ],
        [held("job", "SETTLED", 60, captured_micros=40)],
    )
    assert search.check(both, GRACE_SECONDS) == []
