"""500 `hold` blocks, some of which break, outlive their time, lose the server, or are killed.

Nothing that ran is free, nothing is charged that did not run, and nothing is held for ever.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import pytest

import meterhold
from meterhold import OnExpiry, OutcomeUnknown, Reservation, ReservationState, Unavailable
from meterhold_server.storage.verify import verify
from robustness.hold_callers import Callers, Heard
from robustness.hold_jobs import AWAY, Broken, Fate, Job, Stage, Truth, read_truth
from robustness.hold_process import HoldProcess
from support.service import ServerProcess
from support.waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SEED: Final = int(os.environ.get("METERHOLD_TEST_SEED") or random.randrange(2**32))
FATES: Final = {
    Fate.NORMAL: 80,
    Fate.RAISES: 50,
    Fate.RAISES_AT_ONCE: 30,
    Fate.RAISES_AND_RELEASES: 30,
    Fate.CANCELLED: 40,
    Fate.CANCELLED_TWICE: 20,
    Fate.OUTLIVES_TTL: 40,
    Fate.OUTLIVES_TTL_BY_HEARTBEATS: 30,
    Fate.AWAY_AT_START: 10,
    Fate.AWAY_WITH_JOURNAL: 30,
    Fate.AWAY_WITHOUT_JOURNAL: 30,
    Fate.AWAY_AND_CLOSED: 20,
    Fate.AWAY_AND_KILLED: 20,
    Fate.KILLED_BEFORE_HOLD: 14,
    Fate.KILLED_BEFORE_START: 14,
    Fate.KILLED_AFTER_START: 14,
    Fate.KILLED_AFTER_CAPTURES: 14,
    Fate.KILLED_AFTER_CHARGES: 14,
}
"""How many jobs end how."""

ACCOUNTS: Final = tuple(f"account-{number}" for number in range(20))
GRANT_MICROS: Final = 10**9
HELD_MICROS_MAX: Final = 1_000_000
SHORT_TTL_SECONDS: Final = 3.0
LONG_TTL_SECONDS: Final = 900.0
AWAY_SECONDS: Final = 10.0

PROCESSES: Final = 3
"""That are killed while their jobs are at work."""

KILLED: Final = [fate for fate in Fate if fate.startswith("KILLED_")]
ALIVE: Final = [fate for fate in Fate if not fate.startswith(("KILLED_", "AWAY_"))]
NEVER_WORK: Final = {
    Fate.RAISES_AT_ONCE,
    Fate.AWAY_AT_START,
    Fate.KILLED_BEFORE_HOLD,
    Fate.KILLED_BEFORE_START,
}
MAY_OUTLIVE: Final = {Fate.OUTLIVES_TTL, Fate.OUTLIVES_TTL_BY_HEARTBEATS, *KILLED}


async def test_500_holds_charge_what_ran_and_nothing_else(
    database_url: str, tmp_path: Path
) -> None:
    print(f"METERHOLD_TEST_SEED={SEED}")  # noqa: T201 - to run a failure again
    jobs = _jobs(random.Random(SEED))
    assert len(jobs) == 500
    with ServerProcess(database_url, sweep_interval_seconds=0.1) as server:
        async with meterhold.AsyncClient(server.address) as client:
            for account in ACCOUNTS:
                await client.grant_once(account, GRANT_MICROS, idempotency_key=account)
            heard = await _run_all(server, jobs, tmp_path)
            await _wait_until_all_expire(client)
            found = await _reservations(client)
            balances = {account: await client.balance(account) for account in ACCOUNTS}
    truths = read_truth(tmp_path / "truth")
    wrong = [
        (what, job, truths[job.name], found.get(job.name), heard.get(job.name))
        for job in jobs
        for what in _differences(job, truths[job.name], found.get(job.name), heard.get(job.name))
    ]
    assert not wrong, f"METERHOLD_TEST_SEED={SEED}: {len(wrong)}, such as {wrong[:5]}"
    assert found.keys() <= {job.name for job in jobs}
    for account in ACCOUNTS:
        own = [found[job.name] for job in jobs if job.account == account and job.name in found]
        left = GRANT_MICROS - sum(map(_charged, own))
        assert (balances[account].available_micros, balances[account].held_micros) == (left, 0)
    assert verify(database_url).violations == ()
    _check_that_much_happened(jobs, found, heard)


def _jobs(chance: random.Random) -> list[Job]:
    fates = [fate for fate, number in FATES.items() for _ in range(number)]
    chance.shuffle(fates)
    return [_job(f"job-{number}", fate, chance) for number, fate in enumerate(fates)]


def _job(name: str, fate: Fate, chance: random.Random) -> Job:
    """A job that has to be charged whole if it is killed spends no more than it holds."""
    held = chance.randint(10, HELD_MICROS_MAX)
    parts = [chance.randint(0, held // 6) for _ in range(chance.randint(2, 6))]
    captures = chance.randint(1, 2) if fate in AWAY else chance.randint(0, len(parts))
    if fate in (Fate.NORMAL, Fate.OUTLIVES_TTL) and chance.random() < 0.2:
        parts.append(held)  # more than it holds
    on_expiry = chance.choice((OnExpiry.CHARGE, OnExpiry.RELEASE))
    if fate is Fate.KILLED_BEFORE_START:
        on_expiry = OnExpiry.RELEASE
    short = fate in MAY_OUTLIVE or fate is Fate.AWAY_AND_CLOSED or chance.random() < 0.3
    return Job(
        name,
        chance.choice(ACCOUNTS),
        fate,
        is_async=fate is Fate.CANCELLED_TWICE or chance.random() < 0.6,
        held_micros=held,
        captures=tuple(parts[:captures]),
        charges=tuple(parts[captures:]),
        on_expiry=on_expiry,
        ttl_seconds=SHORT_TTL_SECONDS if short else LONG_TTL_SECONDS,
    )


_HOLDS: Final = (meterhold.Hold, meterhold.AsyncHold)
_LOST: Final = (OutcomeUnknown, Unavailable)
HEARD: Final[Mapping[Fate, tuple[type[Heard], ...]]] = {
    Fate.NORMAL: _HOLDS,
    Fate.RAISES: (Broken,),
    Fate.RAISES_AT_ONCE: (Broken,),
    Fate.RAISES_AND_RELEASES: (Broken,),
    Fate.CANCELLED: (asyncio.CancelledError, KeyboardInterrupt),
    Fate.CANCELLED_TWICE: (asyncio.CancelledError,),
    Fate.OUTLIVES_TTL: _HOLDS,
    Fate.OUTLIVES_TTL_BY_HEARTBEATS: _HOLDS,
    Fate.AWAY_AT_START: _LOST,
    Fate.AWAY_WITH_JOURNAL: _HOLDS,
    # Some settles were still in time.
    Fate.AWAY_WITHOUT_JOURNAL: (*_LOST, *_HOLDS),
    Fate.AWAY_AND_CLOSED: (*_LOST, *_HOLDS),
}


async def _run_all(server: ServerProcess, jobs: Sequence[Job], folder: Path) -> dict[str, Heard]:
    """Run all jobs. Answers what the blocks raised, or their holds, of those that were heard of."""
    of = defaultdict[Fate, list[Job]](list)
    for job in jobs:
        of[job.fate].append(job)
    alive = [job for fate in ALIVE for job in of[fate]]
    killed = [job for fate in KILLED for job in of[fate]]
    paused: set[str] = set()
    stage = Stage(folder / "truth", paused.add)
    with closing(stage):
        async with Callers(server.address, stage) as callers:
            running = asyncio.create_task(callers.run(alive))
            await asyncio.gather(
                *(
                    asyncio.to_thread(_kill, server.address, folder, killed[number::PROCESSES])
                    for number in range(PROCESSES)
                )
            )
            heard = await running
        return heard | await _run_while_away(server, of, folder, stage, paused)


def _kill(address: str, folder: Path, jobs: list[Job]) -> None:
    """Run jobs in a process of their own, and kill it in the middle of them."""
    with HoldProcess(address, folder / "truth", folder / "unused", jobs) as process:
        process.wait_until_all_pause()
        process.kill()


async def _run_while_away(
    server: ServerProcess,
    of: Mapping[Fate, Sequence[Job]],
    folder: Path,
    stage: Stage,
    paused: set[str],
) -> dict[str, Heard]:
    """Run jobs whose server goes away for a while just when they have ended."""
    loop = asyncio.get_running_loop()
    here = [Fate.AWAY_WITH_JOURNAL, Fate.AWAY_WITHOUT_JOURNAL, Fate.AWAY_AND_CLOSED]
    names = {job.name for fate in here for job in of[fate]}
    left = folder / "left"
    async with (
        Callers(server.address, stage, folder / "journal") as with_journal,
        Callers(server.address, stage) as without_journal,
    ):
        async with Callers(server.address, stage) as closed:
            running = [
                asyncio.create_task(callers.run(of[fate]))
                for fate, callers in zip(here, (with_journal, without_journal, closed), strict=True)
            ]
            jobs = of[Fate.AWAY_AND_KILLED]
            with HoldProcess(server.address, folder / "truth", left, jobs) as process:
                await asyncio.to_thread(process.wait_until_all_pause)
                await until(lambda: names <= paused)
                stage.going_on.set()
                process.go_on()
                await asyncio.to_thread(server.kill)
                back = loop.time() + AWAY_SECONDS
                heard = [await closed.run(of[Fate.AWAY_AT_START])]
                heard += await asyncio.gather(*running)
                await asyncio.to_thread(process.wait_until_all_ended)
        await asyncio.sleep(back - loop.time())
        await asyncio.to_thread(server.restart)
        async with Callers(server.address, stage, left) as heirs:
            for callers in (with_journal, without_journal, heirs):
                await callers.deliver()
    return {name: result for part in heard for name, result in part.items()}


async def _wait_until_all_expire(client: meterhold.AsyncClient) -> None:
    """The holds of processes that were killed go on until their time is over; no others may."""
    for account in ACCOUNTS:
        active = client.list_reservations(account, states=[ReservationState.ACTIVE], page_size=1000)
        async for held in active:
            assert held.ttl.total_seconds() == SHORT_TTL_SECONDS, f"{held} outlives its block"
            await asyncio.sleep((held.expire_time - datetime.now(UTC)).total_seconds())


async def _reservations(client: meterhold.AsyncClient) -> dict[str, Reservation]:
    return {
        found.reservation_id: found
        for account in ACCOUNTS
        async for found in client.list_reservations(account, page_size=1000)
    }


def _charged(found: Reservation) -> int:
    return found.captured_micros + found.expiry_charged_micros


def _differences(
    job: Job, truth: Truth, found: Reservation | None, heard: Heard | None
) -> Iterator[str]:
    """What is wrong with how a job was charged, and with what its caller heard."""
    charged = _charged(found) if found else 0
    if charged != _due(job, truth, found):
        yield f"charged {charged}, not {_due(job, truth, found)}"
    if truth.worked is (job.fate in NEVER_WORK):
        yield "this is not what the test is about"
    if found is not None and found.state is ReservationState.ACTIVE:
        yield "still holds"
    if job.fate in HEARD and not isinstance(heard, HEARD[job.fate]):
        yield f"heard {heard!r}"


def _due(job: Job, truth: Truth, found: Reservation | None) -> int:
    """What a job is to be charged: what it spent, or all of the hold if nobody could tell that."""
    expired = found is not None and found.state is ReservationState.EXPIRED
    if job.fate in KILLED or (job.fate is Fate.AWAY_AND_CLOSED and expired):
        return job.held_micros if truth.worked else 0
    dropped = job.fate is Fate.RAISES_AND_RELEASES
    return truth.captured_micros + (0 if dropped else truth.collected_micros)


def _check_that_much_happened(
    jobs: Iterable[Job], found: Mapping[str, Reservation], heard: Mapping[str, Heard]
) -> None:
    """Otherwise nothing was tested: who was to be late was, and many met no server."""
    late = Counter(job.fate for job in jobs if job.name in found and found[job.name].late)
    assert late[Fate.OUTLIVES_TTL] == FATES[Fate.OUTLIVES_TTL]
    assert 2 * late[Fate.OUTLIVES_TTL_BY_HEARTBEATS] < FATES[Fate.OUTLIVES_TTL_BY_HEARTBEATS]
    assert all(late[fate] for fate in (Fate.AWAY_WITH_JOURNAL, Fate.AWAY_WITHOUT_JOURNAL))
    untold = Counter(
        job.fate
        for job in jobs
        if isinstance(told := heard.get(job.name), _LOST)
        or (isinstance(told, _HOLDS) and told.result is None)
    )
    assert untold.keys() == {
        Fate.AWAY_AT_START,
        Fate.AWAY_WITH_JOURNAL,
        Fate.AWAY_WITHOUT_JOURNAL,
        Fate.AWAY_AND_CLOSED,
    }
    assert all(2 * count > FATES[fate] for fate, count in untold.items()), untold
