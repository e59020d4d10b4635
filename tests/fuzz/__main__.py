"""`python -m fuzz`: fuzz and attack a server, and print the seed and a table."""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
from typing import Final

# First, as it tells gRPC not to prepare for forks: one beside its threads can crash.
from meterhold_server.storage import migrate  # isort: skip
from fuzz.prove import Plan, Report, prove
from support.database import DatabaseServer
from support.verdict import Figures, tell

_P99_MILLISECONDS_MAX: Final = 5000.0
"""Of honest callers, whatever goes on beside them."""


def main() -> int:
    """Exit code 1 if anything was answered wrong, was hurt, or if too little was tried."""
    options = _options()
    print(f"seed {options.seed}", flush=True)
    plan = Plan(
        seed=options.seed,
        requests=options.requests,
        requests_of_strangers=max(1000, options.requests // 20),
        mutants=options.mutants,
        calm_seconds=3.0,
        attack_seconds=0.5,
        siege_seconds=5.0,
    )
    started = time.perf_counter()
    with DatabaseServer() as databases:
        urls = [databases.create_database() for _ in range(2)]
        for url in urls:
            migrate.upgrade(url)
        report = asyncio.run(prove(plan, *urls))
    _tell(report, time.perf_counter() - started)
    requests = report.traffic.sent + report.strangers.sent
    strokes = sum(damage.strokes for damage in report.damage.values())
    figures = Figures(operations=requests + report.honest_calls, faults=strokes)
    return tell(figures, [*report.problems, *_too_slow(report)])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    parser.add_argument("--requests", type=int, default=100_000, help="over the wire")
    parser.add_argument("--mutants", type=int, default=200_000, help="parsed in this process")
    return parser.parse_args()


def _tell(report: Report, seconds: float) -> None:
    traffic = report.traffic
    rows: dict[str, int] = {
        "mutants parsed in process": report.parsed.messages + report.parsed.refused,
        "  messages": report.parsed.messages,
        "  refused": report.parsed.refused,
        "fuzzed requests": traffic.sent,
        "  mutants that were accepted": traffic.mutants_accepted,
        **{f"  {code}": number for code, number in sorted(traffic.codes.items())},
        "fuzzed requests without the right to": report.strangers.sent,
        **{f"  {code} then": number for code, number in sorted(report.strangers.codes.items())},
        "INTERNAL or UNKNOWN": report.indefinite,
        "methods": len(traffic.requests),
        "strokes of attacks": sum(damage.strokes for damage in report.damage.values()),
        **{f"  {name}": damage.strokes for name, damage in report.damage.items()},
        "server processes restarted": report.restarts,
        "restarts of gRPC within them": report.transport_restarts,
        **{f"memory in MiB, {when}": mib for when, mib in report.memory_mib.items()},
        "honest calls beside": report.honest_calls,
        "ledger entries verified": sum(each.entries for each in report.verified),
        "seconds": round(seconds),
    }
    for name, number in rows.items():
        print(f"{name:<48}{number:>12,}")
    calm = report.p99_milliseconds["nothing else"]
    print("p99 of honest callers beside, and how many times that of calm")
    for what, p99 in report.p99_milliseconds.items():
        print(f"  {what:<40}{p99:>12.1f} ms{p99 / calm:>9.1f}")
    print("requests by method, and how many were accepted")
    for method, number in sorted(traffic.requests.items()):
        print(f"  {method:<64}{number:>9,}{traffic.accepted[method]:>9,}")
    print(flush=True)


def _too_slow(report: Report) -> list[str]:
    return [
        f"honest callers waited for {p99:.0f} ms beside {what}"
        for what, p99 in report.p99_milliseconds.items()
        if p99 > _P99_MILLISECONDS_MAX
    ]


if __name__ == "__main__":
    sys.exit(main())
