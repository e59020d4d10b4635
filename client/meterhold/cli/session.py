"""What a command runs in: its settings, its client, and its two forms of output."""

from __future__ import annotations

import functools
import json
import math
import secrets
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, TypeVar

import typer
from rich.console import Console, RenderableType

import meterhold
from meterhold.cli import amounts, connection, json_values, times
from meterhold.cli.options import Flags
from meterhold.cli.settings import Settings, resolve

_Item = TypeVar("_Item")

# A fresh key is short enough for a line of a table and to be read out, and has 100 random bits.
_LETTERS = "0123456789abcdefghjkmnpqrstvwxyz"
_KEY_LETTERS = 20

# A pipe has no width: what reads it must not find its lines cut.
_COLUMNS_WITHOUT_TERMINAL = 1000


class Session:
    """One run of a command.

    `address` is that of the server as soon as there is a client. `repeat_with` is None as long as
    nothing can have changed. Then it is what to add to the same command line, to ask for the very
    same change again; empty if that is nothing. `advice` is what to do instead, where the same
    command line would make another change.
    """

    def __init__(self, command: str, flags: Flags) -> None:
        self.command = command
        self.flags = flags
        self.address = ""
        self.repeat_with: str | None = None
        self.advice = ""

    @functools.cached_property
    def console(self) -> Console:
        """Prints for people. Nothing that is printed is taken for markup."""
        plain: dict[str, Any] = {"markup": False, "highlight": False, "emoji": False}
        console = Console(**plain)
        return console if console.is_terminal else Console(**plain, width=_COLUMNS_WITHOUT_TERMINAL)

    def settings(self) -> Settings:
        """The settings in force; tells what there is to warn of. Raises UsageError."""
        found = resolve(self.flags.settings(), config=self.flags.config, profile=self.flags.profile)
        for warning in found.warnings:
            text = f"meterhold: warning: {warning}"
            typer.echo(json.dumps({"warning": warning}) if self.flags.json else text, err=True)
        return found

    def client(self, *, timeout_seconds_max: float = math.inf) -> meterhold.Client:
        """A client of the server that the settings name, to be closed. Raises UsageError."""
        found = self.settings()
        self.address = found.address
        return connection.connect(found, min(found.timeout_seconds, timeout_seconds_max))

    def amount(self, text: str) -> int:
        """The micros of an argument. Raises UsageError."""
        return amounts.parse(text, bare_is_micros=bool(self.flags.micros))

    def optional_amount(self, text: str | None) -> int:
        """The micros of an option, 0 if it is not given. Raises UsageError."""
        return 0 if text is None else self.amount(text)

    def shown(self, micros: int) -> str:
        """An amount for people."""
        return amounts.shown(micros, in_micros=bool(self.flags.micros))

    def will_change(self) -> None:
        """From here on something may change."""
        self.repeat_with = ""

    def will_change_each_time(self, advice: str) -> None:
        """From here on something may change, and again if the command is repeated."""
        self.advice = advice

    @property
    def can_have_changed(self) -> bool:
        """Whether anything can have changed by now."""
        return self.repeat_with is not None or self.advice != ""

    def repeat_also_with(self, option: str, value: str) -> None:
        """Note what the same command line needs, to ask for the very same change again."""
        self.repeat_with = f"{self.repeat_with or ''} {option} {value}".strip()

    def repeat_at(self, option: str, instant: datetime | None) -> None:
        """Note an instant that may be given as a length from now: later it would be another."""
        if instant is not None:
            self.repeat_also_with(option, times.iso(instant))

    def key(self, option: str, given: str | None) -> str:
        """The key of a change: the given one, or a fresh one, which is noted."""
        if given is not None:
            return given
        key = "".join(secrets.choice(_LETTERS) for _ in range(_KEY_LETTERS))
        self.repeat_also_with(option, key)
        return key

    def show(self, value: Any, *for_people: RenderableType) -> None:
        """Print one result in the form that is wanted."""
        if self.flags.json:
            typer.echo(json_values.line(value))
        else:
            self._print(*for_people)

    def show_all(
        self,
        items: Iterable[_Item],
        table: Callable[[Iterable[_Item], Callable[[int], str]], RenderableType],
    ) -> None:
        """Print a list in the form that is wanted; as JSON, each item as soon as it is there."""
        if not self.flags.json:
            self._print(table(items, self.shown))
            return
        for item in items:
            typer.echo(json_values.line(item))

    def _print(self, *parts: RenderableType) -> None:
        if self.console.is_terminal:
            self.console.print(*parts, sep="\n")
            return
        with self.console.capture() as captured:
            self.console.print(*parts, sep="\n")
        for line in captured.get().splitlines():
            typer.echo(line.rstrip())
