"""The command `config`: which settings are in force, and where each comes from."""

from __future__ import annotations

from rich.table import Table

from meterhold.cli import tables
from meterhold.cli.running import command
from meterhold.cli.session import Session
from meterhold.cli.settings import KNOWN, Settings, Value

_LETTERS_SHOWN = 4


@command
def config(session: Session) -> None:
    """Show the settings in force and where each comes from."""
    found = session.settings()
    value = {
        "config_file": str(found.config_file),
        "profile": found.profile,
        "settings": {
            name: {"value": _value(found, name), "source": found.effective[name].source}
            for name in KNOWN
        },
    }
    where = tables.facts(
        [("config file", str(found.config_file)), ("profile", found.profile or "none")]
    )
    session.show(value, where, "", _table(found))


def _table(found: Settings) -> Table:
    rows = [(name, _text(_value(found, name)), found.effective[name].source) for name in KNOWN]
    return tables.listing(("setting", "value", "source"), rows)


def _text(value: Value | None) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _value(found: Settings, name: str) -> Value | None:
    value = found.effective[name].value
    return _masked(str(value)) if name == "api_key" and value else value


def _masked(key: str) -> str:
    """Enough of a key to know it by."""
    return "****" + (key[-_LETTERS_SHOWN:] if len(key) >= 4 * _LETTERS_SHOWN else "")
