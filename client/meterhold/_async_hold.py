"""The asynchronous twin of `_hold.py`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Self

from meterhold import _answers, _delivery, _tab
from meterhold._enums import OnExpiry
from meterhold._errors import MeterholdError, Rejected
from meterhold.v1.metering_service_pb2 import ReleaseRequest

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime, timedelta
    from types import TracebackType

    from meterhold._async_calls import AsyncCalls
    from meterhold._async_courier import AsyncCourier
    from meterhold._background import Background
    from meterhold._results import ExtendResult, ReleaseResult, SettleResult
    from meterhold._tab import Closing, Ending, Terms
    from meterhold._values import Usage
    from meterhold.v1.metering_service_pb2 import ExtendRequest


class AsyncHold:
    """The twin of `Hold` for asyncio. It may be entered by one task and left by another.

    Cancelling the task inside the block charges what had been collected, as any exception does; the
    end of the block waits for that once, and leaves it to the background if it is cancelled again.
    """

    def __init__(
        self, calls: AsyncCalls, background: Background, courier: AsyncCourier, terms: Terms
    ) -> None:
        self._calls = calls
        self._background = background
        self._courier = courier
        self._tab = _tab.Tab(terms)
        self._held_micros = 0
        self._expire_time: datetime | None = None
        self._beat: asyncio.TimerHandle | None = None
        self.result: SettleResult | ReleaseResult | None = None

    @property
    def reservation_id(self) -> str:
        """See `Hold.reservation_id`."""
        return self._tab.terms.reservation_id

    @property
    def held_micros(self) -> int:
        """See `Hold.held_micros`."""
        return self._held_micros

    @property
    def expire_time(self) -> datetime | None:
        """See `Hold.expire_time`."""
        return self._expire_time

    @property
    def collected_micros(self) -> int:
        """See `Hold.collected_micros`."""
        return self._tab.collected_micros

    def charge(self, amount_micros: int, *, usage: Usage | None = None) -> None:
        """See `Hold.charge`. Not awaited: it makes no call."""
        self._tab.charge(amount_micros, usage)

    async def capture(
        self,
        amount_micros: int,
        *,
        capture_id: str = "",
        usage: Usage | None = None,
        labels: Mapping[str, str] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> SettleResult:
        """See `Hold.capture`."""
        request = self._tab.capture_request(amount_micros, capture_id, usage, labels, metadata)
        try:
            response = await self._calls.call(
                self._calls.metering.Settle, request, self._tab.terms.timeout_seconds
            )
        except Rejected:
            self._tab.heard_of(request, made=False)
            raise
        self._tab.heard_of(request, made=True)
        return _answers.settle(response)

    async def extend(
        self, *, ttl: timedelta | None = None, add_amount_micros: int = 0
    ) -> ExtendResult:
        """See `Hold.extend`."""
        request = self._tab.extend_request(ttl, add_amount_micros)
        return await self._extend(request, self._tab.terms.timeout_seconds)

    async def start(self) -> None:
        """See `Hold.start`."""
        if not self._tab.started:
            request = self._tab.extend_request(None, start=True)
            await self._extend(request, self._tab.terms.timeout_seconds)

    async def __aenter__(self) -> Self:
        reserving = self._background.start(self._reserve())
        try:
            await asyncio.shield(reserving)
        except Rejected:
            raise
        except BaseException:
            self._background.start(self._abandon(reserving))
            raise
        self._tab.begin()
        if self._tab.terms.heartbeat:
            self._beat_in(self._tab.heartbeat_seconds)
        return self

    async def __aexit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._beat is not None:
            self._beat.cancel()
        closing = self._tab.end(failed=error is not None)
        await asyncio.shield(self._background.start(self._finish(closing, error)))

    async def _abandon(self, reserving: asyncio.Task[None]) -> None:
        """Free what may have been reserved, as nobody will use it."""
        await asyncio.wait([reserving])
        refused = not reserving.cancelled() and isinstance(reserving.exception(), Rejected)
        if not refused:
            self._courier.post([self._tab.release_request()], self._tab.terms.own_id)

    async def _finish(self, closing: Closing, error: BaseException | None) -> None:
        try:
            await self._close(closing)
        except MeterholdError as failure:
            post, durable = self._courier.post, self._courier.durable
            if _delivery.kept_for_later(closing, failure, post, durable=durable):
                return
            if error is None:
                raise
            error.add_note(f"meterhold could not {_tab.describe(closing.last)}: {failure!r}")
        except BaseException:
            self._courier.keep(closing.requests)
            raise

    async def _reserve(self) -> None:
        seconds = self._tab.terms.timeout_seconds
        request = self._tab.reserve_request()
        result = _answers.reserve(
            await self._calls.call(self._calls.metering.Reserve, request, seconds)
        )
        self._held_micros, self._expire_time = result.held_micros, result.expire_time
        if self._tab.must_be_looked_at(result):
            look = self._tab.look_request()
            found = await self._calls.call(self._calls.ledger.GetReservation, look, seconds)
            self._tab.take_over(_answers.reservation(found))

    async def _extend(self, request: ExtendRequest, timeout_seconds: float | None) -> ExtendResult:
        result = _answers.extend(
            await self._calls.call(self._calls.metering.Extend, request, timeout_seconds)
        )
        self._held_micros, self._expire_time = result.held_micros, result.expire_time
        self._tab.started |= result.on_expiry is OnExpiry.CHARGE
        return result

    def _beat_in(self, seconds: float) -> None:
        self._beat = asyncio.get_running_loop().call_later(seconds, self._beat_now)

    def _beat_now(self) -> None:
        if self._tab.open and not self._background.closed:
            self._background.start(self._keep_alive())

    async def _keep_alive(self) -> None:
        seconds = self._tab.heartbeat_seconds
        next_seconds: float | None = seconds
        try:
            await self._extend(
                self._tab.heartbeat_request(), min(seconds, _tab.HEARTBEAT_TIMEOUT_SECONDS_MAX)
            )
        except MeterholdError as failure:
            next_seconds = self._tab.seconds_after_missed_heartbeat(failure)
        if next_seconds is not None and self._tab.open:
            self._beat_in(next_seconds)

    async def _close(self, closing: Closing) -> None:
        while closing.requests:
            try:
                self.result = await self._send(closing.requests[0])
            except Rejected as refusal:
                closing.refused(refusal)
            else:
                closing.answered(self.result)

    async def _send(self, request: Ending) -> SettleResult | ReleaseResult:
        metering, seconds = self._calls.metering, self._tab.terms.timeout_seconds
        if isinstance(request, ReleaseRequest):
            return _answers.release(await self._calls.call(metering.Release, request, seconds))
        return _answers.settle(await self._calls.call(metering.Settle, request, seconds))
