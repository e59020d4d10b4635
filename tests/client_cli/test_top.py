"""`meterhold top`: one frame, a terminal that is drawn on, and whose clock the time left is by."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import meterhold
from client_cli.conftest import Run
from client_cli.terminal import Terminal
from client_cli.test_commands import SOME_TIME, TIME
from meterhold.cli.watching import ServerClock, Snapshot
from support.database import DatabaseServer
from support.service import ServerProcess

NOW = datetime(2030, 1, 31, 12, tzinfo=UTC)


@pytest.fixture
async def used(client: meterhold.AsyncClient) -> meterhold.AsyncClient:
    await client.grant_once("alice", 10_000_000, idempotency_key="order-1")
    await client.reserve("alice", 2_500_000, reservation_id="job-1", ttl=timedelta(days=2))
    await client.reserve("alice", 500_000, reservation_id="job-2", ttl=timedelta(hours=1))
    return client


async def test_one_frame(run: Run, used: meterhold.AsyncClient) -> None:
    done = await run("top", "alice", "--once")
    assert done.code == 0
    *frame, first_hold, second_hold, title, heading, line, grant = done.out.splitlines()
    assert [TIME.sub(SOME_TIME, text) for text in frame] == [
        f"alice (credits)  entry 1  {SOME_TIME}",
        "available 7.000000   held 3.000000   remaining 10.000000   spent 0.000000",
        "█" * 42 + "▒" * 18,
        "",
        "active holds: 2",
        "reservation      held  captured         left  then",
        "─────────────────────────────────────────────────────",
    ]
    # The first to expire is the first.
    assert first_hold.startswith("job-2        0.500000  0.000000        59:5")
    assert second_hold.startswith("job-1        2.500000  0.000000  1d 23:59:5")
    assert title == "newest entries"
    assert heading.split() == ["seq", "time", "kind", "amount", "remaining", "reservation,", "key"]
    assert set(line) == {"─"}
    assert TIME.sub(SOME_TIME, grant).split() == [
        *("1", *SOME_TIME.split(), "GRANT", "10.000000", "10.000000", "order-1")
    ]


async def test_one_frame_of_an_account_in_debt(run: Run, used: meterhold.AsyncClient) -> None:
    await used.debit("alice", 9_000_000, overage=meterhold.Overage.OVERDRAFT)
    frame = (await run("top", "alice", "--once", "--micros")).out.splitlines()
    assert frame[1:3] == [
        "available -2000000   held 3000000   remaining 1000000   spent 9000000   debt 2000000",
        "▒" * 60,
    ]


async def test_one_frame_of_an_account_that_nobody_knows(run: Run) -> None:
    frame = (await run("top", "nobody", "--once", "--unit", "tokens")).out.splitlines()
    assert frame[0].startswith("nobody (tokens)  entry 0  ")
    assert frame[2] == "·" * 60


async def test_one_frame_for_programs(run: Run, used: meterhold.AsyncClient) -> None:
    value = (await run("top", "alice", "--once", "--json")).value
    assert value["balance"]["available_micros"] == 7_000_000
    assert [one["reservation_id"] for one in value["reservations"]] == ["job-2", "job-1"]
    assert [one["seq"] for one in value["entries"]] == [1]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ((), "top needs a terminal to draw on; --once prints what there is now"),
        (("--json",), "top needs a terminal to draw on"),
        (("--interval", "1"), "'1' is not a length of time"),
    ],
)
async def test_what_cannot_be_watched(run_alone: Run, options: tuple[str, ...], told: str) -> None:
    done = await run_alone("top", "alice", *options, COLUMNS="200")
    assert (done.code, done.out) == (2, "")
    assert told in done.err


def watching(address: str, home: Path, *options: str) -> Terminal:
    inherited = {name: text for name, text in os.environ.items() if "METERHOLD" not in name}
    return Terminal(
        *("top", "alice", "--address", address, "--interval", "100ms", *options),
        environment=inherited | {"XDG_CONFIG_HOME": str(home)},
    )


@pytest.mark.slow
async def test_it_follows_what_happens_until_q(
    address: str, used: meterhold.AsyncClient, tmp_path: Path
) -> None:
    async with watching(address, tmp_path) as terminal:
        await terminal.shows("available 7.000000")
        await terminal.shows("job-2")
        await used.debit("alice", 1_000_000, request_id="fee-1")
        await terminal.shows("available 6.000000")
        await terminal.shows("fee-1")
        terminal.press(b"x")
        await used.debit("alice", 1_000_000, request_id="fee-2")
        await terminal.shows("available 5.000000")
        terminal.press(b"q")
        assert await terminal.ended() == 0


@pytest.mark.slow
async def test_ctrl_c_ends_it_too(
    address: str, used: meterhold.AsyncClient, tmp_path: Path
) -> None:
    async with watching(address, tmp_path) as terminal:
        await terminal.shows("available 7.000000")
        terminal.interrupt()
        assert await terminal.ended() == 0


@pytest.mark.slow
async def test_an_interval_that_is_too_short(address: str, tmp_path: Path) -> None:
    async with watching(address, tmp_path, "--interval", "99ms") as terminal:
        await terminal.shows("--interval is at least 0.1s")
        assert await terminal.ended() == 2


@pytest.mark.slow
async def test_a_refusal_ends_it(address: str, tmp_path: Path) -> None:
    async with watching(address, tmp_path, "--unit", "u" * 33) as terminal:
        await terminal.shows("unit: has 33 characters")
        assert await terminal.ended() == 2


@pytest.mark.slow
async def test_it_goes_on_while_the_server_is_away(
    database_server: DatabaseServer, database_url: str, tmp_path: Path
) -> None:
    with ServerProcess(database_url) as server:
        async with (
            meterhold.AsyncClient(server.address) as client,
            watching(server.address, tmp_path, "--timeout", "0.5") as terminal,
        ):
            await client.grant_once("alice", 1_000_000, idempotency_key="order-1")
            await terminal.shows("available 1.000000")
            server.terminate()
            await terminal.shows("no answer, still trying: ")
            await terminal.shows("available 1.000000")
            server.restart()
            await client.grant_once("alice", 1_000_000, idempotency_key="order-2")
            await terminal.shows("available 2.000000")
            terminal.press(b"q")
            assert await terminal.ended() == 0


def snapshot(*, created: timedelta, expires: timedelta | None) -> Snapshot:
    """An entry, and if it `expires` a hold: how long after `NOW`, by the server's clock."""
    entry = meterhold.Entry(
        seq=1,
        kind=meterhold.EntryKind.GRANT,
        amount_micros=1,
        remaining_after_micros=1,
        create_time=NOW + created,
        reservation_id="",
        key="k",
        related_seq=0,
        labels={},
        usage=None,
        metadata=None,
        reason="",
    )
    held = meterhold.Reservation(
        reservation_id="job",
        state=meterhold.ReservationState.ACTIVE,
        held_micros=1,
        reserved_micros=1,
        captured_micros=0,
        released_micros=0,
        expiry_charged_micros=0,
        on_expiry=meterhold.OnExpiry.RELEASE,
        expire_time=NOW + (expires or timedelta(0)),
        create_time=NOW + created,
        end_time=None,
        late=False,
        ttl=timedelta(minutes=15),
        labels={},
        metadata=None,
    )
    balance = meterhold.Balance(
        ledger_seq=1,
        available_micros=1,
        held_micros=0,
        remaining_micros=1,
        granted_micros=1,
        spent_micros=0,
        expired_micros=0,
        revoked_micros=0,
        refunded_micros=0,
        debt_micros=0,
        credit_limit_micros=0,
    )
    holds = () if expires is None else (held,)
    return Snapshot(balance=balance, reservations=holds, entries=(entry,))


SECOND = timedelta(seconds=1)


@pytest.mark.parametrize(
    ("created", "expires", "ahead"),
    [
        (-60 * SECOND, 60 * SECOND, 0 * SECOND),
        (-60 * SECOND, None, 0 * SECOND),
        (180 * SECOND, 600 * SECOND, 179 * SECOND),  # created in the future of this computer
        (180 * SECOND, None, 179 * SECOND),
        (-600 * SECOND, -180 * SECOND, -180 * SECOND),  # expired, and yet active
    ],
)
def test_the_servers_time_is_that_of_this_computer_unless_an_answer_proves_it_wrong(
    created: timedelta, expires: timedelta | None, ahead: timedelta
) -> None:
    clock = ServerClock()
    assert clock.at(NOW) == NOW
    seen = snapshot(created=created, expires=expires)
    clock.learn(seen, asked=NOW, answered=NOW + SECOND)
    assert clock.at(NOW) == NOW + ahead
    clock.learn(snapshot(created=-600 * SECOND, expires=None), asked=NOW, answered=NOW + SECOND)
    assert clock.at(NOW + SECOND) == NOW + ahead + SECOND, "what is proved once stays proved"
