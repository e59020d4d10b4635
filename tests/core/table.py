"""The language of the table tests: one row per operation with its outcome, then what must stand.

    grant   gift 100 expires=10m priority=10   | granted 100
    reserve job 60 ttl=5m                      | held 60 until=5m
    at      6m
    settle  job 70                             | charged 70 overage=70 late
    balance available=30 held=0 spent=70
    lots    1:30
    ledger  GRANT+100 CAPTURE-70

Left of the bar stand an operation, its words and its `name=value` fields; right of it the outcome.
Amounts are micros. Times (`at`, `expires`, `until`, `end_time`) count from the start of the table,
`ttl` is a span; both are written like `1h30m`. `#` begins a comment.

Rows that operate:
    grant KEY AMOUNT            expires= effective= priority= category= legacy=KEY,KEY reason= cash=
                                source=
    revoke KEY [AMOUNT]         ppm= id= tombstone=yes source=NAME:VALUE of=nobody
    reinstate KEY               id= source=NAME:VALUE of=nobody
    reserve ID AMOUNT           ttl= min= floor= on_expiry=
    settle ID AMOUNT            overage= usage=
    capture ID CAPTURE AMOUNT   overage= usage=
    release ID
    extend ID                   ttl= add= on_expiry= id=
    debit AMOUNT                overage= usage= id=
    debit_once KEY AMOUNT       overage= usage=
    refund KEY SEQ [AMOUNT]     grace= reason=; without AMOUNT, all that is left
    expire
    configure                   limit= holds=yes|no frozen=yes|no allowance= priority=
    defaults                    signup= lifetime= allowance=
        an allowance is written AMOUNT:PERIOD, AMOUNT:PERIOD:ANCHOR or off
        each with labels= and metadata= where the operation has them
    at TIME                     move the clock
    account NAME                unit= namespace=; whose account all further rows are about
    credit AMOUNT [holds]       set the credit limit, and whether holds may use it

Outcomes. What is left out is 0, or did not happen:
    held AMOUNT                 replayed
    charged AMOUNT              from_hold= overage= shortfall= released= late replayed
    released | unchanged STATE
    holds AMOUNT                replayed
    debited AMOUNT              replayed
    granted AMOUNT              repaid= taken= (by earlier revocations) replayed
    pending                     replayed
    revoked AMOUNT              total= waiting
    reinstated AMOUNT           total= waiting
    elsewhere ACCOUNT
    expired                     lots= released= charged= refilled= landed=
    refunded AMOUNT             total= replayed
    configured                  limit= holds= frozen= refill=
    defaulted
    refused REASON
    done                        anything but a refusal; late replayed
Where given, these are compared as well: until= on_expiry= entry= (its seq), the details of a
refusal (amounts without `_micros`, texts without spaces), and any number of the balance that the
outcome carries.

Rows that look; those marked * must be complete:
    balance                     available= held= spent= granted= remaining= expired= refunded=
                                revoked= debt= limit= pending= seq=
    lots *                      SEQ:AVAILABLE or SEQ:AVAILABLE/HELD of each live lot, in spend
                                order, or `none`
    ledger *                    KIND+AMOUNT or KIND-AMOUNT of each entry
    entry SEQ KIND±AMOUNT       parts=SEQ:AMOUNT,… reservation= key= related= at=
    reservation ID STATE        reserved= open= captured= from_hold= released= expiry_charged=
                                on_credit= until= end= parts=, and `late` *
    nothing NAME                there is no such account

A word that is not in this list fails the table.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final, assert_never

from meterhold_server.core.model import (
    AccountKey,
    AllowancePeriod,
    AllowanceTerms,
    Balance,
    LotCategory,
    OnExpiry,
    Overage,
    Part,
    Rules,
    account_id_of,
)
from meterhold_server.core.operations import (
    Configure,
    ConfigureDefaults,
    Debit,
    DebitOnce,
    Expire,
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
from meterhold_server.core.outcomes import (
    Chained,
    Configured,
    Debited,
    DefaultsConfigured,
    Elsewhere,
    Expired,
    Extended,
    Granted,
    Outcome,
    Rebuilt,
    Refunded,
    Reinstated,
    Rejected,
    Released,
    Reserved,
    Revoked,
    Settled,
)

from .book import ALICE, START, Book

_UNITS: Final = {
    "us": timedelta(microseconds=1),
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
}


_FLAGS: Final = {"late": "late", "replayed": "replayed", "waiting": "tombstone"}


class TableError(Exception):
    """The table itself is wrong: it says something that the language does not have."""


def check(table: str, rules: Rules | None = None) -> Book:
    """Run every row of `table`. Answers the book, for what a table cannot say."""
    run = _Run(Book(rules=rules))
    for number, line in enumerate(table.splitlines(), start=1):
        text = line.partition("#")[0].strip()
        if text:
            run.row(number, text)
    return run.book


class _Words:
    """One side of a row: words in order and `name=value` fields. All have to be used up."""

    def __init__(self, text: str) -> None:
        words = text.split()
        self.plain = [word for word in words if "=" not in word]
        self.named = dict(word.split("=", 1) for word in words if "=" in word)
        if len(self.plain) + len(self.named) != len(words):
            raise TableError(f"a field is given twice: {text}")

    def word(self) -> str:
        if not self.plain:
            raise TableError("a word is missing")
        return self.plain.pop(0)

    def amount(self) -> int:
        return _amount(self.word())

    def flag(self, word: str) -> bool:
        if word in self.plain:
            self.plain.remove(word)
            return True
        return False

    def field(self, name: str, default: str = "") -> str:
        return self.named.pop(name, default)

    def amount_field(self, name: str, default: int = 0) -> int:
        return _amount(self.field(name, str(default)))

    def end(self) -> None:
        if self.plain or self.named:
            raise TableError(f"unknown words: {[*self.plain, *self.named]}")


class _Run:
    """A table in progress."""

    def __init__(self, book: Book) -> None:
        self.book = book
        self.key = ALICE
        self.looks: dict[str, Callable[[_Words], None]] = {
            "at": self.at,
            "account": self.account,
            "credit": self.credit,
            "balance": self.balance,
            "lots": self.lots,
            "ledger": self.ledger,
            "entry": self.entry,
            "reservation": self.reservation,
            "nothing": self.nothing,
        }

    def row(self, number: int, text: str) -> None:
        try:
            left, bar, right = text.partition("|")
            words = _Words(left)
            verb = words.word()
            if bar:
                self.operate(_operation(verb, words, self.key), _Words(right))
            elif verb in self.looks:
                self.looks[verb](words)
                words.end()
            else:
                raise TableError(f"unknown row, or no outcome: {verb}")
        except (AssertionError, TableError) as error:
            error.add_note(f"in row {number}: {text}")
            raise

    def operate(self, operation: Operation, expected: _Words) -> None:
        outcome = self.book.do(operation)
        word, always, where_given = _shown(outcome)
        for name in expected.named:
            if name not in always and name not in where_given:
                raise TableError(f"{word!r} has no {name!r}; it has {[*always, *where_given]}")
        said = expected.word()
        if said == "done":
            word, always = ("done" if not isinstance(outcome, Rejected) else word), {}
        flags = set(_FLAGS) & set(expected.plain)
        if words := [word for word in expected.plain if word not in flags]:
            said = " ".join([said, *words])
        claimed = {
            **{name: expected.named.get(name, "0") for name in always},
            **{name: "yes" if name in flags else "no" for name in _FLAGS},
            **{name: value for name, value in expected.named.items() if name in where_given},
        }
        flagged = {
            name: "yes" if getattr(outcome, attribute, False) else "no"
            for name, attribute in _FLAGS.items()
        }
        found = {**always, **flagged, **where_given}
        _same(said, claimed, word, {name: found[name] for name in claimed})

    def at(self, words: _Words) -> None:
        now = START + _span(words.word())
        if now < self.book.now:
            raise TableError("time only moves forward")
        self.book.now = now

    def account(self, words: _Words) -> None:
        name = words.word()
        self.key = AccountKey(
            words.field("namespace", "live"), name, words.field("unit", "credits")
        )

    def credit(self, words: _Words) -> None:
        self.book.allow_credit(words.amount(), holds=words.flag("holds"), key=self.key)

    def balance(self, words: _Words) -> None:
        _expect(words, _balance(self.book.account(self.key).balance()))

    def lots(self, words: _Words) -> None:
        live = [lot for lot in self.book.account(self.key).lots if lot.live]
        found = [
            f"{lot.seq}:{lot.available_micros}" + (f"/{lot.held_micros}" if lot.held_micros else "")
            for lot in live
        ]
        _same_list(words, found)

    def ledger(self, words: _Words) -> None:
        entries = self.book.ledger(self.key)
        _same_list(words, [f"{entry.kind}{entry.amount_micros:+}" for entry in entries])

    def entry(self, words: _Words) -> None:
        entry = self.book.ledger(self.key)[words.amount() - 1]
        _same(words.word(), {}, f"{entry.kind}{entry.amount_micros:+}", {})
        _expect(
            words,
            {
                "parts": _parts(entry.parts),
                "reservation": entry.reservation_id,
                "key": entry.key,
                "related": str(entry.related_seq),
                "at": _time(entry.create_time),
            },
        )

    def reservation(self, words: _Words) -> None:
        reservation = self.book.account(self.key).reservations[words.word()]
        late = {"late": "yes" if words.flag("late") else "no"}
        _same(words.word(), late, reservation.state, {"late": "yes" if reservation.late else "no"})
        _expect(
            words,
            {
                "reserved": str(reservation.reserved_micros),
                "open": str(reservation.open_micros),
                "captured": str(reservation.captured_micros),
                "from_hold": str(reservation.from_hold_micros),
                "released": str(reservation.released_micros),
                "expiry_charged": str(reservation.expiry_charged_micros),
                "on_credit": str(reservation.on_credit_micros),
                "on_expiry": reservation.on_expiry,
                "until": _time(reservation.expire_time),
                "end": _time(reservation.end_time) if reservation.end_time else "",
                "parts": _parts(reservation.parts),
            },
        )

    def nothing(self, words: _Words) -> None:
        key = AccountKey("live", words.word(), "credits")
        assert account_id_of(key) not in self.book.state.accounts, "the account exists"


def _operation(verb: str, words: _Words, account: AccountKey) -> Operation:
    if verb not in _OPERATIONS:
        raise TableError(f"unknown operation: {verb}")
    operation = _OPERATIONS[verb](words, account)
    words.end()
    return operation


def _grant(words: _Words, account: AccountKey) -> GrantOnce:
    legacy = words.field("legacy")
    expires, effective = words.field("expires"), words.field("effective")
    return GrantOnce(
        account,
        words.word(),
        words.amount(),
        legacy_keys=tuple(legacy.split(",")) if legacy else (),
        reason=words.field("reason"),
        category=LotCategory(words.field("category", "paid").upper()),
        priority=words.amount_field("priority", 50),
        expire_time=START + _span(expires) if expires else None,
        effective_time=START + _span(effective) if effective else None,
        cash=_mapping(words.field("cash")),
        source=_mapping(words.field("source")),
        labels=_mapping(words.field("labels")),
        metadata=words.field("metadata") or None,
    )


def _reserve(words: _Words, account: AccountKey) -> Reserve:
    return Reserve(
        account,
        words.word(),
        words.amount(),
        ttl=_span_field(words, "ttl"),
        min_amount_micros=words.amount_field("min"),
        min_available_micros=words.amount_field("floor"),
        on_expiry=OnExpiry(words.field("on_expiry", "release").upper()),
        labels=_mapping(words.field("labels")),
        metadata=words.field("metadata") or None,
    )


def _settle(words: _Words, account: AccountKey) -> Settle:
    return Settle(
        account,
        words.word(),
        words.amount(),
        overage=Overage(words.field("overage", "cap").upper()),
        **_attribution(words),
    )


def _capture(words: _Words, account: AccountKey) -> Settle:
    reservation_id, capture_id = words.word(), words.word()
    return Settle(
        account,
        reservation_id,
        words.amount(),
        keep_open=True,
        capture_id=capture_id,
        overage=Overage(words.field("overage", "cap").upper()),
        **_attribution(words),
    )


def _refund(words: _Words, account: AccountKey) -> RefundCharge:
    key, seq = words.word(), words.amount()
    return RefundCharge(
        account,
        key,
        seq,
        words.amount() if words.plain else 0,
        expired_lot_grace=_span_field(words, "grace"),
        reason=words.field("reason"),
    )


def _configure(words: _Words, account: AccountKey) -> Configure:
    limit = words.field("limit")
    return Configure(
        account,
        credit_limit_micros=_amount(limit) if limit else None,
        holds_use_credit=_yes_or_no(words.field("holds")),
        frozen=_yes_or_no(words.field("frozen")),
        allowance=_allowance(words),
    )


def _defaults(words: _Words, account: AccountKey) -> ConfigureDefaults:
    signup = words.field("signup")
    return ConfigureDefaults(
        account,
        signup_micros=_amount(signup) if signup else None,
        signup_lifetime=_span_field(words, "lifetime"),
        allowance=_allowance(words),
    )


def _allowance(words: _Words) -> AllowanceTerms | None:
    text, priority = words.field("allowance"), words.field("priority")
    if not text:
        return None
    if text == "off":
        return AllowanceTerms(0, AllowancePeriod.OFF)
    amount, period, *anchor = text.split(":")
    return AllowanceTerms(
        _amount(amount),
        AllowancePeriod(period.upper()),
        START + _span(anchor[0]) if anchor else None,
        _amount(priority) if priority else None,
    )


def _revoke(words: _Words, account: AccountKey) -> RevokeGrant:
    key = words.word()
    amount = words.amount() if words.plain else 0
    ppm = words.amount_field("ppm", 0 if amount else 1_000_000)
    return RevokeGrant(
        **_grant_change(key, words, account),
        fraction_ppm=ppm,
        amount_micros=amount,
        allow_tombstone=bool(_yes_or_no(words.field("tombstone"))),
    )


def _reinstate(words: _Words, account: AccountKey) -> ReinstateGrant:
    return ReinstateGrant(**_grant_change(words.word(), words, account))


def _grant_change(key: str, words: _Words, account: AccountKey) -> dict[str, Any]:
    of_nobody = words.field("of") == "nobody"
    return {
        "account": nobody(account.namespace) if of_nobody else account,
        "grant_key": key,
        "account_named": not of_nobody,
        "revocation_id": words.field("id"),
        "expected_source": _mapping(words.field("source")),
        "reason": words.field("reason"),
    }


def _yes_or_no(text: str) -> bool | None:
    try:
        return {"": None, "yes": True, "no": False}[text]
    except KeyError:
        raise TableError(f"neither yes nor no: {text}") from None


def _release(words: _Words, account: AccountKey) -> Release:
    return Release(account, words.word())


def _extend(words: _Words, account: AccountKey) -> Extend:
    on_expiry = words.field("on_expiry").upper()
    return Extend(
        account,
        words.word(),
        ttl=_span_field(words, "ttl"),
        add_amount_micros=words.amount_field("add"),
        on_expiry=OnExpiry(on_expiry) if on_expiry else None,
        extend_id=words.field("id"),
    )


def _debit(words: _Words, account: AccountKey) -> Debit:
    return Debit(
        account,
        words.amount(),
        overage=Overage(words.field("overage", "reject").upper()),
        request_id=words.field("id"),
        **_attribution(words),
    )


def _debit_once(words: _Words, account: AccountKey) -> DebitOnce:
    return DebitOnce(
        account,
        words.word(),
        words.amount(),
        overage=Overage(words.field("overage", "reject").upper()),
        **_attribution(words),
    )


def _expire(_words: _Words, account: AccountKey) -> Expire:
    return Expire(account)


_OPERATIONS: Final[Mapping[str, Callable[[_Words, AccountKey], Operation]]] = {
    "grant": _grant,
    "reserve": _reserve,
    "settle": _settle,
    "capture": _capture,
    "release": _release,
    "extend": _extend,
    "debit": _debit,
    "debit_once": _debit_once,
    "expire": _expire,
    "configure": _configure,
    "refund": _refund,
    "revoke": _revoke,
    "reinstate": _reinstate,
    "defaults": _defaults,
}


def _attribution(words: _Words) -> dict[str, Any]:
    return {
        "usage": _mapping(words.field("usage")),
        "labels": _mapping(words.field("labels")),
        "metadata": words.field("metadata") or None,
    }


_Shown = tuple[str, dict[str, str], dict[str, str]]


def _shown(outcome: Outcome) -> _Shown:
    """An outcome in the table's words, what is always compared, and what is where given."""
    match outcome:
        case Rejected():
            return f"refused {outcome.reason}", {}, _details(outcome.details)
        case Released(_, changed, reservation):
            word = "released" if changed else f"unchanged {reservation.state}"
            return word, {}, _balance(outcome.balance)
        case Expired():
            counts = {
                "lots": str(outcome.lots_expired),
                "released": str(outcome.holds_released),
                "charged": str(outcome.holds_charged),
                "refilled": str(outcome.allowances_refilled),
                "landed": str(outcome.grants_landed),
            }
            return "expired", counts, _balance(outcome.balance)
        case Configured():
            always = {
                "limit": str(outcome.balance.credit_limit_micros),
                "holds": "yes" if outcome.holds_use_credit else "no",
                "frozen": "yes" if outcome.frozen else "no",
                "refill": _refill(outcome),
            }
            return "configured", {}, _balance(outcome.balance) | always
        case Elsewhere():
            return f"elsewhere {outcome.account.account}", {}, {}
        case DefaultsConfigured():
            return "defaulted", {}, {}
        case Revoked() | Reinstated():
            word, where_given = _shown_of_grant(outcome)
            return word, {}, _balance(outcome.balance) | where_given
        case Rebuilt():
            return "rebuilt", {}, _balance(outcome.balance)
        case Chained():
            raise AssertionError("the table has no chains")
        case Reserved() | Settled() | Extended() | Debited() | Granted() | Refunded():
            word, always, where_given = _shown_in_numbers(outcome)
            return word, always, _balance(outcome.balance) | where_given
        case _:
            assert_never(outcome)


