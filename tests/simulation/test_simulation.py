"""The service among faults breaks no rule, and the simulation would see it if it did."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from typing import Final

import pytest

from simulation import prove
from simulation.bugs import BUGS
from simulation.prove import Tally
from simulation.run import run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SEED: Final = int(os.environ.get("METERHOLD_TEST_SEED") or random.randrange(2**32))
LONG_RUNS: Final = 24
SHORT_RUNS: Final = 60
OPERATIONS: Final = 500

FOUND_BY_SEARCH: Final = (
    "acknowledged_unwritten",
    "admits_one_too_many",
    "answers_mixed_up",
    "charged_what_it_captured_too",
    "key_without_fingerprint",
    "released_after_a_settle",
    "replay_of_today",
    "settled_twice",
    "stale_reads",
)
"""Bugs that show in the answers of a short history, whatever the ledger says."""


@pytest.fixture(autouse=True)
def _told_the_seed() -> None:
    print(f"METERHOLD_TEST_SEED={SEED}")  # noqa: T201 - to run a failure again


def test_faults_break_no_rule() -> None:
    total = Tally()
    for seed in range(SEED, SEED + LONG_RUNS):
        total.plus(prove.sound(seed, OPERATIONS))
    assert total.violations == []
    assert list(total.vacuous()) == []


def test_two_checkers_agree_on_short_histories() -> None:
    total = Tally()
    for seed in range(SEED, SEED + SHORT_RUNS):
        total.plus(prove.twice_checked(seed))
    assert total.violations == []
    assert total.runs == SHORT_RUNS


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_caught(bug: str) -> None:
    assert prove.catch(bug) is not None


@pytest.mark.parametrize("bug", FOUND_BY_SEARCH)
def test_the_search_finds_it_too(bug: str) -> None:
    assert prove.caught_by_search(bug)


def test_a_seed_takes_the_same_steps_again() -> None:
    """Also in another process, where sets have another order."""
    code = (
        "import sys; from simulation.run import run; print(run(int(sys.argv[1]), 300).trace_hash)"
    )
    command = [sys.executable, "-c", code]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    hashes = {
        subprocess.check_output(
            [*command, str(SEED)], env=environment | {"PYTHONHASHSEED": order}, text=True
        ).strip()
        for order in ("1", "2")
    }
    assert hashes == {run(SEED, 300).trace_hash}


def test_another_seed_takes_other_steps() -> None:
    assert run(SEED, 100).trace_hash != run(SEED + 1, 100).trace_hash
