"""Who runs jobs in this process: a client of each kind, and a thread for each job that blocks."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, Self, TypeAlias

import meterhold
from robustness.hold_jobs import Job, Stage, run, run_async

TIMEOUT_SECONDS: Final = 2.0

Heard: TypeAlias = BaseException | meterhold.Hold | meterhold.AsyncHold
"""What a block raised, or else its hold."""


class Callers:
    """Use it as an async context manager; in the end its clients are closed."""

    def __init__(self, address: str, stage: Stage, journal: Path | None = None) -> None:
        self._stage = stage
        self._sync = meterhold.Client(address, timeout_seconds=TIMEOUT_SECONDS, journal=journal)
        self._async = meterhold.AsyncClient(
            address, timeout_seconds=TIMEOUT_SECONDS, journal=journal
        )

    async def run(self, jobs: Sequence[Job]) -> dict[str, Heard]:
        """Run jobs at once. Answers what became of each, by its name."""
        heard = await asyncio.gather(*(asyncio.create_task(self._heard(job)) for job in jobs))
        return {job.name: result for job, result in zip(jobs, heard, strict=True)}

    async def _heard(self, job: Job) -> Heard:
        if not job.is_async:
            with ThreadPoolExecutor(1) as thread:
                loop = asyncio.get_running_loop()
                return await loop.run_in_executor(thread, self._heard_in_thread, job)
        task = asyncio.create_task(run_async(self._async, job, self._stage))
        await asyncio.wait([task])
        if task.cancelled():
            return asyncio.CancelledError()
        return task.exception() or task.result()

    def _heard_in_thread(self, job: Job) -> Heard:
        try:
            return run(self._sync, job, self._stage)
        except BaseException as error:
            return error

    async def deliver(self) -> None:
        """Deliver what could not be told before, until nothing waits any more."""
        while (await asyncio.to_thread(self._sync.deliver_journal)).pending:
            pass
        while (await self._async.deliver_journal()).pending:
            pass

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self._sync.close)
        await self._async.aclose()
