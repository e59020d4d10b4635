"""Delivers what a hold could not, in a thread of its own, as soon as the server is back."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from meterhold import _answers, _delivery
from meterhold._delivery import Delivery, Parcel
from meterhold._errors import MeterholdError
from meterhold.v1.ledger_service_pb2 import GetReservationRequest

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from meterhold._calls import Calls
    from meterhold._tab import Ending


class Courier:
    """Owns the journal of a client. Safe to share between threads."""

    def __init__(self, calls: Calls, journal: str | Path | None) -> None:
        self.durable = journal is not None
        self._calls = calls
        self._store = _delivery.store_at(journal)
        self._lock = threading.Lock()
        self._delivering = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closing = threading.Event()
        self._posted = threading.Event()
        if self.durable and self._store.pending():
            self._start()

    def post(self, requests: Iterable[Ending], own_id: str = "") -> None:
        """Take over what ends a hold. Kept when this returns, if there is a journal.

        With an `own_id` only a hold that was made by the block of that id is ended.
        """
        self._store.add(_delivery.settles_of(requests), own_id)
        self._posted.set()
        self._start()

    def deliver(self) -> Delivery:
        """Try once to deliver everything that waits, now."""
        with self._delivering:
            records = self._store.pending()
            for record in records:
                self._deliver(Parcel(self._store, record))
        return _delivery.report(self._store, records)

    def close(self) -> None:
        """Begin no more deliveries."""
        self._closing.set()
        self._posted.set()

    def join(self) -> None:
        """Wait for the end; `close` first.

        What is not delivered stays in the journal; without one it is lost, and logged.
        """
        if self._thread is not None:
            self._thread.join()
        if not self.durable:
            for record in self._store.pending():
                Parcel(self._store, record).lose()

    def _start(self) -> None:
        with self._lock:
            if self._thread is None and not self._closing.is_set():
                self._thread = threading.Thread(
                    target=self._work, name="meterhold-courier", daemon=True
                )
                self._thread.start()

    def _work(self) -> None:
        pause = _delivery.FIRST_PAUSE_SECONDS
        while not self._closing.is_set():
            self._posted.clear()
            if self.deliver().pending:
                self._closing.wait(pause)
                pause = min(pause * 2, _delivery.PAUSE_SECONDS_MAX)
            else:
                pause = _delivery.FIRST_PAUSE_SECONDS
                self._posted.wait()

    def _deliver(self, parcel: Parcel) -> None:
        while (request := parcel.next()) is not None and not self._closing.is_set():
            try:
                if isinstance(request, GetReservationRequest):
                    found = self._calls.call(self._calls.ledger.GetReservation, request, None)
                    parcel.looked_at(_answers.reservation(found))
                else:
                    self._calls.call(self._calls.metering.Settle, request, None)
                    parcel.answered()
            except MeterholdError as failure:
                if not parcel.failed(failure):
                    return
