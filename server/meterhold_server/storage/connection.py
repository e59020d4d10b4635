"""Connections to the database: how they are opened, and which databases are refused."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Concatenate, ParamSpec, TypeVar

import orjson
import psycopg
from psycopg.types.json import set_json_loads
from psycopg.types.string import TextLoader

from meterhold_server.storage.exchange import Connection
from meterhold_server.storage.tables import (
    APPLICATION_NAME,
    APPLICATION_ROLE,
    READER_ROLE,
    REVISION,
)

_P = ParamSpec("_P")
_T = TypeVar("_T")

VERSION_MIN = 15
VERSION_MAX = 18

CONNECT_SECONDS = 5
"""How long a connection may take to be opened, and then again to be set up."""

# Lanes look rows up by key and nothing else. A plan made while a table was empty must not become a
# scan of it when it has grown, and planning again for each batch would cost more than the batch.
_LANE_SETTINGS = {
    "statement_timeout": "10s",
    "lock_timeout": "1s",
    "idle_in_transaction_session_timeout": "30s",
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "jit": "off",
}
# A page reads an index from a key on and stops: collecting and sorting all of an account's rows
# first looks cheap to a planner only while it believes that there are few.
_READ_SETTINGS = {
    "statement_timeout": "10s",
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "default_transaction_read_only": "on",
    "jit": "off",
}
# Sums up the charges of one block after the other: found by key, and then all of them.
_SUMMARIZER_SETTINGS = {
    "lock_timeout": "1s",
    "idle_in_transaction_session_timeout": "30s",
    "work_mem": "32MB",
    "enable_seqscan": "off",
    "max_parallel_workers_per_gather": "0",
    "jit": "off",
}
# A credential that is looked up has callers waiting for it.
_CREDENTIAL_SETTINGS = {"statement_timeout": "3s", "lock_timeout": "1s", "jit": "off"}
# A verification joins and aggregates whole ranges of the tables: there the planner knows best.
_VERIFY_SETTINGS = {
    "statement_timeout": "0",
    "work_mem": "128MB",
    "default_transaction_read_only": "on",
    "max_parallel_workers_per_gather": "0",
    "jit": "off",
}

_SET_NAMESPACE = "SELECT set_config('meterhold.namespace', %s, false)"

_MAY_ACT = " AND ".join(
    f"pg_has_role(current_user, '{role}', 'USAGE')" for role in (APPLICATION_ROLE, READER_ROLE)
)


class DatabaseError(Exception):
    """A database that must not be used. The message says why and what to do next."""


def connect(
    url: str, settings: dict[str, str] | None = None, *, role: str | None = APPLICATION_ROLE
) -> Connection:
    """Open a connection that works as the application role, in autocommit mode.

    Without a role it works as the user of the URL, who may remove what the application may not.

    Dead peers are noticed by keepalives and `tcp_user_timeout`. Raises psycopg.Error.
    """
    connection = Connection.connect(
        url,
        autocommit=True,
        connect_timeout=CONNECT_SECONDS,
        keepalives_idle=10,
        keepalives_interval=5,
        keepalives_count=3,
        tcp_user_timeout=20_000,
        application_name=f"{APPLICATION_NAME} {REVISION}",
    )
    try:
        # Account ids are text in the core: to make UUID objects costs more than all else on a row.
        connection.adapters.register_loader("uuid", TextLoader)
        set_json_loads(orjson.loads, connection)
        who = {"meterhold.maintenance": "on"} if role is None else {"role": role}
        wanted = who | {"timezone": "UTC"} | (settings or {})
        with severed_if_silent(connection):
            for name, value in wanted.items():
                connection.execute("SELECT set_config(%s, %s, false)", (name, value))
    except BaseException:
        connection.close()
        raise
    return connection


def sever(connection: Connection) -> None:
    """Cut the line, from any thread: whoever waits for the database gets an error at once."""
    try:
        line = socket.socket(fileno=os.dup(connection.fileno()))
    except (OSError, psycopg.Error):
        return
    with line:
        try:
            line.shutdown(socket.SHUT_RDWR)
        except OSError:
            return


@contextmanager
def severed_if_silent(connection: Connection) -> Iterator[None]:
    """Sever a connection that does not get through the block in `CONNECT_SECONDS`.

    No setting bounds the wait for a line that takes everything and answers nothing, as behind a
    proxy whose server froze.
    """
    timer = threading.Timer(CONNECT_SECONDS, sever, (connection,))
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()


def connect_lane(url: str) -> Connection:
    """A connection for one lane."""
    return connect(url, _LANE_SETTINGS)


def connect_owner(url: str) -> Connection:
    """A connection of the user of the URL, for a transaction as a lane's."""
    return connect(url, _LANE_SETTINGS, role=None)


def connect_reader(url: str) -> Connection:
    """A connection that cannot write."""
    return connect(url, _READ_SETTINGS)


def connect_summarizer(url: str, *, statement_seconds_max: int = 0) -> Connection:
    """A connection that writes sums of charges. 0 = statements may take any time."""
    timeout = {"statement_timeout": f"{statement_seconds_max}s"}
    return connect(url, _SUMMARIZER_SETTINGS | timeout)


