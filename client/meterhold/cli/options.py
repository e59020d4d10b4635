"""The options: those that every command takes, and the types of those that several share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any, TypeVar

import typer

from meterhold import (
    AllowancePeriod,
    EntryKind,
    ExpectedSource,
    Label,
    LotCategory,
    OnExpiry,
    Overage,
    ReservationState,
    SpendDimension,
    Usage,
)
from meterhold.cli import times
from meterhold.cli.exit_codes import UsageError
from meterhold.cli.settings import KNOWN, Value

_SHARED = "Options of every command"
_INT64_MAX = 2**63 - 1
_PRIORITY_MAX = 1000
_ROWS_MAX = 1000

_Member = TypeVar("_Member", bound=StrEnum)
_Parsed = TypeVar("_Parsed")


def _shared(help_text: str, *names: str, metavar: str | None = None) -> Any:
    return typer.Option(*names, help=help_text, metavar=metavar, rich_help_panel=_SHARED)


@dataclass(frozen=True, kw_only=True)
class Flags:
    """What every command takes, before its name or after it. None = not given."""

    address: Annotated[str | None, _shared("Server, host:port.", metavar="ADDRESS")] = None
    api_key: Annotated[
        str | None, _shared("Credential. Process lists show it: prefer a file.", metavar="KEY")
    ] = None
    api_key_file: Annotated[str | None, _shared("File with the credential.", metavar="FILE")] = None
    tls: Annotated[bool | None, _shared("Encrypt, or not.", "--tls/--no-tls")] = None
    tls_root_certificates: Annotated[
        str | None, _shared("PEM file: whom to trust.", metavar="FILE")
    ] = None
    tls_certificate: Annotated[
        str | None, _shared("PEM file: the client's own.", metavar="FILE")
    ] = None
    tls_private_key: Annotated[str | None, _shared("PEM file: its key.", metavar="FILE")] = None
    tls_server_name: Annotated[
        str | None, _shared("Name that the server must prove.", metavar="NAME")
    ] = None
    timeout_seconds: Annotated[
        float | None, _shared("How long a call may take.", "--timeout", metavar="SECONDS")
    ] = None
    json: Annotated[bool | None, _shared("For programs: JSON, in micros.", "--json")] = None
    micros: Annotated[bool | None, _shared("Bare amounts are micros; show micros.", "--micros")] = (
        None
    )
    config: Annotated[
        str | None, _shared("File with settings, if not the usual one.", metavar="FILE")
    ] = None
    profile: Annotated[str | None, _shared("Profile in that file.", metavar="NAME")] = None

    def over(self, earlier: Flags) -> Flags:
        """These, and what only `earlier` gives."""
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        return Flags(
            **{n: getattr(earlier, n) if value is None else value for n, value in given.items()}
        )

    def settings(self) -> dict[str, Value | None]:
        """Those of them that are settings, too."""
        return {name: getattr(self, name) for name in KNOWN}


def _parsed(parse: Callable[[str], _Parsed]) -> Callable[[str], _Parsed]:
    """Let what `parse` refuses be told as typer tells of a wrong option."""

    def parsed(text: str) -> _Parsed:
        try:
            return parse(text)
        except UsageError as error:
            raise typer.BadParameter(str(error)) from None

    return parsed


def _one_of(help_text: str, members: Iterable[_Member], *names: str) -> Any:
    """Build an option that takes one of `members` in small letters, and completes them."""
    by_name = {member.lower().replace("_", "-"): member for member in members}

    def parse(text: str) -> _Member:
        if text not in by_name:
            raise typer.BadParameter(f"{text!r} is not one of {', '.join(by_name)}")
        return by_name[text]

    return typer.Option(
        *names,
        help=help_text,
        metavar="|".join(by_name),
        parser=parse,
        autocompletion=lambda incomplete: [n for n in by_name if n.startswith(incomplete)],
    )


def _known(members: Iterable[_Member]) -> list[_Member]:
    """All that can be sent."""
    return [member for member in members if member != "UNKNOWN"]


def _number(help_text: str, *, least: int, most: int = _INT64_MAX) -> Any:
    return typer.Option(help=help_text, metavar="NUMBER", min=least, max=most)


def _length(help_text: str) -> Any:
    return typer.Option(help=help_text, metavar="LENGTH", parser=_parsed(times.parse_duration))


def amount_option(help_text: str, *names: str) -> Any:
    """Build an option that takes an amount."""
    return typer.Option(*names, metavar="AMOUNT", help=help_text, show_default=False)


def text_option(help_text: str, *names: str, metavar: str = "TEXT") -> Any:
    """Build an option that takes any text."""
    return typer.Option(*names, metavar=metavar, help=help_text, show_default=False)


def key_option(help_text: str, *names: str) -> Any:
    """Build an option that takes a key. An empty one is a mistake, and not the same as none."""
    return typer.Option(
        *names, metavar="KEY", help=help_text, show_default=False, parser=_parse_key
    )


def _parse_key(text: str) -> str:
    if not text:
        raise typer.BadParameter("the key is empty")
    return text


def _parse_label(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise typer.BadParameter(f"{text!r} is not key=value")
    return key, value


def _instant(text: str) -> datetime:
    return times.parse_instant(text, datetime.now(UTC))


def _past(text: str) -> datetime:
    return times.parse_past(text, datetime.now(UTC))


def _time(help_text: str, parse: Callable[[str], datetime], *names: str) -> Any:
    return typer.Option(*names, help=help_text, metavar="TIME", parser=_parsed(parse))


def _parse_group(text: str) -> SpendDimension | Label:
    by_name = {dimension.lower(): dimension for dimension in SpendDimension}
    kind, colon, key = text.partition(":")
    if kind == "label" and key:
        return Label(key)
    if colon or kind not in by_name:
        raise typer.BadParameter(f"{text!r} is not one of {', '.join(by_name)}, label:KEY")
    return by_name[kind]


Account = Annotated[str, typer.Argument(metavar="ACCOUNT", help="Your own id of the account.")]
Amount = Annotated[str, typer.Argument(metavar="AMOUNT", help="Such as 1.5cr, or 1500000micros.")]
GrantKey = Annotated[str, typer.Argument(metavar="GRANT_KEY", help="The --key of the grant.")]
ReservationId = Annotated[str, typer.Argument(metavar="RESERVATION_ID", help="Which hold.")]
Unit = Annotated[
    str, typer.Option(help="What is counted, if it is not credits.", show_default=False)
]

Labels = Annotated[
    list[Any] | None,
    typer.Option(
        "--label", help="Stored with it; may be repeated.", metavar="KEY=VALUE", parser=_parse_label
    ),
]
HavingLabels = Annotated[
    list[Any] | None,
    typer.Option(
        "--label", help="Only with it; may be repeated.", metavar="KEY=VALUE", parser=_parse_label
    ),
]
Reason = Annotated[str, typer.Option(help="For people.", show_default=False)]
Provider = Annotated[str, typer.Option(help="Who did the work.", show_default=False)]
Model = Annotated[str, typer.Option(help="What did the work.", show_default=False)]
Tokens = Annotated[int, _number("Stored with the charge.", least=0)]
Priority = Annotated[
    int | None, _number("Lower is spent first; 50 if unset.", least=0, most=_PRIORITY_MAX)
]
Limit = Annotated[int, _number("How many to show.", least=1)]
RowLimit = Annotated[int, _number("How many to show.", least=1, most=_ROWS_MAX)]
ChargeSeq = Annotated[int | None, _number("Which charge: the number of its entry.", least=1)]
Seq = Annotated[int | None, _number("By its number.", least=1)]

Ttl = Annotated[timedelta | None, _length("Hold for so long, such as 15m; at most 7d.")]
Interval = Annotated[timedelta | None, _length("How often to look; 1s if unset.")]
Lifetime = Annotated[timedelta | None, _length("What is left of it then expires, such as 30d.")]
ExpiredLotGrace = Annotated[
    timedelta | None, _length("What would expire at once lives for so long, such as 30d.")
]
Expiry = Annotated[
    datetime | None,
    _time(
        "What is left then is written off: an ISO time, or a length from now such as 30d.",
        _instant,
        "--expires",
    ),
]
EffectiveTime = Annotated[
    datetime | None, _time("They can be spent from then on: an ISO time, or a length.", _instant)
]
Since = Annotated[
    datetime | None, _time("From then on: an ISO time, or a length before now such as 7d.", _past)
]
Until = Annotated[datetime | None, _time("Before then: an ISO time, or a length.", _past)]
GroupBy = Annotated[
    list[Any] | None,
    typer.Option(
        "--by",
        help="Sum by it; may be repeated, at most 3.",
        metavar="|".join((*(dimension.lower() for dimension in SpendDimension), "label:KEY")),
        parser=_parse_group,
    ),
]

AllowanceAmount = Annotated[
    str | None, amount_option("What each period has, full again at its start.", "--allowance")
]
AllowancePeriodOption = Annotated[
    AllowancePeriod | None,
    _one_of("How often it is renewed.", _known(AllowancePeriod), "--allowance-period"),
]
AllowanceAnchor = Annotated[
    datetime | None,
    _time("Its first start: an ISO time, or a length from now; now if unset.", _instant),
]
AllowancePriority = Annotated[
    int | None, _number("Lower is spent first; 10 if unset.", least=0, most=_PRIORITY_MAX)
]

PerSecondMax = Annotated[
    int, _number("Operations a second, in each server process; 0 = any.", least=0, most=1_000_000)
]

OfAccount = Annotated[
    str | None, text_option("Whose grant; found by its key if unset.", metavar="ACCOUNT")
]
RevocationId = Annotated[str, text_option("Which dispute; empty for refunds.", metavar="ID")]
ExpectProvider = Annotated[str, text_option("Refuse if the payment provider is another.")]
ExpectStore = Annotated[str, text_option("Refuse if the shop's id is another.")]
ExpectTestMode = Annotated[
    bool | None,
    typer.Option(
        "--expect-test-mode/--expect-live-mode",
        help="Refuse if it was made in the other mode.",
        show_default=False,
    ),
]
ExpectCurrency = Annotated[str, text_option("Refuse if it was paid in another.", metavar="CODE")]
OnExpiryOption = Annotated[
    OnExpiry | None, _one_of("What becomes of a hold that nobody ends.", _known(OnExpiry))
]
DebitOverage = Annotated[
    Overage | None,
    _one_of("If credits do not suffice; reject if unset.", (Overage.REJECT, Overage.OVERDRAFT)),
]
SettleOverage = Annotated[
    Overage | None,
    _one_of("If hold and balance do not suffice; cap if unset.", _known(Overage)),
]
Category = Annotated[
    LotCategory | None, _one_of("Where they come from; paid if unset.", _known(LotCategory))
]
Kinds = Annotated[
    list[EntryKind] | None, _one_of("Only these; may be repeated.", _known(EntryKind), "--kind")
]
States = Annotated[
    list[ReservationState] | None,
    _one_of("Only these; may be repeated.", _known(ReservationState), "--state"),
]


def labels_of(pairs: list[tuple[str, str]] | None) -> dict[str, str]:
    """Put the labels together. Raises UsageError if one is given twice."""
    labels = dict(pairs or ())
    if len(labels) < len(pairs or ()):
        raise UsageError("a --label is given twice")
    return labels


def usage_of(provider: str, model: str, input_tokens: int, output_tokens: int) -> Usage | None:
    """What the charge was for; None if nothing of it is given."""
    usage = Usage(
        provider=provider, model=model, input_tokens=input_tokens, output_tokens=output_tokens
    )
    return None if usage == Usage() else usage


def not_empty(what: str, account: str | None) -> str | None:
    """An account that may be left out. Raises UsageError for an empty one: it is a mistake."""
    if account == "":
        raise UsageError(f"{what} is empty; leave it out if any is meant")
    return account


def expected_source_of(
    provider: str, store_id: str, test_mode: bool | None, currency_code: str
) -> ExpectedSource | None:
    """What a grant's purchase must be; None if nothing of it is given."""
    expected = ExpectedSource(
        provider=provider, store_id=store_id, test_mode=test_mode, currency_code=currency_code
    )
    return None if expected == ExpectedSource() else expected
