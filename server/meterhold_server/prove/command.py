"""The command `meterhold-server prove`: a load on a running service, checked by its callers."""

from __future__ import annotations

import asyncio
import random
import sys
import time
from contextlib import AsyncExitStack
from typing import Final

import meterhold
from meterhold_server.prove import witness
from meterhold_server.prove.history import Call, Told, Violation
from meterhold_server.prove.settings import ProveSettings
from meterhold_server.prove.target import Recording

_CONNECTIONS: Final = 4
_REACHED_SECONDS: Final = 3.0
_SHOWN_MAX: Final = 50


def run(settings: ProveSettings) -> int:
    """Exit code 1 if a rule was broken, or if the service cannot be reached."""
    seed = settings.seed if settings.seed is not None else random.randrange(2**32)
    try:
        violations = asyncio.run(_prove(settings, seed))
    except (meterhold.MeterholdError, OSError, ValueError) as error:
        print(f"meterhold-server prove: {settings.target}: {error}", file=sys.stderr)
        return 1
    for violation in violations[:_SHOWN_MAX]:
        print(violation)
    print(f"{len(violations)} violations" if violations else "every rule holds")
    return 1 if violations else 0


async def _prove(settings: ProveSettings, seed: int) -> list[Violation]:
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(_client(settings)) for _ in range(_CONNECTIONS)]
        recording = Recording(
            clients, seed=seed, accounts=settings.accounts, operations=settings.operations
        )
        # A service that cannot be reached proves nothing.
        await clients[0].balance(recording.accounts[0], timeout_seconds=_REACHED_SECONDS)
        print(f"seed {seed}, accounts {recording.name}-…", flush=True)
        started = time.monotonic()
        await recording.work(settings.in_flight_max)
        seconds = time.monotonic() - started
        resolved = await recording.resolve()
        history = await recording.history()
    _tell(recording.calls, resolved, seconds)
    return [*recording.unresolved, *witness.check(history)]


def _client(settings: ProveSettings) -> meterhold.AsyncClient:
    authority = settings.tls_ca_certificate
    tls = meterhold.Tls.from_files(root_certificates=authority) if settings.tls else None
    api_key = settings.api_key.get_secret_value() if settings.api_key else None
    return meterhold.AsyncClient(settings.target, tls=tls, api_key=api_key)


def _tell(calls: list[Call], resolved: int, seconds: float) -> None:
    attempts = [attempt for call in calls for attempt in call.attempts]
    rows = {
        "calls": len(calls),
        "attempts": len(attempts),
        "  acknowledged": sum(attempt.told is Told.OK for attempt in attempts),
        "  refused": sum(attempt.told is Told.REFUSED for attempt in attempts),
        "  of unknown outcome": sum(attempt.told is Told.UNKNOWN for attempt in attempts),
        "calls resolved at the end": resolved,
        "calls a second": round(len(calls) / seconds),
    }
    for name, number in rows.items():
        print(f"{name:<30}{number:>10,}")
