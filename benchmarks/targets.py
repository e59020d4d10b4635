"""What the service must reach, each as a ratio of two loads of one run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from benchmarks.results import Ratio, Results, Round

Loads = tuple[tuple[str, str], ...]


class Target(NamedTuple):
    """`least` must be reached and `aim` should be; of an `at_most` one, neither be passed."""

    name: str
    against: str
    least: float
    aim: float
    of: Callable[[Results], Ratio | None]
    at_most: bool = False

    def reached(self, measured: float) -> bool:
        return measured <= self.least if self.at_most else measured >= self.least


def _rates(measured: Round, base: Round) -> float:
    return measured["per_second"] / base["per_second"]


def _pairs_for_calls(pairs: Round, calls: Round) -> float:
    return pairs["per_second"] / 2 / calls["per_second"]


def _latency_for_parts(debit: Round, empty_call: Round, commit: Round) -> float:
    parts = empty_call["p50_milliseconds"] + commit["p50_milliseconds"]
    return debit["p50_milliseconds"] / parts


def _of(
    function: Callable[..., float], *loads: tuple[str, str]
) -> Callable[[Results], Ratio | None]:
    return lambda results: results.ratio(function, *loads)


def _of_growth(name: str) -> Callable[[Results], Ratio | None]:
    def found(results: Results) -> Ratio | None:
        ratios = (results.growth or {}).get("ratios", {})
        return Ratio(*ratios[name]) if name in ratios else None

    return found


def _against_naive(name: str) -> Callable[[Results], Ratio | None]:
    return _of(_rates, ("product", name), ("naive", name))


_BUILDS: Final = {"product": "", "compiled": ", compiled"}


def _of_builds(
    text: tuple[str, str],
    bounds: tuple[float, float],
    function: Callable[..., float],
    load: str,
    base: tuple[str, str],
) -> tuple[Target, ...]:
    """A target for each build, that is for each server that can have the load."""
    name, against = text
    return tuple(
        Target(name + suffix, against, *bounds, _of(function, (server, load), base))
        for server, suffix in _BUILDS.items()
    )


TARGETS: Final = (
    *_of_builds(
        ("Unary Debit", "the no-op server"),
        (0.7, 0.85),
        _rates,
        "debit",
        ("noop", "debit"),
    ),
    Target(
        "Unary Reserve + Settle, one hot account",
        "many accounts",
        0.95,
        1.2,
        _of(_rates, ("product", "pair hot"), ("product", "pair")),
    ),
    Target("Unary Debit, many accounts", "the naive server", 3, 5, _against_naive("debit")),
    Target("Unary Debit, hot", "the naive server", 10, 30, _against_naive("debit hot")),
    Target(
        "Unary Reserve + Settle, many accounts", "the naive server", 3, 5, _against_naive("pair")
    ),
    Target("Unary Reserve + Settle, hot", "the naive server", 10, 30, _against_naive("pair hot")),
    Target(
        "Debit of one lone caller, p50",
        "an empty call + a commit",
        2.5,
        1.5,
        _of(
            _latency_for_parts,
            ("product", "debit of 1"),
            ("noop", "debit of 1"),
            ("ceiling", "commit"),
        ),
        at_most=True,
    ),
    *_of_builds(
        ("AsyncClient, pairs a second", "calls a second of the no-op server"),
        (1.17, 1.7),
        _pairs_for_calls,
        "client pair",
        ("noop", "debit"),
    ),
    *_of_builds(
        ("Batch of 100, Reserve + Settle", "bare SQL in sets of 100"),
        (0.25, 0.5),
        _rates,
        "batch pair",
        ("ceiling", "batch pair"),
    ),
    *_of_builds(
        ("Batch of 1,000 Debits", "bare SQL in sets of 1,000"),
        (0.4, 0.7),
        _rates,
        "batch debit",
        ("ceiling", "batch debit"),
    ),
    Target(
        "The slowest of any load, large ledger",
        "a small ledger",
        0.9,
        0.97,
        _of_growth("slowest load"),
    ),
    Target(
        "Balance, 10 million entries",
        "an account of ten entries",
        0.95,
        1,
        _of_growth("balance"),
    ),
)
