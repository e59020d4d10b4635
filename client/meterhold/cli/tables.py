"""Results for people: what is printed without --json."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from meterhold import (
    Account,
    Allowance,
    AllowancePeriod,
    Balance,
    Credential,
    Defaults,
    Difference,
    Entry,
    Label,
    Lot,
    Reservation,
    SpendDimension,
    SpendReport,
    Stats,
)
from meterhold.cli import times

Shown = Callable[[int], str]
"""Writes an amount, in credits or in micros."""


def printable(text: str) -> str:
    """Write out control characters: a reason or a label must not steer the terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def facts(rows: Iterable[tuple[str, str]]) -> Text:
    """One thing, a line for each of its properties that is not empty."""
    present = [(name, printable(value)) for name, value in rows if value]
    width = max(len(name) for name, _ in present)
    lines = [Text.assemble((name.ljust(width), "dim"), "  ", value) for name, value in present]
    return Text("\n").join(lines)


def listing(
    headings: Sequence[str], rows: Iterable[Sequence[str]], *, one_line: bool = False
) -> Table:
    """Many things, a row for each; `>` before a heading sets its column flush right.

    What is too wide for the terminal goes on in the next line, or is cut if a row is `one_line`.
    """
    table = Table(
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
        header_style="bold",
    )
    for heading in headings:
        right = heading.startswith(">")
        table.add_column(
            heading.removeprefix(">"),
            justify="right" if right else "left",
            overflow="ellipsis" if one_line else "fold",
            no_wrap=one_line,
        )
    for cells in rows:
        table.add_row(*(Text(printable(cell)) for cell in cells))
    return table


def balance(account: str, unit: str, found: Balance, shown: Shown) -> Text:
    """The numbers of an account, without those that most accounts do not have."""
    always = ("available", "held", "remaining", "granted", "spent")
    others = ("expired", "revoked", "refunded", "debt", "credit_limit", "pending")
    amounts = {name: getattr(found, f"{name}_micros") for name in (*always, *others)}
    lines = {name: shown(micros) for name, micros in amounts.items() if micros or name in always}
    width = max(map(len, lines.values()))
    return facts(
        [
            ("account", f"{account} ({unit or 'credits'})"),
            *((name.replace("_", " "), text.rjust(width)) for name, text in lines.items()),
            ("entries", str(found.ledger_seq).rjust(width)),
        ]
    )


def account(found: Account, shown: Shown) -> Text:
    """The numbers of an account and what it may do."""
    may = [
        ("holds use credit", "yes" if found.holds_use_credit else ""),
        ("frozen", "yes" if found.frozen else ""),
        ("allowance", _allowance(found.allowance, shown) if found.allowance else ""),
        ("renewed", times.shown(found.refill_time) if found.refill_time else ""),
        ("created", times.shown(found.create_time) if found.create_time else "no such account"),
    ]
    return Text("\n").join([balance(found.account, found.unit, found.balance, shown), facts(may)])


def defaults(found: Defaults, shown: Shown) -> Text:
    """What accounts get when they are created."""
    signup = ""
    if found.signup_grant is not None:
        lifetime = found.signup_grant.lifetime
        expires = f", expires after {times.length_text(lifetime)}" if lifetime else ""
        signup = f"{shown(found.signup_grant.amount_micros)}{expires}"
    return facts(
        [
            ("unit", found.unit or "credits"),
            ("signup grant", signup or "none"),
            ("allowance", _allowance(found.allowance, shown) if found.allowance else "none"),
        ]
    )


def _allowance(found: Allowance, shown: Shown) -> str:
    if found.period is AllowancePeriod.OFF:
        return "off"
    anchor = f", from {times.shown(found.anchor_time)}" if found.anchor_time else ""
    priority = "" if found.priority is None else f", priority {found.priority}"
    return f"{shown(found.amount_micros)} {found.period.lower()}{anchor}{priority}"


def stats(found: Stats, shown: Shown) -> Text:
    """The sums of all accounts of a unit."""
    totals = ("granted", "spent", "refunded", "expired", "revoked")
    now = ("outstanding", "held", "debt", "pending")
    lines = {name: shown(getattr(found, f"{name}_micros")) for name in (*totals, *now)}
    width = max(map(len, lines.values()))
    return facts(
        [
            ("unit", found.unit),
            ("accounts", str(found.account_count).rjust(width)),
            *((name, text.rjust(width)) for name, text in lines.items()),
            ("time", times.shown(found.read_time)),
        ]
    )


def spend(
    found: SpendReport, groups: Sequence[SpendDimension | Label], shown: Shown
) -> list[RenderableType]:
    """The groups, their total, and how many there are more."""
    names = [by.key if isinstance(by, Label) else by.lower() for by in groups]
    total = ("total", *[""] * (len(names) - 1)) if names else ()
    rows = [(row.values, row) for row in found.rows] if names else []
    parts: list[RenderableType] = [
        listing(
            (*names, ">charged", ">refunded", ">charges"),
            (
                (
                    *values,
                    shown(row.charged_micros),
                    shown(row.refunded_micros),
                    str(row.charge_count),
                )
                for values, row in [*rows, (total, found.total)]
            ),
        )
    ]
    more = found.group_count - len(rows)
    if names and more > 0:
        parts.append(f"{more} more; --limit shows them")
    return parts


