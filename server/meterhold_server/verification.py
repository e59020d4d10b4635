"""The command `meterhold-server verify`: check the books, tell what differs, set it right."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable
from typing import Annotated, Final, TextIO

from pydantic import Field, model_validator

from meterhold_server import app
from meterhold_server.batching.strays import remove_stray_claims
from meterhold_server.config import EngineSettings
from meterhold_server.core.model import AccountKey, Entry, account_id_of
from meterhold_server.rpc.requests import UNIT_DEFAULT
from meterhold_server.storage.connection import connect_summarizer
from meterhold_server.storage.verify import Verification, verify
from meterhold_server.storage.wrong_blocks import remove_wrong_blocks

_BAR_CHARACTERS: Final = 40


class VerifySettings(EngineSettings):
    """Which accounts to check, and whether to set right what differs."""

    account: Annotated[
        str | None, Field(min_length=1, description="only this account of the namespace")
    ] = None
    unit: Annotated[
        str | None, Field(min_length=1, description="its unit, `credits` if not given")
    ] = None
    repair: Annotated[
        bool, Field(description="set right what differs, then check again; as the tables' owner")
    ] = False

    @model_validator(mode="after")
    def _unit_of_an_account(self) -> VerifySettings:
        if self.unit is not None and self.account is None:
            raise ValueError("unit names the unit of an account: give account too")
        return self

    @property
    def only(self) -> AccountKey | None:
        if self.account is None:
            return None
        return AccountKey(self.namespace, self.account, self.unit or UNIT_DEFAULT)


def run(settings: VerifySettings) -> int:
    """Check every invariant of every account. Exit code 1 if one is broken, and still is."""
    with app.database(settings, writes=settings.repair) as url:
        found = _verified(url, settings)
        if settings.repair and not found.clean:
            _repair(url, settings, found)
            found = _verified(url, settings)
    return 0 if found.clean else 1


def _verified(url: str, settings: VerifySettings) -> Verification:
    """Check, and print what differs."""
    bar = _Bar(sys.stderr)
    found = verify(url, settings.only, progress=bar.show if sys.stderr.isatty() else None)
    for violation in found.violations:
        print(violation)
    verdict = "every invariant holds" if found.clean else f"{len(found.differences)} differences"
    print(f"{found.accounts} accounts, {found.entries} entries: {verdict}")
    return found


def _repair(url: str, settings: VerifySettings, found: Verification) -> None:
    """Set right each account that differs. Print what was posted for it."""
    accounts = list(dict.fromkeys(each.account for each in found.differences if each.account))
    for account, rebuilt in asyncio.run(app.rebuild(settings, url, accounts)).items():
        stray = remove_stray_claims(url, account, settings.rules, actor=app.operator())
        with connect_summarizer(url) as connection:
            remove_wrong_blocks(connection, account_id_of(account))
        _tell(account, [*rebuilt.corrections, *stray])


def _tell(account: AccountKey, corrections: Iterable[Entry]) -> None:
    print(f"account {account.account!r} ({account.unit}): rebuilt")
    for entry in corrections:
        print(f"  entry {entry.seq}: a correction of {entry.amount_micros}, {entry.reason}")


class _Bar:
    """How far the check is, on one line of a terminal, which is cleared at the end."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def show(self, done: int, steps: int) -> None:
        full = _BAR_CHARACTERS * done // steps
        bar = f"[{'#' * full}{' ' * (_BAR_CHARACTERS - full)}] {100 * done // steps:3} %"
        self._out.write(f"\r{bar}" if done < steps else "\r\033[K")
        self._out.flush()
