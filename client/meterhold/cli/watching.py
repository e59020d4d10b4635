"""Looking at one account again and again: what was seen, and how late it is at the server."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import NamedTuple, Self

import meterhold

# As many as a tall terminal has lines for: one page of each.
RESERVATIONS_MAX = 50
ENTRIES_MAX = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """An account as three answers told it, one shortly after the other."""

    balance: meterhold.Balance
    reservations: tuple[meterhold.Reservation, ...]
    entries: tuple[meterhold.Entry, ...]


class Seen(NamedTuple):
    """The newest snapshot, and the error of a look since; None if there is none."""

    snapshot: Snapshot | None = None
    error: Exception | None = None


class ServerClock:
    """How late it is at the server, of which no answer tells.

    It is what this computer's clock says, put right by what the answers prove: what was created is
    not in the future, and what is active has not expired.
    """

    def __init__(self) -> None:
        self._ahead_at_least = timedelta.min
        self._ahead_at_most = timedelta.max

    def learn(self, snapshot: Snapshot, *, asked: datetime, answered: datetime) -> None:
        """Take in a snapshot that was asked for and answered at two times of this computer."""
        created = [one.create_time for one in snapshot.reservations]
        created += [one.create_time for one in snapshot.entries]
        if created:
            self._ahead_at_least = max(self._ahead_at_least, max(created) - answered)
        if snapshot.reservations:
            first_to_expire = min(one.expire_time for one in snapshot.reservations)
            self._ahead_at_most = min(self._ahead_at_most, first_to_expire - asked)

    def at(self, here: datetime) -> datetime:
        """The server's time when it is `here` on this computer, as far as is known."""
        return here + max(min(timedelta(0), self._ahead_at_most), self._ahead_at_least)


def look(client: meterhold.Client, account: str, unit: str, clock: ServerClock) -> Snapshot:
    """Ask for all there is to show, and set the clock. Raises MeterholdError."""
    asked = datetime.now(UTC)
    snapshot = Snapshot(
        balance=client.balance(account, unit=unit),
        reservations=tuple(
            islice(
                client.list_reservations(
                    account,
                    unit=unit,
                    states=[meterhold.ReservationState.ACTIVE],
                    page_size=RESERVATIONS_MAX,
                ),
                RESERVATIONS_MAX,
            )
        ),
        entries=tuple(
            islice(client.list_entries(account, unit=unit, page_size=ENTRIES_MAX), ENTRIES_MAX)
        ),
    )
    clock.learn(snapshot, asked=asked, answered=datetime.now(UTC))
    return snapshot


class Watch:
    """Looks again and again, in a thread of its own: a server that is away must not stop the keys.

    A context manager; leaving it closes the client, which ends the look that is under way.
    """

    def __init__(
        self, client: meterhold.Client, account: str, unit: str, interval: timedelta
    ) -> None:
        self.seen = Seen()
        self.clock = ServerClock()
        self._client = client
        self._account = account
        self._unit = unit
        self._interval_seconds = interval.total_seconds()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                found = look(self._client, self._account, self._unit, self.clock)
                self.seen = Seen(found)
            except Exception as error:  # told by the thread that shows it
                self.seen = self.seen._replace(error=error)
            self._stopping.wait(self._interval_seconds)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._client.close()
        self._thread.join()
