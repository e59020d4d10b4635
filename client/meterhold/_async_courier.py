"""The asynchronous twin of `_courier.py`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from meterhold import _answers, _delivery
from meterhold._delivery import Delivery, Parcel
from meterhold._errors import MeterholdError
from meterhold.v1.ledger_service_pb2 import GetReservationRequest

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from meterhold._async_calls import AsyncCalls
    from meterhold._tab import Ending


class AsyncCourier:
    """Owns the journal of a client. Belongs to one event loop."""

    def __init__(self, calls: AsyncCalls, journal: str | Path | None) -> None:
        self.durable = journal is not None
        self._calls = calls
        self._store = _delivery.store_at(journal)
        self._task: asyncio.Task[None] | None = None
        self._delivering = asyncio.Lock()
        self._closed = False
        self._posted = asyncio.Event()
        if self.durable and self._store.pending():
            self._start()

    def post(self, requests: Iterable[Ending], own_id: str = "") -> None:
        """Take over what ends a hold. Kept when this returns, if there is a journal.

        With an `own_id` only a hold that was made by the block of that id is ended.

        It writes to the disk in the event loop: rarely, briefly, and not to be cancelled.
        """
        self.keep(requests, own_id)
        self._start()

    def keep(self, requests: Iterable[Ending], own_id: str = "") -> None:
        """Take over what ends a hold while the event loop is ending: only keep it."""
        self._store.add(_delivery.settles_of(requests), own_id)
        self._posted.set()

    async def deliver(self) -> Delivery:
        """Try once to deliver everything that waits, now."""
        async with self._delivering:
            records = self._store.pending()
            for record in records:
                await self._deliver(Parcel(self._store, record))
        return _delivery.report(self._store, records)

    async def aclose(self) -> None:
        """Stop. What is not delivered stays in the journal; without one it is lost, and logged."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        if not self.durable:
            for record in self._store.pending():
                Parcel(self._store, record).lose()

    def _start(self) -> None:
        if self._task is None and not self._closed:
            self._task = asyncio.get_running_loop().create_task(self._work())

    async def _work(self) -> None:
        pause = _delivery.FIRST_PAUSE_SECONDS
        while True:
            self._posted.clear()
            if (await self.deliver()).pending:
                await asyncio.sleep(pause)
                pause = min(pause * 2, _delivery.PAUSE_SECONDS_MAX)
            else:
                pause = _delivery.FIRST_PAUSE_SECONDS
                await self._posted.wait()

    async def _deliver(self, parcel: Parcel) -> None:
        while (request := parcel.next()) is not None:
            try:
                if isinstance(request, GetReservationRequest):
                    found = await self._calls.call(self._calls.ledger.GetReservation, request, None)
                    parcel.looked_at(_answers.reservation(found))
                else:
                    await self._calls.call(self._calls.metering.Settle, request, None)
                    parcel.answered()
            except MeterholdError as failure:
                if not parcel.failed(failure):
                    return
