"""What the command ends with, and the one table from exceptions to it."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from types import MappingProxyType

import meterhold


class ExitCode(IntEnum):
    """The exit codes; `meaning` is what the help says of each."""

    meaning: str

    def __new__(cls, code: int, meaning: str) -> ExitCode:
        self = int.__new__(cls, code)
        self._value_ = code
        self.meaning = meaning
        return self

    DONE = 0, "done"
    BUG = 1, "unexpected: a bug, or an answer that nobody could expect"
    USAGE = 2, "wrong use: an option, an amount, a setting or a field of the request"
    INSUFFICIENT_CREDITS = 3, "refused: not enough credits"
    REFUSED = 4, "refused for another reason: see the message"
    NOT_FOUND = 5, "no such reservation, entry, grant or credential"
    UNAVAILABLE = 6, "not done, the server is away or busy: try again"
    OUTCOME_UNKNOWN = 7, "may be done or not: repeat it with the same key, as the message says"
    UNSOUND = 8, "the books of the account are wrong: see the differences"
    INTERRUPTED = 130, "Ctrl-C; a command that changes something may be done or not, as with 7"


class UsageError(Exception):
    """Something is wrong with the command line or its settings. Nothing was sent.

    It says so in the words of `MeterholdError`, so that both are told in one way.
    """

    reason = ""
    code = "INVALID_ARGUMENT"
    applied = "NO"
    metadata: Mapping[str, str] = MappingProxyType({})


EXIT_CODES: dict[type[Exception], ExitCode] = {
    UsageError: ExitCode.USAGE,
    meterhold.InvalidRequest: ExitCode.USAGE,
    meterhold.InsufficientCredits: ExitCode.INSUFFICIENT_CREDITS,
    meterhold.NotFound: ExitCode.NOT_FOUND,
    meterhold.Rejected: ExitCode.REFUSED,
    meterhold.AccessDenied: ExitCode.REFUSED,
    meterhold.Unavailable: ExitCode.UNAVAILABLE,
    meterhold.OutcomeUnknown: ExitCode.OUTCOME_UNKNOWN,
    meterhold.MeterholdError: ExitCode.BUG,
}
"""A class that is not here has the code of the nearest of its bases that is."""


def exit_code_of(error: UsageError | meterhold.MeterholdError, *, changes: bool) -> ExitCode:
    """Answer what to exit with. `changes` says whether the command can have changed anything."""
    code = next(EXIT_CODES[base] for base in type(error).__mro__ if base in EXIT_CODES)
    if code is ExitCode.OUTCOME_UNKNOWN and not changes:
        return ExitCode.UNAVAILABLE  # no answer came, and that is all there is to know
    return code
