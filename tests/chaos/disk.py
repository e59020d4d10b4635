"""What goes wrong with a disk: slow and failing fsync by strace, and no room on a small one."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Final

import psycopg

from chaos.plan import Fault
from robustness.database_apart import DatabaseApart

FAILING: Final = "error=EIO:when=1"
_SWITCHES_MAX: Final = 80
"""More segments of the log than a database keeps at hand."""

_PROBE_SECONDS_MAX: Final = 5.0
_MARKS: Final = (b"(INJECTED)", b"(DELAYED)")


def slow(seconds: float) -> str:
    """What to inject so that each fsync takes so long."""
    return f"delay_enter={int(seconds * 1e6)}"


async def inject(pids: Sequence[int], what: str, seconds: float) -> bool:
    """Let fsyncs of these processes go wrong for some time. Answers whether any did."""
    if not pids:
        return False
    with tempfile.NamedTemporaryFile(prefix="meterhold-strace-") as trace:
        strace = await asyncio.create_subprocess_exec(
            *("strace", "-f", "-qq", "-o", trace.name, "-e", "trace=fdatasync"),
            *("-e", f"inject=fdatasync:{what}", *(f"--attach={pid}" for pid in pids)),
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            with suppress(TimeoutError):
                # It ends by itself when those it is attached to have.
                await asyncio.wait_for(strace.wait(), seconds)
        finally:
            if strace.returncode is None:
                strace.terminate()
                await strace.wait()
        trace.seek(0)
        traced = trace.read()
    return any(mark in traced for mark in _MARKS)


def write_until_full(database: DatabaseApart) -> bool:
    """Fill the disk, and let the log grow. Answers whether the database ran out of room."""
    try:
        with psycopg.connect(database.url, autocommit=True, connect_timeout=5) as connection:
            database.fill_disk()
            for _ in range(_SWITCHES_MAX):
                connection.execute("SELECT pg_logical_emit_message(true, 'chaos', 'full')")
                connection.execute("SELECT pg_switch_wal()")
    except psycopg.errors.DiskFull:
        return True
    except psycopg.OperationalError:
        return False
    return False


def not_possible() -> Iterator[tuple[Fault, str]]:
    """Which of these faults this machine cannot do, and why."""
    if shutil.which("strace") is None:
        why = "strace is not installed"
    elif not _may_trace():
        why = "strace may not trace here"
    else:
        why = ""
    if why:
        yield Fault.FSYNC_SLOW, why
        yield Fault.FSYNC_FAILED, why


def _may_trace() -> bool:
    """Tried on a process that is no child of strace, as those of the database are not."""
    with subprocess.Popen(["sleep", "0.2"]) as other:
        done = subprocess.run(
            ["strace", "-qq", "-o", os.devnull, "-p", str(other.pid)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_PROBE_SECONDS_MAX,
            check=False,
        )
    return done.returncode == 0
