"""Many clients at once, on several server processes: money is neither made nor lost."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import cycle
from typing import Any, NamedTuple

import psutil
import pytest

import meterhold
from meterhold import (
    DebitStatus,
    InsufficientCredits,
    MeterholdError,
    OnExpiry,
    ReservationExpired,
    ReservationReleased,
    ReservationSettled,
    ReservationState,
)
from meterhold_server.storage.verify import verify
from robustness.connections import clients
from support.database import DatabaseServer, name_of
from support.service import ServerProcess

pytestmark = pytest.mark.slow

WORKERS = 3
CONNECTIONS = 12

Clients = list[meterhold.AsyncClient]


@pytest.fixture(scope="module")
def database_url(database_server: DatabaseServer, template: str) -> Iterator[str]:
    """One database for all these tests, as they have one server: each test has its own accounts."""
    url = database_server.create_database(template)
    yield url
    database_server.drop_database(name_of(url))


@pytest.fixture(scope="module")
def server(database_url: str) -> Iterator[ServerProcess]:
    with ServerProcess(database_url, workers=WORKERS) as server:
        yield server


@pytest.fixture
async def many(server: ServerProcess, database_url: str) -> AsyncIterator[Clients]:
    """Clients of all workers. Whatever they did, every invariant holds afterwards."""
    async with clients(server.address, CONNECTIONS, retries=False) as many:
        yield many
    assert verify(database_url).violations == ()


async def test_twenty_holds_of_75_on_500_admit_exactly_six(many: Clients) -> None:
    await many[0].grant_once("twenty", 500, idempotency_key="twenty")
    answers = await _all_at_once(
        client.reserve("twenty", 75, reservation_id=f"job-{number}")
        for number, client in _in_turn(many, 20)
    )
    refused = [answer for answer in answers if isinstance(answer, InsufficientCredits)]
    assert len(refused) == 14
    assert {answer.available_micros for answer in refused} == {50}
    assert sum(answer.held_micros for answer in _successes(answers)) == 6 * 75
    balance = await many[0].balance("twenty")
    assert (balance.held_micros, balance.available_micros) == (450, 50)


async def test_200_debits_of_1_on_100_charge_exactly_100(
    many: Clients, server: ServerProcess
) -> None:
    await many[0].grant_once("debits", 100, idempotency_key="debits")
    answers = await _all_at_once(client.debit("debits", 1) for _, client in _in_turn(many, 200))
    assert _count_of_refused(answers) == {"INSUFFICIENT_CREDITS": 100}
    charged = _successes(answers)
    assert [answer.entry.amount_micros for answer in charged] == [-1] * 100
    assert {answer.entry.seq for answer in charged} == set(range(2, 102))
    assert (await many[0].balance("debits")).available_micros == 0
    assert _workers_reached(server.address) >= 2, "the calls went to one process alone"


async def test_one_debit_key_sent_50_times_charges_once(many: Clients) -> None:
    await many[0].grant_once("once", 100, idempotency_key="once")
    answers = await _all_at_once(
        client.debit_once("once", 7, idempotency_key="charge") for _, client in _in_turn(many, 50)
    )
    assert _count_of_refused(answers) == {}
    statuses = Counter(answer.status for answer in answers)
    assert statuses == {DebitStatus.DEBITED: 1, DebitStatus.REPLAYED: 49}
    assert all(answer.entry == answers[0].entry for answer in answers)
    assert all(answer.balance == answers[0].balance for answer in answers)
    assert (await many[0].balance("once")).spent_micros == 7


async def test_one_debit_key_sent_to_many_accounts_charges_one_of_them(many: Clients) -> None:
    accounts = [f"misrouted-{number}" for number in range(10)]
    await _all_at_once(
        many[0].grant_once(account, 100, idempotency_key=account) for account in accounts
    )
    answers = await _all_at_once(
        client.debit_once(accounts[number % 10], 7, idempotency_key="misrouted")
        for number, client in _in_turn(many, 50)
    )
    assert _count_of_refused(answers) == {"IDEMPOTENCY_MISMATCH": 45}
    assert Counter(answer.status for answer in _successes(answers)) == {
        DebitStatus.DEBITED: 1,
        DebitStatus.REPLAYED: 4,
    }
    spent = [(await many[0].balance(account)).spent_micros for account in accounts]
    assert sum(spent) == 7


async def test_one_grant_key_sent_50_times_grants_once(many: Clients) -> None:
    answers = await _all_at_once(
        client.grant_once("granted", 30, idempotency_key="webhook")
        for _, client in _in_turn(many, 50)
    )
    assert _count_of_refused(answers) == {}
    assert Counter(answer.replayed for answer in answers) == {False: 1, True: 49}
    assert (await many[0].balance("granted")).granted_micros == 30


class Hold(NamedTuple):
    """One that is raced for, who races for it, and when they start, relative to its expiry."""

    reservation_id: str
    on_expiry: OnExpiry
    racers: tuple[str, ...]
    around: timedelta


class Race(NamedTuple):
    hold: Hold
    answers: dict[str, Any]
    final: meterhold.Reservation


TTL = timedelta(milliseconds=600)
HOLD_MICROS = 100
SETTLED_MICROS = 40
CAPTURED_MICROS = 1

ALL = ("settle", "release", "extend", "capture")
BEFORE = timedelta(milliseconds=-400)
AT_EXPIRY = timedelta(milliseconds=-10)
AFTER = timedelta(milliseconds=30)


def _holds() -> list[Hold]:
    """Races well before, around and just after the expiry, with and without a settle.

    A settle is accepted after the expiry as well, so that only holds without one can end by it.
    """
    kinds = [
        (ALL, BEFORE),
        (ALL, AT_EXPIRY),
        (ALL, AFTER),
        (("release", "extend"), AT_EXPIRY),
        (("release", "extend"), AFTER),
        (("extend", "extend-again"), AFTER),
    ]
    return [
        Hold(f"{number}-{repeat}", on_expiry, racers, around)
        for number, (racers, around) in enumerate(kinds)
        for repeat, on_expiry in enumerate([OnExpiry.RELEASE, OnExpiry.CHARGE] * 5)
    ]


@pytest.mark.parametrize("fraction_ppm", [1_000_000, 400_000])
async def test_a_revocation_that_races_its_grant_is_never_missed(
    many: Clients, fraction_ppm: int
) -> None:
    """It knows no account, so that no account's lock keeps the two apart: only the key does."""
    orders = [f"race-{fraction_ppm}-{number}" for number in range(100)]
    calls: list[Coroutine[Any, Any, Any]] = []
    for number, order in enumerate(orders):
        revoker, granter = many[number % CONNECTIONS], many[(number + 5) % CONNECTIONS]
        for _ in range(2):
            calls.append(
                revoker.revoke_grant(order, fraction_ppm=fraction_ppm, allow_tombstone=True)
            )
            calls.append(granter.grant_once(order, 100, idempotency_key=order))
    random.shuffle(calls)
    answers = await _all_at_once(calls)
    assert set(_count_of_refused(answers)) <= {"GRANT_REVOKED"}
    left = 100 - fraction_ppm // 10_000
    for order in orders:
        balance = await many[0].balance(order)
        assert balance.available_micros == left
        assert balance.granted_micros in ((0, 100) if left == 0 else (100,))


