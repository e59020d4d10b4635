"""What a caller may ask next: an operation of any kind, drawn at random."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, Final

from meterhold_server.core.model import (
    AllowancePeriod,
    AllowanceTerms,
    LotCategory,
    OnExpiry,
    Overage,
)
from meterhold_server.core.operations import (
    Configure,
    ConfigureDefaults,
    Debit,
    DebitOnce,
    Extend,
    GrantOnce,
    Operation,
    RefundCharge,
    ReinstateGrant,
    Release,
    Reserve,
    RevokeGrant,
    Settle,
    nobody,
)
from robustness.conservation.names import Keyed, Names

AMOUNT_MAX: Final = 800
SECONDS_MAX: Final = 3.0
"""Holds, lots and periods last no longer, so that they end within the run."""

_REVOCATION_IDS: Final = ("", "refund", "dispute", "z", "b")
_SOURCES: Final = ({"provider": "mint"}, {"provider": "store", "order_id": "7"})
_PERIODS: Final = {
    AllowancePeriod.DAILY: timedelta(days=1),
    AllowancePeriod.WEEKLY: timedelta(weeks=1),
    AllowancePeriod.MONTHLY: timedelta(days=31),
}


@dataclass
class Chances:
    """Draws operations for one caller, whose names begin with `caller`."""

    caller: str
    chance: random.Random
    _numbers: count[int] = field(default_factory=count)

    def operation(self, names: Names, elsewhere: Names) -> Operation:
        """Something for an account. `elsewhere` is where a call may be misrouted to."""
        kinds, weights = zip(*_WEIGHTS.items(), strict=True)
        (kind,) = self.chance.choices(kinds, weights)
        if kind is Chances._repeat or kind is Chances._misuse:
            return self._repeat_or_misuse(names, elsewhere, kind)
        if kind in _ON_HOLDS and not names.holds and self.chance.random() < 0.9:
            kind = Chances.reserve
        drawn: Operation = kind(self, names)
        return drawn

    def _name(self) -> str:
        return f"{self.caller}-{next(self._numbers)}"

    def _span(self, least: float = 0.2) -> timedelta:
        return timedelta(seconds=round(self.chance.uniform(least, SECONDS_MAX), 3))

    def _soon(self, least: float = 0.2) -> datetime:
        return datetime.now(UTC) + self._span(least)

    def _amount(self, most: int = AMOUNT_MAX) -> int:
        return self.chance.randint(1, most)

    def _maybe(self, chance: float, value: Any, otherwise: Any = None) -> Any:
        return value if self.chance.random() < chance else otherwise

    def _hold(self, names: Names) -> str:
        """Mostly one that may be running, at times an old one or none at all."""
        among = self._maybe(0.9, names.holds, names.old_holds)
        return self.chance.choice(among) if among else "no-such-hold"

    def _overage(self) -> Overage:
        return self.chance.choice((Overage.CAP, Overage.CAP, Overage.REJECT, Overage.OVERDRAFT))

    def reserve(self, names: Names) -> Reserve:
        amount = self._amount()
        return Reserve(
            names.key,
            self._name(),
            amount,
            self._maybe(0.8, self._span()),
            min_amount_micros=self._maybe(0.3, self._amount(amount), 0),
            min_available_micros=self._maybe(0.1, self._amount(), 0),
            on_expiry=self._maybe(0.4, OnExpiry.CHARGE, OnExpiry.RELEASE),
        )

    def settle(self, names: Names) -> Settle:
        amount = self._maybe(0.9, self._amount(), 0)
        return Settle(names.key, self._hold(names), amount, overage=self._overage())

    def capture(self, names: Names) -> Settle:
        hold, capture = self._hold(names), self._name()
        return Settle(names.key, hold, self._amount(300), True, capture, overage=self._overage())

    def release(self, names: Names) -> Release:
        return Release(names.key, self._hold(names))

    def extend(self, names: Names) -> Extend:
        return Extend(
            names.key,
            self._hold(names),
            self._maybe(0.6, self._span()),
            self._maybe(0.5, self._amount(300), 0),
            self._maybe(0.3, self.chance.choice(list(OnExpiry))),
            self._maybe(0.7, self._name(), ""),
        )

    def debit(self, names: Names) -> Debit:
        overage = self._maybe(0.2, Overage.OVERDRAFT, Overage.REJECT)
        return Debit(
            names.key, self._amount(400), overage, request_id=self._maybe(0.5, self._name(), "")
        )

    def debit_once(self, names: Names) -> DebitOnce:
        overage = self._maybe(0.2, Overage.OVERDRAFT, Overage.REJECT)
        return DebitOnce(names.key, self._name(), self._amount(400), overage)

    def grant(self, names: Names) -> GrantOnce:
        effective = self._maybe(0.2, self._soon(-1.0))
        if self.chance.random() < 0.02:
            effective = datetime.now(UTC) + timedelta(days=300)  # Pending when all is over.
        expire = self._maybe(0.5, (effective or datetime.now(UTC)) + self._span())
        if effective is None and self.chance.random() < 0.03:
            expire = datetime.now(UTC) - self._span()
        key = self._name()
        if names.foretold and self.chance.random() < 0.5:
            key = names.foretold.popleft()
        legacy = (self._name(),)
        if names.grants and self.chance.random() < 0.3:
            legacy = (self.chance.choice(names.grants),)
        return GrantOnce(
            names.key,
            key,
            self._amount(3 * AMOUNT_MAX),
            self._maybe(0.15, legacy, ()),
            reason="order",
            category=self.chance.choice(list(LotCategory)),
            priority=self.chance.choice((50, 50, 10, 90)),
            expire_time=expire,
            effective_time=effective,
            source=self.chance.choice((None, *_SOURCES)),
        )

    def refund(self, names: Names) -> RefundCharge:
        seq = self.chance.randint(1, max(1, names.newest_seq))
        if names.charges and self.chance.random() < 0.85:
            seq = self.chance.choice(names.charges)
        if self.chance.random() < 0.03:
            seq = 10**9
        return RefundCharge(
            names.key,
            self._name(),
            seq,
            self._maybe(0.6, self._amount(200), 0),
            self._maybe(0.4, self._span(1.0)),
        )

    def revoke(self, names: Names) -> RevokeGrant:
        by_fraction = self.chance.random() < 0.5
        return RevokeGrant(
            **self._grant_change(names),
            fraction_ppm=self.chance.choice((1_000_000, 333_333, 500_000)) if by_fraction else 0,
            amount_micros=0 if by_fraction else self._amount(2 * AMOUNT_MAX),
        )

    def foretell(self, names: Names) -> RevokeGrant:
        """Revoke a grant that has not come. It is made known by whoever is told of it."""
        key = self._name()
        if names.foretold and not names.hot and self.chance.random() < 0.4:
            key = self.chance.choice(names.foretold)
        named = names.hot or self.chance.random() < 0.7
        return RevokeGrant(
            names.key if named else nobody(names.key.namespace),
            key,
            named,
            self.chance.choice(_REVOCATION_IDS),
            self._maybe(0.2, {"provider": "mint"}),
            fraction_ppm=self.chance.choice((1_000_000, 300_000, 250_000)),
            allow_tombstone=self.chance.random() < 0.9,
        )

    def reinstate(self, names: Names) -> ReinstateGrant:
        change = self._grant_change(names)
        if names.foretold and not names.hot and self.chance.random() < 0.2:
            change["grant_key"] = self.chance.choice(names.foretold)
        return ReinstateGrant(**change)

    def _grant_change(self, names: Names) -> dict[str, Any]:
        named = self.chance.random() < 0.7
        return {
            "account": names.key if named else nobody(names.key.namespace),
            "account_named": named,
            "grant_key": self.chance.choice(names.grants) if names.grants else "no-such-grant",
            "revocation_id": self.chance.choice(_REVOCATION_IDS),
            "expected_source": self._maybe(0.1, self.chance.choice(_SOURCES)),
        }

    def configure(self, names: Names) -> Configure:
        match self.chance.randrange(5):
            case 0:
                limit = self.chance.choice((0, 300, 2_000))
                return Configure(names.key, credit_limit_micros=limit)
            case 1:
                return Configure(names.key, holds_use_credit=self.chance.random() < 0.5)
            case 2:
                return Configure(names.key, frozen=self.chance.random() < 0.3)
            case _:
                return Configure(names.key, frozen=False, allowance=self._allowance())

    def configure_defaults(self, names: Names) -> ConfigureDefaults:
        signup = self._maybe(0.7, self.chance.choice((0, 500, 1_000)))
        return ConfigureDefaults(
            names.key,
            signup,
            self._maybe(0.5, self._span()) if signup else None,
            self._maybe(0.6, self._allowance()),
        )

    def _allowance(self) -> AllowanceTerms:
        """One whose next boundary comes during the run, or that takes it away."""
        if self.chance.random() < 0.1:
            return AllowanceTerms(0, AllowancePeriod.OFF)
        period = self.chance.choice([*_PERIODS])
        back = self.chance.randrange(4) * _PERIODS[period]
        return AllowanceTerms(
            self._amount(),
            period,
            self._maybe(0.9, self._soon() - back),
            self._maybe(0.3, self.chance.choice((0, 50))),
        )

    def _repeat(self, done: Keyed, elsewhere: Names) -> Keyed:
        return replace(done)

    def _misuse(self, done: Keyed, elsewhere: Names) -> Keyed:
        """Use its key for something else: another amount or, where it may be, another account."""
        if isinstance(done, RevokeGrant):
            return replace(done)
        in_namespace = isinstance(done, DebitOnce | GrantOnce | RefundCharge)
        if in_namespace and self.chance.random() < 0.5:
            return replace(done, account=elsewhere.key)
        if isinstance(done, Extend):
            return replace(done, add_amount_micros=done.add_amount_micros + 1)
        return replace(done, amount_micros=done.amount_micros + 1)

    def _repeat_or_misuse(
        self, names: Names, elsewhere: Names, kind: Callable[..., Keyed]
    ) -> Operation:
        if not names.done:
            return self.grant(names)
        return kind(self, self.chance.choice(names.done), elsewhere)


_WEIGHTS: Final[dict[Callable[..., Any], float]] = {
    Chances.reserve: 20,
    Chances.settle: 12,
    Chances.capture: 9,
    Chances.release: 3,
    Chances.extend: 6,
    Chances.debit: 9,
    Chances.debit_once: 5,
    Chances.grant: 10,
    Chances.refund: 6,
    Chances.revoke: 5,
    Chances.foretell: 1,
    Chances.reinstate: 3,
    Chances.configure: 2.5,
    Chances.configure_defaults: 0.5,
    Chances._repeat: 5,
    Chances._misuse: 3,
}
_ON_HOLDS: Final = (Chances.settle, Chances.capture, Chances.release, Chances.extend)
