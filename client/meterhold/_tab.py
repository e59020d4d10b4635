"""What a hold collects, and what is to be said to the server when it ends. No I/O."""

from __future__ import annotations

import logging
import threading
from collections import deque
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, TypedDict

from meterhold import _errors, _keys, _ledger_requests, _requests, _wire
from meterhold._enums import OnExpiry, ReservationState
from meterhold._errors import InsufficientCredits, Rejected
from meterhold._results import ReleaseResult
from meterhold.v1 import ledger_service_pb2, metering_service_pb2

if TYPE_CHECKING:
    from collections.abc import Mapping

    from meterhold._enums import Overage
    from meterhold._errors import MeterholdError
    from meterhold._results import Reservation, ReserveResult, SettleResult
    from meterhold._values import Usage

DEFAULT_TTL = timedelta(minutes=15)
HEARTBEAT_TIMEOUT_SECONDS_MAX = 10.0

log = logging.getLogger("meterhold")

# Where the reservation of a hold notes which block made it.
_MADE_BY = "meterhold_hold"

Ending: TypeAlias = metering_service_pb2.SettleRequest | metering_service_pb2.ReleaseRequest


class HoldOptions(TypedDict, total=False):
    """The options of `hold` and `metered`; all but those here as in `reserve` and `settle`.

    `reservation_id`: empty = a fresh one. A job that is run again with the id of its first run goes
    on with that run's hold, unless it has ended: then `ReservationSettled`, `ReservationReleased`
    or `ReservationExpired` is raised before the block runs.

    `ttl`: None = 15 minutes.

    `on_expiry`: what it costs if this process dies. CHARGE, the default: the whole hold, as the
    work may have been done and must not be free. RELEASE: nothing, until `start` or the first
    heartbeat says that the work has started.

    `heartbeat`: True, the default, extends the hold by its `ttl` whenever a third of it has
    passed, and marks the work as started. False: the block should end before the `ttl` does. One
    that does not is still charged, late, within the server's grace time.

    `on_error`: what an exception in the block does with what was collected. `settle`, the default:
    it is charged, so that a stream cut short is paid for. `release`: it is dropped.

    `overage`, `labels` and `metadata` go with the charges, `labels` and `metadata` with the
    reservation, too.
    """

    reservation_id: str
    unit: str
    ttl: timedelta | None
    min_amount_micros: int
    min_available_micros: int
    on_expiry: OnExpiry
    heartbeat: bool
    on_error: Literal["settle", "release"]
    overage: Overage | None
    labels: Mapping[str, str] | None
    metadata: Mapping[str, Any] | None
    timeout_seconds: float | None


class Terms(NamedTuple):
    """What a hold was asked for, with the defaults filled in."""

    account: str
    amount_micros: int
    reservation_id: str
    unit: str = ""
    ttl: timedelta = DEFAULT_TTL
    min_amount_micros: int = 0
    min_available_micros: int = 0
    on_expiry: OnExpiry = OnExpiry.CHARGE
    heartbeat: bool = True
    on_error: Literal["settle", "release"] = "settle"
    overage: Overage | None = None
    labels: Mapping[str, str] | None = None
    metadata: Mapping[str, Any] | None = None
    timeout_seconds: float | None = None
    own_id: str = ""


def terms(account: str, amount_micros: int, options: HoldOptions) -> Terms:
    """Fill in the defaults. Raises TypeError for an unknown option, ValueError for a bad one."""
    wanted: dict[str, Any] = {**options}
    if not wanted.get("reservation_id"):
        wanted["reservation_id"] = _keys.fresh_key()
    elif _MADE_BY in (wanted.get("metadata") or {}):
        raise ValueError(f"metadata must not have the key {_MADE_BY!r}: it is the client's own")
    else:
        wanted["own_id"] = _keys.fresh_key()
    if wanted.get("ttl") is None:
        wanted["ttl"] = DEFAULT_TTL
    if wanted.get("on_error", "settle") not in ("settle", "release"):
        raise ValueError(f"on_error must be settle or release, not {wanted['on_error']!r}")
    return Terms(account, amount_micros, **wanted)


def check_shared(options: HoldOptions) -> None:
    """Raise TypeError for options that many holds cannot share."""
    if "reservation_id" in options:
        raise TypeError("each call has a hold of its own: leave reservation_id out")