def _refill(outcome: Configured) -> str:
    allowance = outcome.allowance
    return _time(allowance.refill_time) if allowance and allowance.refill_time else "never"


def _shown_of_grant(outcome: Revoked | Reinstated) -> tuple[str, dict[str, str]]:
    where_given = {
        "total": str(outcome.grant_revoked_micros),
        "entry": str(outcome.entry.seq if outcome.entry else 0),
    }
    if isinstance(outcome, Revoked):
        return f"revoked {outcome.revoked_micros}", where_given
    return f"reinstated {outcome.reinstated_micros}", where_given


def _shown_in_numbers(
    outcome: Reserved | Settled | Extended | Debited | Granted | Refunded,
) -> _Shown:
    match outcome:
        case Refunded():
            where_given = {
                "entry": str(outcome.entry.seq),
                "total": str(outcome.charge_refunded_micros),
            }
            return f"refunded {outcome.refunded_micros}", {}, where_given
        case Reserved():
            return f"held {outcome.held_micros}", {}, {"until": _time(outcome.expire_time)}
        case Settled():
            always = {
                "from_hold": str(outcome.from_hold_micros),
                "overage": str(outcome.overage_micros),
                "shortfall": str(outcome.shortfall_micros),
                "released": str(outcome.released_micros),
            }
            return f"charged {outcome.charged_micros}", always, {"entry": str(outcome.entry_seq)}
        case Extended():
            where_given = {"until": _time(outcome.expire_time), "on_expiry": outcome.on_expiry}
            return f"holds {outcome.held_micros}", {}, where_given
        case Debited():
            where_given = {"entry": str(outcome.entry.seq)}
            return f"debited {-outcome.entry.amount_micros}", {}, where_given
        case Granted():
            always = {
                "repaid": str(outcome.debt_repaid_micros),
                "taken": str(outcome.revoked_micros),
            }
            if outcome.entry is None:
                return "pending", always, {}
            where_given = {"entry": str(outcome.entry.seq)}
            return f"granted {outcome.entry.amount_micros}", always, where_given
        case _:
            assert_never(outcome)


