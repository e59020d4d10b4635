"""One round: a load while things go wrong, as a plan says."""

from __future__ import annotations

import asyncio

from chaos.deployment import deployed
from chaos.plan import Plan
from chaos.quiet import settled
from chaos.strikes import PROGRESS_SECONDS_MAX, Strikes
from chaos.tally import Tally
from meterhold_server.prove.target import Recording
from robustness.database_apart import DatabaseApart
from support.waiting import until


async def chaos(database: DatabaseApart, plan: Plan) -> Tally:
    """Carry out a plan, and check what came of it."""
    async with deployed(database, plan.settings) as deployment:
        async with deployment.clients(
            plan.timeout_seconds, plan.attempt_timeout_seconds
        ) as clients:
            recording = Recording(
                clients,
                seed=plan.seed,
                accounts=plan.accounts,
                impatience=plan.impatience,
            )
            strikes = Strikes(deployment, recording.name)

            def calls_made() -> int:
                return len(recording.calls)

            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(recording.work(plan.callers))
                # The load goes on as long as anything goes wrong.
                await strikes.all(plan.strikes, calls_made)
                await until(lambda: calls_made() >= plan.operations, seconds=PROGRESS_SECONDS_MAX)
                recording.stop()
        tally, _ = await settled(deployment, recording, plan.seed)
    tally.struck(strikes)
    return tally