class Tab:
    """What has been collected so far. Safe to share between threads."""

    def __init__(self, terms: Terms) -> None:
        self.terms = terms
        self.started = terms.on_expiry is OnExpiry.CHARGE
        self.heartbeat_seconds = terms.ttl.total_seconds() / 3
        self.open = False
        self._begun = False
        self.ours = True
        self.collected_micros = 0
        self._charged = False
        self._captured = False
        self._usage: Usage | None = None
        self._unheard: dict[str, metering_service_pb2.SettleRequest] = {}
        self._lock = threading.Lock()

    def reserve_request(self) -> metering_service_pb2.ReserveRequest:
        terms = self.terms
        metadata = terms.metadata
        if terms.own_id:
            metadata = {**(metadata or {}), _MADE_BY: terms.own_id}
        return _requests.reserve(
            terms.account,
            terms.amount_micros,
            reservation_id=terms.reservation_id,
            unit=terms.unit,
            ttl=terms.ttl,
            min_amount_micros=terms.min_amount_micros,
            min_available_micros=terms.min_available_micros,
            on_expiry=terms.on_expiry,
            labels=terms.labels,
            metadata=metadata,
        )

    def must_be_looked_at(self, result: ReserveResult) -> bool:
        """Whether the hold may be that of another block, or have ended."""
        return bool(self.terms.own_id) and not result.created

    def look_request(self) -> ledger_service_pb2.GetReservationRequest:
        terms = self.terms
        return _ledger_requests.get_reservation(
            terms.account, reservation_id=terms.reservation_id, unit=terms.unit
        )

    def take_over(self, reservation: Reservation) -> None:
        """Go on with a hold that was made before. Raises if it has ended."""
        self.ours = is_made_by(reservation, self.terms.own_id)
        self.started = reservation.on_expiry is OnExpiry.CHARGE
        ended = _ENDED.get(reservation.state)
        if ended is not None:
            raise ended(
                f"reservation {reservation.reservation_id!r} has ended "
                f"({reservation.state}); run the job again under a new id",
                reason=f"RESERVATION_{reservation.state}",
                code="FAILED_PRECONDITION",
                applied="NO",
                call="Reserve",
                key=reservation.reservation_id,
                metadata={
                    "reservationId": reservation.reservation_id,
                    "endTime": (reservation.end_time or reservation.expire_time).isoformat(),
                },
            )

    def heartbeat_request(self) -> metering_service_pb2.ExtendRequest:
        return self.extend_request(self.terms.ttl, start=not self.started)

    def seconds_after_missed_heartbeat(self, failure: MeterholdError) -> float | None:
        """Answer in how many seconds to try again; None if it is of no use any more."""
        if not self.open:
            return None
        log.warning("cannot extend the hold %r: %s", self.terms.reservation_id, failure)
        return None if isinstance(failure, Rejected) else self.heartbeat_seconds / 3

    def extend_request(
        self, ttl: timedelta | None, add_amount_micros: int = 0, *, start: bool = False
    ) -> metering_service_pb2.ExtendRequest:
        terms = self.terms
        return _requests.extend(
            terms.account,
            reservation_id=terms.reservation_id,
            unit=terms.unit,
            ttl=ttl,
            add_amount_micros=add_amount_micros,
            on_expiry=OnExpiry.CHARGE if start else None,
            extend_id="",
        )

    def begin(self) -> None:
        """Take charges from now on. Raises RuntimeError the second time."""
        with self._lock:
            if self._begun:
                raise RuntimeError("a hold is good for one `with` block: make another")
            self.open = self._begun = True

    def charge(self, amount_micros: int, usage: Usage | None) -> None:
        amount_micros = _wire.amount("amount_micros", amount_micros)
        if amount_micros < 0:
            raise ValueError(f"amount_micros must be 0 or more, not {amount_micros}")
        with self._lock:
            self._check_open()
            self._charged = True
            self.collected_micros += amount_micros
            self._usage = usage or self._usage

    def capture_request(
        self,
        amount_micros: int,
        capture_id: str,
        usage: Usage | None,
        labels: Mapping[str, str] | None,
        metadata: Mapping[str, Any] | None,
    ) -> metering_service_pb2.SettleRequest:
        request = self._settle_request(
            amount_micros,
            keep_open=True,
            capture_id=capture_id or _keys.fresh_key(),
            labels=labels,
            usage=usage,
            metadata=metadata,
        )
        with self._lock:
            self._check_open()
            self._unheard[request.capture_id] = request
        return request

    def heard_of(self, request: metering_service_pb2.SettleRequest, *, made: bool) -> None:
        """Note that a capture was made, or refused."""
        with self._lock:
            self._unheard.pop(request.capture_id, None)
            self._captured |= made

    def end(self, *, failed: bool) -> Closing:
        """Take no more charges, and answer what the server is to be told."""
        with self._lock:
            self.open = False
            unheard: list[Ending] = list(self._unheard.values())
        keep = not (failed and self.terms.on_error == "release")
        if keep and (self._charged or self._captured or unheard):
            return Closing([*unheard, self._final_settle()])
        if not self.ours and not self._captured:
            return Closing(unheard)  # Another block made the hold, and may be at work.
        return Closing([*unheard, self.release_request()])

    def release_request(self) -> metering_service_pb2.ReleaseRequest:
        terms = self.terms
        return _requests.release(
            terms.account, reservation_id=terms.reservation_id, unit=terms.unit
        )

    def _final_settle(self) -> metering_service_pb2.SettleRequest:
        return self._settle_request(
            self.collected_micros, keep_open=False, capture_id="", usage=self._usage
        )

    def _settle_request(
        self,
        amount_micros: int,
        *,
        keep_open: bool,
        capture_id: str,
        usage: Usage | None,
        labels: Mapping[str, str] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> metering_service_pb2.SettleRequest:
        terms = self.terms
        return _requests.settle(
            terms.account,
            amount_micros,
            reservation_id=terms.reservation_id,
            unit=terms.unit,
            keep_open=keep_open,
            capture_id=capture_id,
            overage=terms.overage,
            labels=terms.labels if labels is None else labels,
            usage=usage,
            metadata=terms.metadata if metadata is None else metadata,
        )

    def _check_open(self) -> None:
        if not self.open:
            raise RuntimeError("the hold is not open: charge inside its `with` block")


def settle_of(request: Ending) -> metering_service_pb2.SettleRequest:
    """Answer the request if it is a settle, and for a release the settle of 0 that does as much."""
    if isinstance(request, metering_service_pb2.SettleRequest):
        return request
    return metering_service_pb2.SettleRequest(
        account=request.account, unit=request.unit, reservation_id=request.reservation_id
    )


def describe(request: Ending) -> str:
    """Say in words what a request is to do, for the log."""
    settle = settle_of(request)
    return (
        f"settle {settle.amount_micros} micros of reservation {settle.reservation_id!r} "
        f"of account {settle.account!r}, unit {settle.unit or 'credits'!r}"
    )


def is_made_by(reservation: Reservation, own_id: str) -> bool:
    """Whether it was the block of that id that made the reservation."""
    return (reservation.metadata or {}).get(_MADE_BY) == own_id


def _was_charged_by_expiry(result: ReleaseResult) -> bool:
    reservation = result.reservation
    return reservation.state is ReservationState.EXPIRED and reservation.expiry_charged_micros > 0


_ENDED = {
    ReservationState.SETTLED: _errors.ReservationSettled,
    ReservationState.RELEASED: _errors.ReservationReleased,
    ReservationState.EXPIRED: _errors.ReservationExpired,
}


class Closing:
    """The requests that end a hold, to be made in order, each until it is answered.

    First the captures of which nobody knows whether they were made, then the settle or release.
    What is owed for a capture that came too late goes into the settle.
    """

    def __init__(self, requests: list[Ending]) -> None:
        self.requests = deque(requests)

    @property
    def last(self) -> Ending:
        """The settle or release, which is delivered after all others."""
        return self.requests[-1]

    def answered(self, result: SettleResult | ReleaseResult | None = None) -> None:
        """Note that the first of the requests was carried out, and with which result."""
        request = self.requests.popleft()
        if isinstance(result, ReleaseResult) and _was_charged_by_expiry(result):
            # It came too late, and the expiry charged what was not used: a settle gives it back.
            self.requests.append(settle_of(request))

    def refused(self, refusal: Rejected) -> None:
        """Note that the first of the requests was refused. Raises if it was the last one."""
        if len(self.requests) == 1:
            raise refusal
        capture, final = self.requests.popleft(), self.last
        if isinstance(final, metering_service_pb2.ReleaseRequest) or isinstance(
            refusal, InsufficientCredits
        ):
            # Not covered, and that was to be refused; or too late, with a hold that is given up.
            log.error("refused: %s: %s", describe(capture), refusal)
        else:
            final.amount_micros += settle_of(capture).amount_micros
