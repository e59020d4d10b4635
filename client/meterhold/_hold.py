"""`hold`: the credits of one job, from before it runs until it is paid for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from meterhold import _answers, _delivery, _tab
from meterhold._enums import OnExpiry
from meterhold._errors import MeterholdError, Rejected
from meterhold.v1.metering_service_pb2 import ReleaseRequest

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime, timedelta
    from types import TracebackType

    from meterhold._calls import Calls
    from meterhold._courier import Courier
    from meterhold._heart import Beat, Heart
    from meterhold._results import ExtendResult, ReleaseResult, SettleResult
    from meterhold._tab import Closing, Ending, Terms
    from meterhold._values import Usage
    from meterhold.v1.metering_service_pb2 import ExtendRequest


class Hold:
    """The credits of one job. Made by `Client.hold`; its methods are safe to share between threads.

    `result` is the answer to the settle or release when the block has ended; None before, or if it
    could not be delivered yet.
    """

    def __init__(self, calls: Calls, heart: Heart, courier: Courier, terms: Terms) -> None:
        self._calls = calls
        self._heart = heart
        self._courier = courier
        self._tab = _tab.Tab(terms)
        self._held_micros = 0
        self._expire_time: datetime | None = None
        self._beat: Beat | None = None
        self.result: SettleResult | ReleaseResult | None = None

    @property
    def reservation_id(self) -> str:
        """The id of the hold, as given or made up."""
        return self._tab.terms.reservation_id

    @property
    def held_micros(self) -> int:
        """What is held, by the last answer of the server; at first what was reserved."""
        return self._held_micros

    @property
    def expire_time(self) -> datetime | None:
        """When the hold expires, by the last answer of the server. None before the block."""
        return self._expire_time

    @property
    def collected_micros(self) -> int:
        """What the end of the block will charge, beside the captures."""
        return self._tab.collected_micros

    def charge(self, amount_micros: int, *, usage: Usage | None = None) -> None:
        """Add to what the end of the block charges, 0 or more. Makes no call.

        `usage`, the last that is given, is stored with the charge.
        """
        self._tab.charge(amount_micros, usage)

    def capture(
        self,
        amount_micros: int,
        *,
        capture_id: str = "",
        usage: Usage | None = None,
        labels: Mapping[str, str] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> SettleResult:
        """Charge now, and keep the rest of the hold. `capture_id` empty = a fresh one.

        If it raises `Unavailable` or `OutcomeUnknown`, the capture is made, once, when the block
        ends: do not repeat it under another id. Raises what `Client.settle` does.
        """
        request = self._tab.capture_request(amount_micros, capture_id, usage, labels, metadata)
        try:
            response = self._calls.call(
                self._calls.metering.Settle, request, self._tab.terms.timeout_seconds
            )
        except Rejected:
            self._tab.heard_of(request, made=False)
            raise
        self._tab.heard_of(request, made=True)
        return _answers.settle(response)

    def extend(self, *, ttl: timedelta | None = None, add_amount_micros: int = 0) -> ExtendResult:
        """Hold longer, at least `ttl` from now, or more. Raises what `Client.extend` does."""
        request = self._tab.extend_request(ttl, add_amount_micros)
        return self._extend(request, self._tab.terms.timeout_seconds)

    def start(self) -> None:
        """Say that the work starts now: from here on a crash of this process is charged.

        With `on_expiry` CHARGE, the default, it has been said by the reservation already. Raises
        what `Client.extend` does; the work should then not begin.
        """
        if not self._tab.started:
            request = self._tab.extend_request(None, start=True)
            self._extend(request, self._tab.terms.timeout_seconds)

    def __enter__(self) -> Self:
        try:
            self._reserve()
        except Rejected:
            raise
        except BaseException:
            # It may have been made, and nobody will use it.
            self._courier.post([self._tab.release_request()], self._tab.terms.own_id)
            raise
        self._tab.begin()
        if self._tab.terms.heartbeat:
            self._beat = self._heart.add(self._keep_alive, self._tab.heartbeat_seconds)
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._beat is not None:
            self._beat.stop()
        closing = self._tab.end(failed=error is not None)
        try:
            self._close(closing)
        except MeterholdError as failure:
            post, durable = self._courier.post, self._courier.durable
            if _delivery.kept_for_later(closing, failure, post, durable=durable):
                return
            if error is None:
                raise
            error.add_note(f"meterhold could not {_tab.describe(closing.last)}: {failure!r}")
        except BaseException:
            self._courier.post(closing.requests)
            raise

    def _reserve(self) -> None:
        seconds = self._tab.terms.timeout_seconds
        request = self._tab.reserve_request()
        result = _answers.reserve(self._calls.call(self._calls.metering.Reserve, request, seconds))
        self._held_micros, self._expire_time = result.held_micros, result.expire_time
        if self._tab.must_be_looked_at(result):
            look = self._tab.look_request()
            found = self._calls.call(self._calls.ledger.GetReservation, look, seconds)
            self._tab.take_over(_answers.reservation(found))

    def _extend(self, request: ExtendRequest, timeout_seconds: float | None) -> ExtendResult:
        result = _answers.extend(
            self._calls.call(self._calls.metering.Extend, request, timeout_seconds)
        )
        self._held_micros, self._expire_time = result.held_micros, result.expire_time
        self._tab.started |= result.on_expiry is OnExpiry.CHARGE
        return result

    def _keep_alive(self) -> float | None:
        """One heartbeat. Answers in how many seconds the next is due."""
        if not self._tab.open:
            return None
        seconds = self._tab.heartbeat_seconds
        try:
            self._extend(
                self._tab.heartbeat_request(), min(seconds, _tab.HEARTBEAT_TIMEOUT_SECONDS_MAX)
            )
        except MeterholdError as failure:
            return self._tab.seconds_after_missed_heartbeat(failure)
        return seconds

    def _close(self, closing: Closing) -> None:
        while closing.requests:
            try:
                self.result = self._send(closing.requests[0])
            except Rejected as refusal:
                closing.refused(refusal)
            else:
                closing.answered(self.result)

    def _send(self, request: Ending) -> SettleResult | ReleaseResult:
        metering, seconds = self._calls.metering, self._tab.terms.timeout_seconds
        if isinstance(request, ReleaseRequest):
            return _answers.release(self._calls.call(metering.Release, request, seconds))
        return _answers.settle(self._calls.call(metering.Settle, request, seconds))