def connect_reader_for_callers(url: str) -> Connection:
    """A connection that cannot write, and sees nothing but the namespace of `within`."""
    return connect(url, _READ_SETTINGS, role=READER_ROLE)


def within(
    connection: Connection,
    namespace: str,
    read: Callable[Concatenate[Connection, _P], _T],
    *args: _P.args,
    **kwargs: _P.kwargs,
) -> _T:
    """Read by a connection for callers what it can see of one namespace."""
    if connection.namespace != namespace:
        connection.execute(_SET_NAMESPACE, (namespace,), prepare=True)
        connection.namespace = namespace
    return read(connection, *args, **kwargs)


def connect_credentials(url: str) -> Connection:
    """A connection for credentials: to look them up, to make and to revoke them."""
    return connect(url, _CREDENTIAL_SETTINGS)


def connect_verifier(url: str, *, statement_seconds_max: int = 0) -> Connection:
    """A connection for verification that cannot write. 0 = statements may take any time."""
    timeout = {"statement_timeout": f"{statement_seconds_max}s"}
    return connect(url, _VERIFY_SETTINGS | timeout)


def check_database(url: str, *, allow_unsafe: bool = False, writes: bool = True) -> None:
    """Refuse a database that could lose what it acknowledged, or has not the right schema.

    `allow_unsafe` accepts settings that lose data in a crash, for tests. Without `writes` a
    standby, and a database that could lose commits, will do as well. Raises DatabaseError, with
    every reason at once, and psycopg.Error if the server cannot be reached.
    """
    with _checking(url) as connection:
        with _checking(url) as second:
            reasons = [*_version_reasons(connection), *_pooler_reasons(connection, second)]
        if writes:
            reasons += _read_only_reasons(connection)
        reasons += _schema_reasons(connection)
        if writes and not allow_unsafe:
            reasons += _durability_reasons(connection)
    if reasons:
        raise DatabaseError("The database is refused: " + "; ".join(reasons) + ".")


def _checking(url: str) -> psycopg.Connection[Any]:
    return psycopg.connect(url, autocommit=True, connect_timeout=5)


def _pooler_reasons(
    connection: psycopg.Connection[Any], second: psycopg.Connection[Any]
) -> Iterator[str]:
    """What is set or prepared on one connection must not be met, or missed, on another."""
    both = [_value(each, "SELECT pg_backend_pid()") for each in (connection, second, connection)]
    if len(set(both)) == 1:
        yield (
            "a pooler lends its connections for a transaction each: set pool_mode = session for"
            " this database in PgBouncer, or connect to PostgreSQL itself"
        )


def _version_reasons(connection: psycopg.Connection[Any]) -> Iterator[str]:
    major = connection.info.server_version // 10_000
    if not VERSION_MIN <= major <= VERSION_MAX:
        yield f"PostgreSQL {major} is not one of {VERSION_MIN} to {VERSION_MAX}"


def _read_only_reasons(connection: psycopg.Connection[Any]) -> Iterator[str]:
    if _value(connection, "SELECT pg_is_in_recovery()"):
        yield "it is a standby: give the URL of the primary"
    elif _value(connection, "SHOW transaction_read_only") == "on":
        yield "it is read-only: default_transaction_read_only is on"


def _durability_reasons(connection: psycopg.Connection[Any]) -> Iterator[str]:
    for name in ("fsync", "full_page_writes"):
        if _value(connection, f"SHOW {name}") != "on":
            yield f"{name} is off: a crash would lose or corrupt what was acknowledged"
    level = _value(connection, "SHOW synchronous_commit")
    if level not in ("on", "remote_apply"):
        yield f"synchronous_commit is {level}, below on: a crash would lose what was acknowledged"


def _schema_reasons(connection: psycopg.Connection[Any]) -> Iterator[str]:
    no_right = f"the user may not act as {APPLICATION_ROLE}: GRANT {APPLICATION_ROLE} TO the user"
    revision = None
    if _value(connection, "SELECT to_regclass('alembic_version')") is not None:
        if not _value(connection, "SELECT has_table_privilege('alembic_version', 'SELECT')"):
            yield no_right
            return
        revision = _value(connection, "SELECT max(version_num) FROM alembic_version")
    if revision is None or revision < REVISION:
        found = f"at migration {revision}" if revision else "not migrated"
        yield f"it is {found} and {REVISION} is needed: run `meterhold-server migrate`"
    elif not _value(connection, f"SELECT {_MAY_ACT}"):
        yield no_right
    elif revision > REVISION:
        oldest = _value(connection, "SELECT max(oldest_served_revision) FROM schema_window")
        if oldest is None or oldest > REVISION:
            yield (
                f"it is at migration {revision}, which serves servers of {oldest} and later, and"
                f" this one is of {REVISION}: start a newer version of Meterhold"
            )


def _value(connection: psycopg.Connection[Any], query: str) -> Any:
    row = connection.execute(query).fetchone()  # type: ignore[arg-type, call-overload, unused-ignore]
    return row[0] if row else None
