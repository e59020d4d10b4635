"""The quiet phase after each part: all must come right, and is held against what was told."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Final

from chaos.deployment import Deployment
from chaos.tally import Tally
from meterhold_server.prove import witness
from meterhold_server.prove.history import Book, Call, Violation
from meterhold_server.prove.target import Recording
from meterhold_server.storage.connection import connect_reader
from meterhold_server.storage.due import due_accounts
from meterhold_server.storage.verify import verify

_SWEPT_SECONDS_MAX: Final = 30.0
_QUIET_SECONDS: Final = 20.0
_POLL_SECONDS: Final = 0.1
_NEVER_TOLD: Final = ("INTERNAL ", "UNKNOWN ")


async def settled(
    deployment: Deployment, recording: Recording, seed: int
) -> tuple[Tally, list[Book]]:
    """Resolve what is unknown, wait until all that is due is swept, and check everything."""
    async with deployment.clients(_QUIET_SECONDS, _QUIET_SECONDS) as clients:
        recording.clients = clients
        resolved = await recording.resolve()
        history = await recording.history()
    violations = [*recording.unresolved, *witness.check(history), *deployment.bugs()]
    violations += _internal(recording.calls)
    violations += await asyncio.to_thread(lambda: list(_stored(deployment.database.url)))
    logged = deployment.logged()
    tally = Tally(resolved=resolved)
    tally.add(seed, recording.calls, violations)
    tally.commits_found = Counter(done=logged["committed True"], undone=logged["committed False"])
    return tally, list(history.books.values())


def _internal(calls: Iterable[Call]) -> Iterator[Violation]:
    """Answers that no sound server gives, whatever befalls it."""
    for call in calls:
        for attempt in call.attempts:
            if attempt.text.startswith(_NEVER_TOLD):
                what = f"was told {attempt.text}"
                yield Violation("broken", call.account, call.name, what)


def _stored(url: str) -> Iterator[Violation]:
    """What is wrong in the database, by itself."""
    give_up = time.monotonic() + _SWEPT_SECONDS_MAX
    with connect_reader(url) as connection:
        while due := due_accounts(connection, 1):
            if time.monotonic() > give_up:
                what = f"is due and not swept after {_SWEPT_SECONDS_MAX} s"
                yield Violation("liveness", due[0].account.account, "", what)
                break
            time.sleep(_POLL_SECONDS)
    for what in verify(url).violations:
        yield Violation("stored", "", "", what)