def _details(details: Mapping[str, Any]) -> dict[str, str]:
    return {
        name.removesuffix("_micros"): (
            _time(value) if isinstance(value, datetime) else str(value).replace(" ", "")
        )
        for name, value in details.items()
    }


def _balance(balance: Balance) -> dict[str, str]:
    return {
        "available": str(balance.available_micros),
        "held": str(balance.held_micros),
        "spent": str(balance.spent_micros),
        "granted": str(balance.granted_micros),
        "remaining": str(balance.remaining_micros),
        "expired": str(balance.expired_micros),
        "refunded": str(balance.refunded_micros),
        "revoked": str(balance.revoked_micros),
        "pending": str(balance.pending_micros),
        "debt": str(balance.debt_micros),
        "limit": str(balance.credit_limit_micros),
        "seq": str(balance.seq),
    }


def _expect(words: _Words, found: Mapping[str, str]) -> None:
    """Compare the fields that the row names."""
    claimed, words.named = words.named, {}
    for name in claimed:
        if name not in found:
            raise TableError(f"unknown field: {name}")
    _same("", claimed, "", {name: found[name] for name in claimed})


def _same(said: str, claimed: Mapping[str, str], word: str, found: Mapping[str, str]) -> None:
    expected = " ".join([said, *(f"{name}={value}" for name, value in claimed.items())])
    actual = " ".join([word, *(f"{name}={value}" for name, value in found.items())])
    assert actual == expected, f"\nexpected {expected}\nbut was  {actual}"


