"""A process that runs jobs in `hold` blocks, to be killed in the middle of them."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import traceback
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import meterhold
from meterhold import OnExpiry
from robustness.hold_jobs import Fate, Job, Stage, run, run_async

_TIMEOUT_SECONDS: Final = 2.0
_ENDED: Final = "all have ended"


class HoldProcess:
    """Starts at once. Leaving the context kills the process, if it lives."""

    def __init__(self, address: str, truth: Path, journal: Path, jobs: Sequence[Job]) -> None:
        self._jobs = jobs
        self._process = subprocess.Popen(
            [sys.executable, "-m", "robustness.hold_process"],
            cwd=Path(__file__).parents[1],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._tell(json.dumps([address, str(truth), str(journal), jobs]))

    def wait_until_all_pause(self) -> None:
        """Until each job has come to where it pauses."""
        assert {self._hear() for _ in self._jobs} == {job.name for job in self._jobs}

    def go_on(self) -> None:
        """Let the jobs that pause end."""
        self._tell("")

    def wait_until_all_ended(self) -> None:
        assert self._hear() == _ENDED

    def kill(self) -> None:
        """kill -9: nothing of the process gets to do anything any more."""
        self._process.kill()
        self._process.communicate()

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        print(line, file=self._process.stdin, flush=True)

    def _hear(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"the process ended with {self._process.wait()}"
        return line.strip()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process.poll() is None:
            self.kill()


def _job(fields: list[Any]) -> Job:
    """What was a Job before it was JSON."""
    job = Job(*fields)
    return job._replace(
        fate=Fate(job.fate),
        captures=tuple(job.captures),
        charges=tuple(job.charges),
        on_expiry=OnExpiry(job.on_expiry),
    )


def _say(line: str) -> None:
    """Whole, whatever other threads say."""
    os.write(sys.stdout.fileno(), f"{line}\n".encode())


async def _main() -> None:
    """Run the jobs that standard input names; another line there lets those go on that pause."""
    address, truth, journal, jobs = json.loads(sys.stdin.readline())
    stage = Stage(Path(truth), _say)
    client = meterhold.Client(address, journal=journal, timeout_seconds=_TIMEOUT_SECONDS)
    async_client = meterhold.AsyncClient(address, journal=journal, timeout_seconds=_TIMEOUT_SECONDS)
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(1 + len(jobs)))
    try:
        async with asyncio.TaskGroup() as running:
            for job in map(_job, jobs):
                if job.is_async:
                    running.create_task(run_async(async_client, job, stage))
                else:
                    running.create_task(asyncio.to_thread(run, client, job, stage))
            running.create_task(_listen(stage))
        _say(_ENDED)
        await asyncio.to_thread(sys.stdin.readline)
    except BaseException:
        # Whoever started it wants to hear of an error now, not when threads have ended that pause.
        traceback.print_exc()
        os._exit(1)


async def _listen(stage: Stage) -> None:
    await asyncio.to_thread(sys.stdin.readline)
    stage.going_on.set()


if __name__ == "__main__":
    asyncio.run(_main())
