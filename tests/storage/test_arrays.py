"""What is packed for a parameter is what the database then reads."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import BigInteger, Boolean, DateTime, Integer, Text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, UUID
from sqlalchemy.types import TypeEngine

from meterhold_server.core.model import Part
from meterhold_server.storage.arrays import packing_of
from meterhold_server.storage.connection import connect_lane
from meterhold_server.storage.exchange import Connection, Statement, exchange
from support.database import DatabaseServer, name_of

TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
TIMES = st.datetimes(datetime(1970, 1, 1), datetime(9999, 12, 31), timezones=st.just(UTC))
JSONS = st.recursive(
    st.booleans() | st.integers(-(2**63), 2**63 - 1) | TEXTS,
    lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner),
)
COLUMNS: list[tuple[TypeEngine[Any], str, st.SearchStrategy[Any]]] = [
    (BigInteger(), "bigint", st.none() | st.integers(-(2**63), 2**63 - 1)),
    (Integer(), "integer", st.none() | st.integers(-(2**31), 2**31 - 1)),
    (Text(), "text", st.none() | TEXTS),
    (Boolean(), "boolean", st.booleans()),
    (DateTime(), "timestamptz", st.none() | TIMES),
    (JSONB(), "jsonb", st.none() | st.dictionaries(TEXTS, JSONS) | st.lists(JSONS)),
    (UUID(), "uuid", st.uuids().map(str)),
]


@pytest.fixture(scope="module")
def connection(database_server: DatabaseServer, template: str) -> Iterator[Connection]:
    url = database_server.create_database(template)
    with connect_lane(url) as opened:
        yield opened
    database_server.drop_database(name_of(url))


@pytest.mark.parametrize(("kind", "name", "values"), COLUMNS, ids=[name for _, name, _ in COLUMNS])
@given(data=st.data())
def test_a_column_arrives_as_it_is(
    connection: Connection,
    kind: TypeEngine[Any],
    name: str,
    values: st.SearchStrategy[Any],
    data: st.DataObject,
) -> None:
    several = data.draw(st.lists(values, min_size=1, max_size=8))
    column = several * data.draw(st.integers(1, 3))
    assert _echo(connection, ARRAY(kind), f"{name}[]", f"unnest($1::{name}[])", column) == column


def test_no_accounts_may_be_looked_for(connection: Connection) -> None:
    assert _echo(connection, ARRAY(UUID()), "no uuids", "unnest($1::uuid[])", []) == []


def test_a_time_arrives_as_it_is(connection: Connection) -> None:
    time = datetime(2026, 2, 28, 23, 59, 59, 999_999, UTC)
    assert _echo(connection, DateTime(), "time", "$1::timestamptz", time) == [time]


def test_named_tuples_are_arrays_and_text_is_json_already(connection: Connection) -> None:
    column = [[Part(1, 5), Part(2, 7)], '{"a": [1]}']
    read = _echo(connection, ARRAY(JSONB()), "jsonb[]", "unnest($1::jsonb[])", column)
    assert read == [[[1, 5], [2, 7]], {"a": [1]}]


def _echo(
    connection: Connection, kind: TypeEngine[Any], name: str, read: str, values: Any
) -> list[Any]:
    columns = (("values", packing_of(kind)),)
    statement = Statement(f"echo {name}".encode(), f"SELECT {read}".encode(), columns)
    [rows] = exchange(connection, [(statement, {"values": values})])
    return [row[0] for row in rows]
