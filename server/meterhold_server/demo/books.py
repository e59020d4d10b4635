"""What the demo saw of its calls: its own books of the money, the counts, and the latencies."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import meterhold

REPLAYED_CALLS: Final = ("Reserve", "Settle")
"""The kinds of call that a request of the trace makes."""


@dataclass
class AccountBook:
    """What the acknowledged calls moved on one account."""

    granted_micros: int = 0
    settled_micros: int = 0
    expiry_charged_micros: int = 0

    def differences(self, account: str, balance: meterhold.Balance) -> Iterator[str]:
        """Where the balance of the account says otherwise, once nothing is held any more."""
        # The late settle of a hold that its expiry charged gives the difference back as a refund.
        spent = balance.spent_micros - balance.refunded_micros
        remaining = balance.granted_micros - spent - balance.expired_micros
        checks = (
            ("granted", self.granted_micros, balance.granted_micros),
            ("spent", self.settled_micros + self.expiry_charged_micros, spent),
            ("held", 0, balance.held_micros),
            ("available", remaining, balance.available_micros),
        )
        for name, expected, actual in checks:
            if expected != actual:
                yield f"{account}: {name} {actual} micros, and by our books {expected}"


@dataclass
class CallTimes:
    """How long each call of one kind took, as its caller saw it."""

    nanoseconds: list[int] = field(default_factory=list)

    def percentile_ms(self, percent: int) -> float:
        """The nearest rank; 0 if there was no call."""
        if not self.nanoseconds:
            return 0.0
        rank = -(-len(self.nanoseconds) * percent // 100)
        return sorted(self.nanoseconds)[rank - 1] / 1e6


@dataclass
class Tally:
    """How far the replay is, and what came of the requests.

    `seconds` is how long it has been sending; `problems` are answers that none should have got.
    """

    sent: int = 0
    in_flight: int = 0
    in_flight_peak: int = 0
    refused: int = 0
    settled: int = 0
    settled_late: int = 0
    settled_short: int = 0
    crashed: int = 0
    expired_released: int = 0
    expired_charged: int = 0
    repeated_calls: int = 0
    seconds: float = 0.0
    calls: dict[str, CallTimes] = field(
        default_factory=lambda: {kind: CallTimes() for kind in REPLAYED_CALLS}
    )
    problems: list[str] = field(default_factory=list)

    @property
    def finished(self) -> int:
        return self.sent - self.in_flight

    @property
    def call_count(self) -> int:
        return sum(len(self.calls[kind].nanoseconds) for kind in REPLAYED_CALLS)

    @property
    def calls_per_second(self) -> int:
        return round(self.call_count / self.seconds) if self.seconds else 0
