"""What becomes of a record that is delivered: the rules that both couriers share."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from meterhold import _ledger_requests
from meterhold._errors import MeterholdError, NotFound, Rejected
from meterhold._journal import Journal, Memory
from meterhold._tab import Closing, describe, is_made_by, log, settle_of
from meterhold.v1.metering_service_pb2 import ReleaseRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from meterhold._journal import Record, Store
    from meterhold._results import Reservation
    from meterhold._tab import Ending
    from meterhold.v1.ledger_service_pb2 import GetReservationRequest
    from meterhold.v1.metering_service_pb2 import SettleRequest

FIRST_PAUSE_SECONDS = 0.5
PAUSE_SECONDS_MAX = 30.0

# For so long a reserve that was given up may still arrive, and a hold that is not there come up.
_LATE_SECONDS = 30.0


class Delivery(NamedTuple):
    """How delivering went, in holds whose end could not be delivered at first.

    `delivered` are done with now, `pending` still wait, `refused` were refused for good, ever, and
    stay in the journal for a person to look at.
    """

    delivered: int
    pending: int
    refused: int


def store_at(path: str | Path | None) -> Store:
    """Open the journal at the path; without one, records live in memory."""
    return Memory() if path is None else Journal(path)


def report(store: Store, tried: Iterable[Record]) -> Delivery:
    """Say how delivering the records went."""
    numbers = {record.number for record in tried}
    pending = numbers & {record.number for record in store.pending()}
    refused_count = store.refused_count()
    return Delivery(len(numbers) - len(pending), len(pending), refused_count)


def settles_of(requests: Iterable[Ending]) -> list[SettleRequest]:
    """Turn what ends a hold into settles only: a settle of 0 ends one that expired, too."""
    return [settle_of(request) for request in requests]


class Parcel:
    """One record on its way: `next` until it is None, and tell what became of each request."""

    def __init__(self, store: Store, record: Record) -> None:
        self._store = store
        self._record = record
        self._closing = Closing(list(record.settles))
        self._looked = not record.own_id

    def looked_at(self, reservation: Reservation) -> None:
        """Note whose hold it is. Another block's is left alone."""
        self._looked = True
        if not is_made_by(reservation, self._record.own_id):
            self._closing.requests.clear()
            self._store.done(self._record)

    def next(self) -> SettleRequest | GetReservationRequest | None:
        """Answer what to send now; None when all of it is delivered."""
        requests = self._closing.requests
        if not requests:
            return None
        settle = settle_of(requests[0])
        if self._looked:
            return settle
        return _ledger_requests.get_reservation(
            settle.account, reservation_id=settle.reservation_id, unit=settle.unit
        )

    def answered(self) -> None:
        self._closing.answered()
        if not self._closing.requests:
            self._store.done(self._record)

    def lose(self) -> None:
        """Log what will never be delivered."""
        settles = [settle for settle in self._record.settles if settle.amount_micros]
        for settle in settles:
            log.error("lost: %s", describe(settle))
        if not settles:
            log.warning("left to expire: %s", describe(self._record.settles[-1]))

    def failed(self, failure: MeterholdError) -> bool:
        """Note a failure. Answers whether to go on with the parcel; False = leave it for later."""
        request = self._closing.requests[0]
        if not isinstance(failure, Rejected):
            return False
        if isinstance(failure, NotFound) and self._may_come_up():
            return False
        self._looked = True
        if settle_of(request).amount_micros == 0:
            self.answered()  # Nothing is owed, and there is nothing left to end.
            return True
        try:
            self._closing.refused(failure)
        except Rejected:
            log.error(
                "refused for good, kept in the journal if there is one: %s", describe(request)
            )
            self._store.refuse(self._record, f"{failure.reason}: {failure}")
            return False
        return True

    def _may_come_up(self) -> bool:
        return time.time() - self._record.post_time < _LATE_SECONDS


def kept_for_later(
    closing: Closing,
    failure: MeterholdError,
    post: Callable[[Iterable[Ending]], None],
    *,
    durable: bool,
) -> bool:
    """Hand what could not be delivered to the courier. Answers whether that is as good as done."""
    last = closing.last
    if isinstance(failure, Rejected):
        log.error("refused: %s: %s", describe(last), failure)
        return False
    post(closing.requests)
    log.warning("not delivered yet: %s: %s", describe(last), failure)
    # A release owes nothing to anybody: there is nothing to tell its caller.
    return durable or isinstance(last, ReleaseRequest)
