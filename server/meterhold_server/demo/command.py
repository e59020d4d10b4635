"""The command `meterhold-server demo`: joins the parts and comes to a verdict."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence

from rich.console import Console

import meterhold
from meterhold_server.demo import report
from meterhold_server.demo.books import Tally
from meterhold_server.demo.replay import Replay
from meterhold_server.demo.service import ended_by_signals, fresh_database, served
from meterhold_server.demo.settings import DemoSettings
from meterhold_server.demo.trace import TracedRequest, read_trace
from meterhold_server.demo.workload import Workload, make_workload
from meterhold_server.storage.verify import verify


def run(settings: DemoSettings) -> int:
    """Replay, check, report. Exit code 1 if anything does not hold. Raises DemoError."""
    console = Console(highlight=False)
    requests = read_trace(settings.trace, settings.requests)
    workload = make_workload(
        requests,
        accounts=settings.accounts,
        seed=settings.seed,
        speed=settings.speed,
        output_tokens_max=settings.output_tokens_max,
    )
    _introduce(console, settings, workload, requests)
    try:
        with ended_by_signals(), fresh_database(settings) as url:
            tally = asyncio.run(_replay(settings, url, workload, console))
            result = verify(url)
    except KeyboardInterrupt:
        console.print("Interrupted. What the demo started has stopped.")
        raise
    exact, equation = report.equation(result)
    console.print(report.results(tally, result))
    for text in (equation, *report.verdict(tally, result)):
        console.print(text, soft_wrap=True)
    return 0 if exact and result.clean and not tally.problems else 1


def _introduce(
    console: Console,
    settings: DemoSettings,
    workload: Workload,
    requests: Sequence[TracedRequest],
) -> None:
    traced = requests[-1].arrival_time - requests[0].arrival_time
    scarce = sum(wallet.scarce for wallet in workload.wallets)
    console.print(
        f"{len(requests):,} LLM requests of {traced.total_seconds():,.0f} s, replayed "
        f"{settings.speed:g} times faster; seed {settings.seed}\n"
        f"{len(workload.wallets):,} accounts share them, {scarce:,} of which prepaid too little"
    )


async def _replay(settings: DemoSettings, url: str, workload: Workload, console: Console) -> Tally:
    async with served(settings, url) as address, meterhold.AsyncClient(address) as client:
        # A name of its own, so that a database can take more than one run.
        name = f"demo-{secrets.token_hex(4)}"
        replay = Replay(client, workload, name, settings.in_flight_max)
        console.print(f"A server on {address}; the accounts are called {name}-…")
        await replay.grant()
        async with report.progress(console, replay.tally, len(workload.jobs)):
            await replay.send_all()
        console.print(f"Waiting for the holds of {replay.tally.crashed} crashes to expire")
        await replay.await_expiries()
        await replay.check_books()
        return replay.tally
