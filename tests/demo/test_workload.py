"""Who sends what: repeatable by the seed, heavy-tailed, and some with too little."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta

import pytest

from meterhold_server.demo.trace import TracedRequest, read_trace
from meterhold_server.demo.workload import Workload, make_workload

ACCOUNTS = 50


@pytest.fixture(scope="module")
def requests() -> list[TracedRequest]:
    return read_trace(None, 4000)


def workload(requests: list[TracedRequest], *, seed: int = 1, speed: float = 60.0) -> Workload:
    return make_workload(
        requests, accounts=ACCOUNTS, seed=seed, speed=speed, output_tokens_max=1000
    )


def test_the_same_seed_makes_the_same(requests: list[TracedRequest]) -> None:
    assert workload(requests) == workload(requests)
    assert workload(requests, seed=2) != workload(requests)


@pytest.mark.parametrize("seed", range(5))
def test_few_accounts_send_most(requests: list[TracedRequest], seed: int) -> None:
    counts = Counter(job.account for job in workload(requests, seed=seed).jobs)
    largest = [count for _, count in counts.most_common()]

    assert sum(largest[:5]) > len(requests) * 0.4
    assert sum(largest[-25:]) < len(requests) * 0.25
    assert len(counts) == ACCOUNTS


@pytest.mark.parametrize("seed", range(5))
def test_a_fifth_prepay_less_than_they_cost_and_the_others_enough(
    requests: list[TracedRequest], seed: int
) -> None:
    made = workload(requests, seed=seed)
    true, worst = Counter[int](), Counter[int]()
    for job in made.jobs:
        true[job.account] += job.true_micros
        worst[job.account] += job.worst_micros

    assert sum(wallet.scarce for wallet in made.wallets) == ACCOUNTS // 5
    for account, wallet in enumerate(made.wallets):
        if wallet.scarce:
            assert wallet.paid_micros + wallet.welcome_micros < true[account]
        else:
            assert wallet.paid_micros >= worst[account]


def test_the_worst_case_covers_every_request(requests: list[TracedRequest]) -> None:
    assert all(job.true_micros <= job.worst_micros for job in workload(requests).jobs)


def test_some_crash_and_both_kinds_of_expiry_are_among_them(requests: list[TracedRequest]) -> None:
    crashed = [job for job in workload(requests).jobs if job.crashes]

    assert 40 < len(crashed) < 200
    assert {job.charged_on_expiry for job in crashed} == {True, False}


def test_speed_compresses_arrivals_and_work_alike(requests: list[TracedRequest]) -> None:
    slow, fast = workload(requests, speed=1).jobs[-1], workload(requests, speed=100).jobs[-1]

    assert slow.start == requests[-1].arrival_time - requests[0].arrival_time
    assert fast.start == slow.start / 100
    assert fast.work == slow.work / 100


def test_a_hold_outlasts_the_longest_job(requests: list[TracedRequest]) -> None:
    made = workload(requests, speed=1)

    assert made.hold_ttl > max(job.work for job in made.jobs) + timedelta(seconds=1)


def test_one_request_of_one_account_is_enough(requests: list[TracedRequest]) -> None:
    made = make_workload(requests[:1], accounts=1, seed=1, speed=60, output_tokens_max=1)

    assert len(made.jobs) == len(made.wallets) == 1
    assert made.welcome_ttl > timedelta(0)