def differences(found: Iterable[Difference], shown: Shown) -> Table:
    return listing(
        ("what", ">stored", ">expected", ""),
        (
            (one.what, shown(one.stored_micros), shown(one.expected_micros), one.description)
            for one in found
        ),
    )


def accounts(found: Iterable[Account], shown: Shown) -> Table:
    return listing(
        ("account", "unit", ">available", ">held", ">limit", "frozen"),
        (
            (
                one.account,
                one.unit,
                shown(one.balance.available_micros),
                shown(one.balance.held_micros),
                shown(one.balance.credit_limit_micros),
                "yes" if one.frozen else "",
            )
            for one in found
        ),
    )


def entries(found: Iterable[Entry], shown: Shown, *, one_line: bool = False) -> Table:
    return listing(
        (">seq", "time", "kind", ">amount", ">remaining", "reservation, key"),
        (
            (
                str(one.seq),
                times.shown(one.create_time),
                one.kind,
                shown(one.amount_micros),
                shown(one.remaining_after_micros),
                ", ".join(filter(None, (one.reservation_id, one.key))),
            )
            for one in found
        ),
        one_line=one_line,
    )


def entry(found: Entry, shown: Shown) -> Text:
    return facts(
        [
            ("seq", str(found.seq)),
            ("kind", found.kind),
            ("amount", shown(found.amount_micros)),
            ("remaining", shown(found.remaining_after_micros)),
            ("time", times.shown(found.create_time)),
            ("reservation", found.reservation_id),
            ("key", found.key),
            ("related entry", str(found.related_seq or "")),
            ("reason", found.reason),
            ("labels", _pairs(dict(sorted(found.labels.items())))),
            ("usage", _pairs(asdict(found.usage)) if found.usage else ""),
            ("metadata", _json(found.metadata)),
        ]
    )


def reservations(found: Iterable[Reservation], shown: Shown) -> Table:
    return listing(
        ("reservation", "state", ">held", ">captured", "expires", "then"),
        (
            (
                one.reservation_id,
                one.state,
                shown(one.held_micros),
                shown(one.captured_micros),
                times.shown(one.expire_time),
                one.on_expiry,
            )
            for one in found
        ),
    )


def reservation(found: Reservation, shown: Shown) -> Text:
    at_expiry = found.expiry_charged_micros
    return facts(
        [
            ("reservation", found.reservation_id),
            ("state", f"{found.state} late" if found.late else found.state),
            ("held", shown(found.held_micros)),
            ("reserved", shown(found.reserved_micros)),
            ("captured", shown(found.captured_micros)),
            ("released", shown(found.released_micros)),
            ("charged at expiry", shown(at_expiry) if at_expiry else ""),
            ("created", times.shown(found.create_time)),
            ("expires", f"{times.shown(found.expire_time)}, then {found.on_expiry}"),
            ("ended", times.shown(found.end_time) if found.end_time else ""),
            ("labels", _pairs(dict(sorted(found.labels.items())))),
            ("metadata", _json(found.metadata)),
        ]
    )


def lots(found: Iterable[Lot], shown: Shown) -> Table:
    """Lots, and with a column of their own grants that are pending, which have no number yet."""
    every = list(found)
    pending = any(one.effective_time for one in every)
    headings = (">seq", ">granted", ">available", ">held", "category", ">priority", "expires")
    return listing(
        (*headings, *(["effective"] if pending else []), "key"),
        (
            (
                str(one.seq or ""),
                shown(one.granted_micros),
                shown(one.available_micros),
                shown(one.held_micros),
                one.category,
                str(one.priority),
                times.shown(one.expire_time) if one.expire_time else "never",
                *([_effective(one)] if pending else []),
                one.idempotency_key,
            )
            for one in every
        ),
    )


def _effective(one: Lot) -> str:
    return times.shown(one.effective_time) if one.effective_time else ""


def credentials(found: Iterable[Credential], _: Shown) -> Table:
    return listing(
        ("id", "name", "proof", "scopes", ">per second", "created", "used", "revoked"),
        (
            (
                one.credential_id,
                one.name,
                _proof(one),
                _scopes(one),
                str(one.operations_per_second_max or "any"),
                times.shown(one.create_time),
                times.shown(one.last_use_time) if one.last_use_time else "never",
                times.shown(one.revoke_time) if one.revoke_time else "",
            )
            for one in found
        ),
    )


def credential(found: Credential) -> Text:
    return facts(
        [
            ("id", found.credential_id),
            ("name", found.name),
            ("proof", _proof(found)),
            ("scopes", _scopes(found)),
            ("per second", str(found.operations_per_second_max or "any")),
            ("created", times.shown(found.create_time)),
            ("used", times.shown(found.last_use_time) if found.last_use_time else "never"),
            ("revoked", times.shown(found.revoke_time) if found.revoke_time else ""),
        ]
    )


def _proof(of: Credential) -> str:
    return f"certificate {of.certificate_name}" if of.certificate_name else "key"


def _scopes(of: Credential) -> str:
    return ",".join(scope.lower() for scope in of.scopes)


def _pairs(values: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in values.items() if value)


def _json(metadata: Mapping[str, Any] | None) -> str:
    return json.dumps(metadata, ensure_ascii=False) if metadata else ""
