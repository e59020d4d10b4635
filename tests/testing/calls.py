"""Random calls of the client, from pools so small that replays, conflicts and expiries abound."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import meterhold

_MINUTE: Final = timedelta(minutes=1)
_MONTH: Final = timedelta(days=30)
_TTLS: Final = (None, _MINUTE, _MINUTE, 10 * _MINUTE, 48 * 60 * _MINUTE)
_PAUSES: Final = (timedelta(seconds=59), _MINUTE, _MINUTE, 10 * _MINUTE, 25 * 60 * _MINUTE)


@dataclass(frozen=True)
class Asked:
    """A method of the client and its arguments."""

    method: str
    arguments: dict[str, Any]


class Caller:
    """Makes up calls about accounts that no other caller knows."""

    def __init__(self, choose: random.Random, name: str, now: datetime) -> None:
        self._choose = choose
        self._name = name
        self._began = now
        self._past: list[Asked] = []
        self._kinds: dict[Callable[[], Asked], int] = {
            self._reserve: 7,
            self._settle: 4,
            self._capture: 4,
            self._release: 1,
            self._extend: 4,
            self._debit: 2,
            self._debit_once: 2,
            self._grant_once: 6,
            self._balance: 2,
            self._get_reservation: 2,
            self._get_entry: 2,
            self._list_reservations: 2,
            self._list_entries: 2,
            self._list_lots: 2,
            self._refund_charge: 4,
            self._configure_account: 2,
            self._get_account: 1,
            self._list_accounts: 1,
            self._revoke_grant: 4,
            self._reinstate_grant: 2,
            self._configure_defaults: 1,
            self._get_defaults: 1,
            self._get_stats: 1,
            self._spend_report: 2,
            self._verify_balance: 1,
            self._rebuild_balance: 1,
            self._wrong: 1,
        }

    def pause(self) -> timedelta | None:
        """How much time passes before the next call, if any does."""
        return self._choose.choice(_PAUSES) if self._choose.random() < 0.08 else None

    def call(self) -> Asked:
        """What to ask next: first for credits, then for anything, sometimes for the same again."""
        if self._past and self._choose.random() < 0.15:
            return self._choose.choice(self._past)
        (kind,) = self._choose.choices(list(self._kinds), list(self._kinds.values()))
        self._past.append(kind() if self._past else self._grant_once())
        return self._past[-1]

    def _asked(self, method: str, **arguments: Any) -> Asked:
        account = self._name + self._one_of(*["-alice"] * 7, "-bob")
        return Asked(method, {"account": account, **arguments})

    def _one_of(self, *values: Any) -> Any:
        return self._choose.choice(values)

    def _asked_of_hold(self, method: str, **arguments: Any) -> Asked:
        """About a reservation that was asked for, most of the time."""
        names = ("account", "unit", "reservation_id")
        holds = [past.arguments for past in self._past if past.method == "reserve"]
        anything = self._asked(method, reservation_id="job", **arguments)
        if not holds or self._choose.random() < 0.1:
            return anything
        hold = self._choose.choice(holds)
        return Asked(method, anything.arguments | {name: hold[name] for name in names})

    def _key(self) -> str:
        return f"{self._name}-{self._one_of(*range(8))}"

    def _labels(self) -> dict[str, str] | None:
        labels: dict[str, str] | None = self._one_of(None, None, {"run": "r1", "node": "n-7"})
        return labels

    def _usage(self) -> meterhold.Usage | None:
        usage: meterhold.Usage | None = self._one_of(
            None,
            meterhold.Usage(model="large", provider="acme", input_tokens=7),
            meterhold.Usage(model="small"),
        )
        return usage

    def _reserve(self) -> Asked:
        return self._asked(
            "reserve",
            amount_micros=self._one_of(1, 10, 20, 30, 50, 50, 200),
            reservation_id=self._one_of("job", "run", "eat", "fly", "saw"),
            unit=self._one_of(*[""] * 12, "credits", "tokens"),
            ttl=self._one_of(*_TTLS),
            min_amount_micros=self._one_of(0, 0, 1),
            min_available_micros=self._one_of(0, 0, 20),
            on_expiry=self._one_of(None, *_sendable(meterhold.OnExpiry)),
            labels=self._labels(),
            metadata=self._one_of(None, {"try": 1, "deep": {"list": [1.5, "a", None, True]}}),
        )

    def _settle(self) -> Asked:
        return self._asked_of_hold(
            "settle",
            amount_micros=self._one_of(0, 5, 10, 20, 30, 150),
            overage=self._one_of(None, *meterhold.Overage),
            labels=self._labels(),
            usage=self._usage(),
        )

    def _capture(self) -> Asked:
        asked = self._settle()
        capture = {"keep_open": True, "capture_id": self._one_of("a", "b", "c")}
        return Asked("settle", asked.arguments | capture)

    def _release(self) -> Asked:
        return self._asked_of_hold("release")

    def _extend(self) -> Asked:
        return self._asked_of_hold(
            "extend",
            ttl=self._one_of(*_TTLS),
            add_amount_micros=self._one_of(0, 0, 10, 500),
            on_expiry=self._one_of(None, *_sendable(meterhold.OnExpiry)),
            extend_id=self._one_of("a", "b", "c"),
        )

    def _refund_charge(self) -> Asked:
        charge = self._one_of(
            {"entry_seq": self._one_of(*range(1, 9))},
            {"reservation_id": self._one_of("job", "run", "eat"), "capture_id": ""},
            {"reservation_id": self._one_of("job", "run", "eat"), "capture_id": "a"},
        )
        return self._asked(
            "refund_charge",
            amount_micros=self._one_of(0, 0, 1, 5, 10),
            idempotency_key=self._key(),
            expired_lot_grace=self._one_of(None, None, 60 * _MINUTE),
            reason=self._one_of("", "it failed"),
            **charge,
        )

    def _configure_account(self) -> Asked:
        return self._asked(
            "configure_account",
            credit_limit_micros=self._one_of(None, None, 0, 25),
            holds_use_credit=self._one_of(None, True, False),
            frozen=self._one_of(None, False, False, True),
            allowance=self._one_of(None, None, meterhold.Allowance.OFF, self._allowance()),
        )

    def _allowance(self) -> meterhold.Allowance:
        return meterhold.Allowance(
            amount_micros=self._one_of(10, 25),
            period=self._one_of(*_sendable(meterhold.AllowancePeriod)[1:]),
            anchor_time=self._one_of(None, self._began - _MONTH, self._began + 5 * _MINUTE),
            priority=self._one_of(None, 0, 60),
        )

    def _configure_defaults(self) -> Asked:
        signup = meterhold.SignupGrant(
            amount_micros=self._one_of(1, 15), lifetime=self._one_of(None, 10 * _MINUTE)
        )
        terms = {
            "unit": self._one_of("", "tokens"),
            "signup_grant": self._one_of(None, signup, meterhold.SignupGrant.OFF),
            "allowance": self._one_of(None, meterhold.Allowance.OFF, self._allowance()),
        }
        return Asked("configure_defaults", terms)

    def _get_defaults(self) -> Asked:
        return Asked("get_defaults", {"unit": self._one_of("", "tokens")})

    def _get_stats(self) -> Asked:
        return Asked("get_stats", {"unit": self._one_of("", "tokens", "none")})

    def _revoke_grant(self) -> Asked:
        how_much: dict[str, Any] = self._one_of(
            {}, {"fraction_ppm": self._one_of(1, 333_333)}, {"amount_micros": self._one_of(5, 5000)}
        )
        return self._asked_of_grant(
            "revoke_grant", allow_tombstone=self._one_of(True, False), **how_much
        )

    def _reinstate_grant(self) -> Asked:
        return self._asked_of_grant("reinstate_grant")

    def _asked_of_grant(self, method: str, **arguments: Any) -> Asked:
        """About a grant by its key, which most callers know alone."""
        asked = self._asked(
            method,
            grant_key=self._key(),
            revocation_id=self._one_of("", "", "dispute"),
            expected_source=self._one_of(
                None, None, meterhold.ExpectedSource(provider="acme", test_mode=True)
            ),
            reason=self._one_of("", "it was refunded"),
            labels=self._labels(),
            **arguments,
        )
        nobody = {"account": None} if self._choose.random() < 0.7 else {}
        return Asked(method, asked.arguments | nobody)

    def _spend_report(self) -> Asked:
        groups = (*meterhold.SpendDimension, meterhold.Label("run"), meterhold.Label("none"))
        chosen = self._choose.sample(groups, self._one_of(0, 1, 2, 3))
        return self._asked(
            "spend_report", group_by=chosen, row_limit=self._one_of(0, 1, 2), **self._range()
        )

    def _range(self) -> dict[str, Any]:
        """Of times and labels, most often all of them."""
        return {
            "start_time": self._one_of(None, None, self._began + 2 * _MINUTE),
            "end_time": self._one_of(None, None, self._began + _MONTH),
            "labels": self._one_of(None, None, {"run": "r1"}),
        }

    def _verify_balance(self) -> Asked:
        return self._asked("verify_balance")

    def _rebuild_balance(self) -> Asked:
        return self._asked("rebuild_balance")

    def _get_account(self) -> Asked:
        return self._asked("get_account")

    def _list_accounts(self) -> Asked:
        prefix = self._name + self._one_of("", "-", "-a", "-bob", "-nobody")
        return Asked("list_accounts", {"account_prefix": prefix, "page_size": self._one_of(0, 1)})

    def _debit(self) -> Asked:
        return self._asked(
            "debit",
            amount_micros=self._one_of(1, 10, 10, 20, 20, 500),
            overage=self._one_of(None, None, meterhold.Overage.REJECT, meterhold.Overage.OVERDRAFT),
            request_id=self._one_of("a", "b", "c", "d", "e"),
            usage=self._usage(),
            metadata=self._one_of(None, {"why": "tool"}),
        )

    def _debit_once(self) -> Asked:
        return self._asked(
            "debit_once",
            amount_micros=self._one_of(1, 10, 10, 20, 20, 500),
            idempotency_key=self._key(),
            overage=self._one_of(None, None, meterhold.Overage.OVERDRAFT),
            labels=self._labels(),
        )

    def _grant_once(self) -> Asked:
        return self._asked(
            "grant_once",
            amount_micros=self._one_of(10, 300, 1000),
            idempotency_key=self._key(),
            legacy_keys=self._one_of((), (), (self._key(),)),
            reason=self._one_of("", "promotion"),
            category=self._one_of(None, *_sendable(meterhold.LotCategory)),
            priority=self._one_of(None, None, 0, 7),
            effective_time=self._one_of(*[None] * 6, self._began, self._began + _MONTH / 2),
            expire_time=self._one_of(None, None, self._began + _MINUTE, self._began + _MONTH),
            cash=self._one_of(None, meterhold.Cash(currency_code="EUR", minor_units=1_000)),
            source=self._one_of(
                None, meterhold.Source(provider="acme", variant_id="v", test_mode=True)
            ),
            labels=self._labels(),
        )

    def _balance(self) -> Asked:
        return self._asked("balance", include_lots=self._one_of(True, False))

    def _get_reservation(self) -> Asked:
        return self._asked_of_hold("get_reservation")

    def _get_entry(self) -> Asked:
        by_key = {self._one_of("debit_key", "grant_key", "refund_key"): self._key()}
        return self._asked("get_entry", **self._one_of({"seq": self._one_of(1, 2, 9)}, by_key))

    def _list_reservations(self) -> Asked:
        states = tuple(_sendable(meterhold.ReservationState))
        return self._asked(
            "list_reservations",
            states=self._one_of((), (self._one_of(*states),), states[:2]),
            page_size=self._one_of(0, 1, 2),
        )

    def _list_entries(self) -> Asked:
        kinds = tuple(_sendable(meterhold.EntryKind))
        return self._asked(
            "list_entries",
            kinds=self._one_of((), (), (self._one_of(*kinds),), kinds[:3]),
            oldest_first=self._one_of(True, False),
            page_size=self._one_of(0, 1, 3),
            **self._range(),
        )

    def _list_lots(self) -> Asked:
        return self._asked(
            "list_lots",
            include_spent=self._one_of(True, False),
            page_size=self._one_of(0, 1, 3),
        )

    def _wrong(self) -> Asked:
        """A request with fields that no server takes."""
        asked = self._reserve()
        wrong = self._one_of(
            {"amount_micros": 0},
            {"amount_micros": 10**15 + 1},
            {"account": "a\nb", "unit": "u" * 33},
            {"ttl": timedelta(days=8)},
            {"labels": {"": "empty"}, "min_amount_micros": -1},
        )
        return Asked("reserve", asked.arguments | wrong)


def _sendable(enum: Any) -> list[Any]:
    """The members of an enum that can be sent."""
    return [member for member in enum if member != "UNKNOWN"]