def _same_list(words: _Words, found: list[str]) -> None:
    expected, words.plain = words.plain, []
    if expected == ["none"]:
        expected = []
    assert found == expected, f"expected {' '.join(expected)}, but was {' '.join(found)}"


def _parts(parts: list[Part]) -> str:
    return ",".join(f"{lot_seq}:{micros}" for lot_seq, micros in parts)


def _mapping(text: str) -> dict[str, Any] | None:
    """A map of one pair, written `name:value`."""
    if not text:
        return None
    name, colon, value = text.partition(":")
    if not colon:
        raise TableError(f"not a map: {text}")
    return {name: value}


def _amount(text: str) -> int:
    if not re.fullmatch(r"\d[\d_]*", text):
        raise TableError(f"not an amount: {text}")
    return int(text)


def _span_field(words: _Words, name: str) -> timedelta | None:
    text = words.field(name)
    return _span(text) if text else None


def _span(text: str) -> timedelta:
    if not re.fullmatch(r"(\d+(us|s|m|h|d))+", text):
        raise TableError(f"not a time: {text}")
    parts = re.findall(r"(\d+)(us|s|m|h|d)", text)
    return sum((int(number) * _UNITS[unit] for number, unit in parts), timedelta())


def _time(at: datetime) -> str:
    """A time as the tables write it: from their start, in the largest units."""
    left, text = at - START, ""
    for unit, span in sorted(_UNITS.items(), key=lambda item: item[1], reverse=True):
        number, left = divmod(left, span)
        if number:
            text += f"{number}{unit}"
    return text or "0s"
