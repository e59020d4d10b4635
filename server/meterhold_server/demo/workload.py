"""Who sends which request of the trace, with what money, and which of them crash."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from itertools import accumulate
from random import Random
from typing import Final, NamedTuple

from meterhold_server.demo.prices import MODELS, Model
from meterhold_server.demo.trace import TracedRequest

CRASHED_PERCENT: Final = 3
CHARGED_ON_EXPIRY_PERCENT: Final = 50
SCARCE_PERCENT: Final = 20

# About what a model of 70 billion parameters takes on one server of its day.
_MICROSECONDS_PER_CONTEXT_TOKEN: Final = 100
_MICROSECONDS_PER_GENERATED_TOKEN: Final = 30_000

# Over the longest job: what a busy machine may add before a hold expires that should not.
_SPARE_TIME: Final = timedelta(seconds=3)
_WELCOME_DIVISOR: Final = 10


class Job(NamedTuple):
    """One request of the trace. `start` and `work` are compressed in time."""

    number: int
    account: int
    model: Model
    context_tokens: int
    generated_tokens: int
    start: timedelta
    work: timedelta
    worst_micros: int
    true_micros: int
    charged_on_expiry: bool
    crashes: bool


class Wallet(NamedTuple):
    """What an account is given first: credits it paid for, and a welcome that expires.

    `scarce` ones paid for half of what their requests cost; the others for the worst case of all of
    them, so that these must never be refused.
    """

    paid_micros: int
    welcome_micros: int
    scarce: bool


class Workload(NamedTuple):
    """`welcome_ttl` is how long the welcome lasts: half of the replay."""

    wallets: tuple[Wallet, ...]
    jobs: tuple[Job, ...]
    hold_ttl: timedelta
    welcome_ttl: timedelta


def make_workload(
    requests: Sequence[TracedRequest],
    *,
    accounts: int,
    seed: int,
    speed: float,
    output_tokens_max: int,
) -> Workload:
    """The same for the same arguments."""
    random = Random(seed)
    senders = heavy_tailed(random, accounts, len(requests))
    models = random.choices(MODELS, k=accounts)
    first = requests[0].arrival_time
    jobs = tuple(
        Job(
            number,
            account,
            models[account],
            request.context_tokens,
            request.generated_tokens,
            start=(request.arrival_time - first) / speed,
            work=_work_time(request) / speed,
            worst_micros=models[account].cost_micros(request.context_tokens, output_tokens_max),
            true_micros=models[account].cost_micros(
                request.context_tokens, request.generated_tokens
            ),
            charged_on_expiry=random.randrange(100) < CHARGED_ON_EXPIRY_PERCENT,
            crashes=random.randrange(100) < CRASHED_PERCENT,
        )
        for number, (account, request) in enumerate(zip(senders, requests, strict=True), start=1)
    )
    return Workload(
        _wallets(random, accounts, jobs),
        jobs,
        hold_ttl=max(job.work for job in jobs) + _SPARE_TIME,
        welcome_ttl=max(jobs[-1].start / 2, timedelta(seconds=1)),
    )


def heavy_tailed(random: Random, accounts: int, requests: int) -> list[int]:
    """An account for each request. The second sends half as much as the first, and so on (Zipf)."""
    shares = accumulate(1 / rank for rank in range(1, accounts + 1))
    return random.choices(range(accounts), cum_weights=list(shares), k=requests)


def _work_time(request: TracedRequest) -> timedelta:
    return timedelta(
        microseconds=request.context_tokens * _MICROSECONDS_PER_CONTEXT_TOKEN
        + request.generated_tokens * _MICROSECONDS_PER_GENERATED_TOKEN
    )


def _wallets(random: Random, accounts: int, jobs: Sequence[Job]) -> tuple[Wallet, ...]:
    worst, true = [0] * accounts, [0] * accounts
    for job in jobs:
        worst[job.account] += max(job.worst_micros, job.true_micros)
        true[job.account] += job.true_micros
    scarce = set(random.sample(range(accounts), max(1, accounts * SCARCE_PERCENT // 100)))
    return tuple(
        _wallet(true[account] // 2 if account in scarce else worst[account], account in scarce)
        for account in range(accounts)
    )


def _wallet(needed_micros: int, scarce: bool) -> Wallet:
    paid = max(1, needed_micros)
    return Wallet(paid, max(1, paid // _WELCOME_DIVISOR), scarce)