@pytest.mark.parametrize("callers", [20])
async def test_an_allowance_that_all_race_to_refill_is_refilled_once(
    many: Clients, callers: int
) -> None:
    """The account is new to all of them: configuring it, granting to it and reading it refill."""
    daily = meterhold.Allowance(amount_micros=100, period=meterhold.AllowancePeriod.DAILY)
    answers = await _all_at_once(
        client.configure_account("refilled", allowance=daily)
        for _, client in _in_turn(many, callers)
    )
    assert _count_of_refused(answers) == {}
    balance = await many[0].balance("refilled")
    assert (balance.granted_micros, balance.ledger_seq) == (100, 1)


async def test_a_hold_that_all_race_for_has_one_winner(many: Clients) -> None:
    """Settle, capture, release, extend and expiry: one ends it, and the others are told which."""
    holds = _holds()
    await many[0].grant_once("race", 100_000, idempotency_key="race")
    races = await asyncio.gather(*(_race(many, hold) for hold in holds))
    for race in races:
        _check_race(race)
    ended = Counter(race.final.state for race in races)
    assert set(ended) == {
        ReservationState.SETTLED,
        ReservationState.RELEASED,
        ReservationState.EXPIRED,
    }, "not every contender won some race"
    lost = Counter(
        type(answer).__name__
        for race in races
        for answer in race.answers.values()
        if isinstance(answer, MeterholdError)
    )
    assert lost, "nobody ever lost"
    balance = await many[0].balance("race")
    charged = sum(r.final.captured_micros + r.final.expiry_charged_micros for r in races)
    assert balance.held_micros == 0
    assert balance.spent_micros - balance.refunded_micros == charged


