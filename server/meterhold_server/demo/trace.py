"""The trace: when LLM requests arrived, and the tokens that went in and came out."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from importlib import resources
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple

from meterhold_server.demo import DemoError

COLUMNS: Final = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")

_OWN_TRACE: Final = "data/azure_llm_conversation_2023_part.csv"
# Keeps costs and working times far from the most that a call may ask for.
_TOKENS_MAX: Final = 10_000_000


class TraceError(DemoError):
    """A trace that cannot be read; the message names the line and the column."""


class TracedRequest(NamedTuple):
    arrival_time: datetime
    context_tokens: int
    generated_tokens: int


def read_trace(path: Path | None, requests_max: int) -> list[TracedRequest]:
    """The first requests of a file, or of the trace that comes with the package.

    Raises TraceError, and OSError if the file cannot be opened.
    """
    source = path or resources.files("meterhold_server.demo").joinpath(_OWN_TRACE)
    with source.open("r", encoding="utf-8-sig") as lines:
        try:
            requests = list(islice(parse_trace(lines, str(source)), requests_max))
        except UnicodeDecodeError as error:
            raise TraceError(f"{source} is not text in UTF-8: {error}") from error
    if not requests:
        raise TraceError(f"{source} has no requests")
    return requests


def parse_trace(lines: Iterable[str], name: str) -> Iterator[TracedRequest]:
    """The requests of the lines of a CSV file called `name`. Raises TraceError."""
    rows = csv.reader(lines, strict=True)
    last: datetime | None = None
    try:
        if (header := next(rows, None)) is None or tuple(header) != COLUMNS:
            raise TraceError(f"{name}, line 1: the columns must be {','.join(COLUMNS)}")
        for row in filter(None, rows):
            where = f"{name}, line {rows.line_num}"
            request = _request(row, where)
            if last is not None and request.arrival_time < last:
                raise TraceError(f"{where}, {COLUMNS[0]}: is earlier than the request before")
            last = request.arrival_time
            yield request
    except csv.Error as error:
        raise TraceError(f"{name}, line {rows.line_num}: {error}") from error


def _request(row: list[str], where: str) -> TracedRequest:
    if len(row) != len(COLUMNS):
        raise TraceError(f"{where}: has {len(row)} columns and not {len(COLUMNS)}")
    return TracedRequest(
        _time(row[0], f"{where}, {COLUMNS[0]}"),
        _tokens(row[1], f"{where}, {COLUMNS[1]}"),
        _tokens(row[2], f"{where}, {COLUMNS[2]}"),
    )


def _time(text: str, where: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise TraceError(f"{where}: {text!r} is not a time") from None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _tokens(text: str, where: str) -> int:
    # The length first: converting a very long number would raise an error of its own.
    if text.isascii() and text.isdecimal() and len(text) <= len(str(_TOKENS_MAX)):
        tokens = int(text)
        if tokens <= _TOKENS_MAX:
            return tokens
    raise TraceError(f"{where}: {text!r} is not a whole number from 0 to {_TOKENS_MAX}")
