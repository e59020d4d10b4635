"""Reading a trace: our own, others, and every way in which one can be malformed."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from meterhold_server.demo.trace import TracedRequest, TraceError, parse_trace, read_trace

HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens"
ROW = "2023-11-16 18:15:46.6805900,374,44"


def test_our_own_trace_comes_with_the_package() -> None:
    requests = read_trace(None, 10_000)

    assert len(requests) == 4000
    time = datetime(2023, 11, 16, 18, 15, 46, 680590, UTC)
    assert requests[0] == TracedRequest(time, 374, 44)


def test_it_is_read_no_further_than_asked_for(tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text(f"{HEADER}\n{ROW}\n{ROW}\nnonsense\n")

    assert len(read_trace(trace, 2)) == 2


def test_a_byte_order_mark_other_line_ends_zones_and_empty_lines_are_no_error(
    tmp_path: Path,
) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_bytes(f"\ufeff{HEADER}\r\n{ROW}\r\n2023-11-16 20:15:47+02:00,0,0\r\n\r\n".encode())

    times = [request.arrival_time for request in read_trace(trace, 10)]

    assert times[1] - times[0] == datetime(2023, 11, 16, 18, 15, 47) - datetime(
        2023, 11, 16, 18, 15, 46, 680590
    )


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], r"trace.csv, line 1: the columns must be TIMESTAMP,"),
        (["TIMESTAMP,Input,Output", ROW], r"line 1: the columns must be TIMESTAMP,"),
        ([HEADER, ROW, "2023-11-16 18:15:50,7"], r"line 3: has 2 columns and not 3"),
        ([HEADER, f"{ROW},5"], r"line 2: has 4 columns and not 3"),
        ([HEADER, "yesterday,374,44"], r"line 2, TIMESTAMP: 'yesterday' is not a time"),
        ([HEADER, "2023-11-16,37x,44"], r"line 2, ContextTokens: '37x' is not a whole number"),
        ([HEADER, "2023-11-16,374,-1"], r"line 2, GeneratedTokens: '-1' is not a whole number"),
        ([HEADER, "2023-11-16,374,4.4"], r"line 2, GeneratedTokens: '4.4' is not a whole"),
        ([HEADER, "2023-11-16,374,"], r"line 2, GeneratedTokens: '' is not a whole number"),
        ([HEADER, "2023-11-16,374,10000001"], r"from 0 to 10000000"),
        ([HEADER, f"2023-11-16,374,{'9' * 5000}"], r"from 0 to 10000000"),
        ([HEADER, ROW, "2023-11-16 18:15:46,1,1"], r"line 3, TIMESTAMP: is earlier than"),
        ([HEADER, '"2023-11-16,374,44'], r"line 2: unexpected end of data"),
    ],
)
def test_a_malformed_one_names_the_line_and_the_column(lines: list[str], message: str) -> None:
    with pytest.raises(TraceError, match=message):
        list(parse_trace(lines, "trace.csv"))


@pytest.mark.parametrize(
    ("content", "message"), [(HEADER.encode(), "no requests"), (b"\xff\xfe\x00", "UTF-8")]
)
def test_what_is_no_trace_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_bytes(content)

    with pytest.raises(TraceError, match=message):
        read_trace(trace, 10)