async def _race(many: Clients, hold: Hold) -> Race:
    held = await many[0].reserve(
        "race",
        HOLD_MICROS,
        reservation_id=hold.reservation_id,
        ttl=TTL,
        on_expiry=hold.on_expiry,
    )
    await _until(held.expire_time + hold.around)
    racers = random.sample(hold.racers, len(hold.racers))
    answers = await _all_at_once(
        _run(random.choice(many), racer, hold.reservation_id) for racer in racers
    )
    # An extension that won lets the hold live on: the sweeper ends it then.
    final = await _ended(many[0], hold.reservation_id)
    return Race(hold, dict(zip(racers, answers, strict=True)), final)


async def _run(client: meterhold.AsyncClient, racer: str, reservation_id: str) -> Any:
    match racer:
        case "settle":
            return await client.settle("race", SETTLED_MICROS, reservation_id=reservation_id)
        case "capture":
            return await client.settle(
                "race",
                CAPTURED_MICROS,
                reservation_id=reservation_id,
                keep_open=True,
                capture_id="part",
            )
        case "release":
            return await client.release("race", reservation_id=reservation_id)
        case _:
            return await client.extend(
                "race", reservation_id=reservation_id, ttl=TTL, add_amount_micros=1, extend_id=racer
            )


def _check_race(race: Race) -> None:
    """The final state has one author, and every answer agrees with it."""
    hold, answers, final = race
    settle, release = answers.get("settle"), answers.get("release")
    settled = isinstance(settle, meterhold.SettleResult)
    released = isinstance(release, meterhold.ReleaseResult) and release.changed
    expired = final.late or final.state is ReservationState.EXPIRED
    # A late settle comes after the expiry, and that was what ended the hold.
    assert (settled and not final.late, released, expired).count(True) == 1, race
    assert settled == (final.state is ReservationState.SETTLED), race
    assert released == (final.state is ReservationState.RELEASED), race
    met = {final.state, ReservationState.EXPIRED} if final.late else {final.state}
    for answer in answers.values():
        if isinstance(answer, MeterholdError):
            assert type(answer) in {_TOLD[state] for state in met}, race
        elif isinstance(answer, meterhold.ReleaseResult):
            assert answer.reservation.state in met, race
    grown = sum(isinstance(answer, meterhold.ExtendResult) for answer in answers.values())
    assert final.reserved_micros == HOLD_MICROS + grown, race
    charged = isinstance(answers.get("capture"), meterhold.SettleResult) * CAPTURED_MICROS
    if settled:
        charged += SETTLED_MICROS
    elif expired and hold.on_expiry is OnExpiry.CHARGE:
        charged = final.reserved_micros
    assert final.captured_micros + final.expiry_charged_micros == charged, race


_TOLD: dict[ReservationState, type[MeterholdError]] = {
    ReservationState.SETTLED: ReservationSettled,
    ReservationState.RELEASED: ReservationReleased,
    ReservationState.EXPIRED: ReservationExpired,
}


async def _ended(client: meterhold.AsyncClient, reservation_id: str) -> meterhold.Reservation:
    """The reservation in its final state. An extension that won lets it live on for a while."""
    while True:
        found = await client.get_reservation("race", reservation_id=reservation_id)
        if found.state is not ReservationState.ACTIVE:
            return found
        await _until(found.expire_time)


async def _until(time: datetime) -> None:
    """The one thing that only a clock tells: that it is this time."""
    await asyncio.sleep((time - datetime.now(UTC)).total_seconds())


async def _all_at_once(calls: Iterable[Coroutine[Any, Any, Any]]) -> list[Any]:
    """The answers in the order of the calls; an error of Meterhold is an answer too."""
    answers = await asyncio.gather(*calls, return_exceptions=True)
    for answer in answers:
        if isinstance(answer, BaseException) and not isinstance(answer, MeterholdError):
            raise answer
    return answers


def _in_turn(many: Clients, number: int) -> Iterator[tuple[int, meterhold.AsyncClient]]:
    """So many numbers, each with a client: all of them in turn."""
    return zip(range(number), cycle(many), strict=False)


def _successes(answers: Iterable[Any]) -> list[Any]:
    return [answer for answer in answers if not isinstance(answer, MeterholdError)]


def _count_of_refused(answers: Iterable[Any]) -> dict[str, int]:
    return Counter(answer.reason for answer in answers if isinstance(answer, MeterholdError))


def _workers_reached(address: str) -> int:
    """How many of the server's processes have a client."""
    port = int(address.rpartition(":")[2])
    children = psutil.Process().children(recursive=True)
    workers = [process for process in children if process.cmdline()[-1:] == ["worker"]]
    return sum(
        any(
            connection.status == psutil.CONN_ESTABLISHED and connection.laddr[1] == port
            for connection in worker.net_connections("tcp")
        )
        for worker in workers
    )
