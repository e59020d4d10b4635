"""One round trip: prepared statements sent together, and all their answers waited for at once.

The same as psycopg's pipeline mode, on the level of libpq below its cursors. A lane shares the
interpreter with the event loop, and each time it waits, or might, it hands the interpreter over and
has to get it back: a cursor per statement does so many times in a batch, this once or twice.
"""

from __future__ import annotations

import select
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import psycopg
from psycopg import abc, pq
from psycopg.adapt import Transformer
from psycopg.errors import error_from_result

from meterhold_server.storage.arrays import Packing

Rows = list[tuple[Any, ...]]

_DONE: Final = frozenset({pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK})


class Connection(psycopg.Connection[tuple[Any, ...]]):
    """A connection for exchanges. It knows which statements it has prepared, and how to read rows.

    `namespace` is the one that it can see, if it is a caller's.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.prepared: set[bytes] = set()
        # It finds out once how each type is read.
        self.transformer = Transformer(self)
        self.namespace: str | None = None


class Statement(NamedTuple):
    """Prepared under its name when first used. `$1`, `$2` … are its `columns`: arrays, but for
    a time.
    """

    name: bytes
    sql: bytes
    columns: tuple[tuple[str, Packing], ...] = ()


Command = tuple[Statement, Mapping[str, Any]]
"""A statement with the values of each of its columns."""


def columns(statement: Statement, rows: Iterable[Sequence[Any]]) -> dict[str, Sequence[Any]]:
    """Rows, each with all columns of a statement in their order, as the values of its columns."""
    names = (name for name, _ in statement.columns)
    return dict(zip(names, zip(*rows, strict=True), strict=True))


def exchange(connection: Connection, commands: Sequence[Command]) -> list[Rows]:
    """Send commands, and answer the rows of each. The first that fails is raised as psycopg.Error.

    The server leaves out what follows a failed command, up to the end of the exchange.
    """
    pgconn = connection.pgconn
    new = {statement for statement, _ in commands if statement.name not in connection.prepared}
    # Before anything is sent: what cannot be packed must not leave the exchange half done.
    packed = [
        (statement, [pack(values[name]) for name, pack in statement.columns])
        for statement, values in commands
    ]
    pgconn.enter_pipeline_mode()
    try:
        for statement in new:
            pgconn.send_prepare(statement.name, statement.sql)
        for statement, arrays in packed:
            pgconn.send_query_prepared(statement.name, arrays, [pq.Format.BINARY] * len(arrays))
        answers = _answers(pgconn, len(new) + len(commands))
    finally:
        if pgconn.status == pq.ConnStatus.OK:
            pgconn.exit_pipeline_mode()
    for statement, answer in zip(new, answers, strict=False):
        if answer.status in _DONE:
            connection.prepared.add(statement.name)
    for answer in answers:
        if answer.status not in _DONE:
            raise error_from_result(answer)
    return [_rows(connection.transformer, answer) for answer in answers[len(new) :]]


def _rows(transformer: abc.Transformer, answer: pq.abc.PGresult) -> Rows:
    if answer.ntuples == 0:
        return []
    transformer.set_pgresult(answer)
    return transformer.load_rows(0, answer.ntuples, tuple)


def _answers(pgconn: pq.abc.PGconn, count: int) -> list[pq.abc.PGresult]:
    """End the exchange and wait for the answers. All are read, whatever they say."""
    pgconn.pipeline_sync()
    waiting = select.poll()
    waiting.register(pgconn.socket, select.POLLIN | select.POLLOUT)
    while pgconn.flush():
        waiting.poll()
        pgconn.consume_input()
    waiting.register(pgconn.socket, select.POLLIN)
    answers: list[pq.abc.PGresult] = []
    for _ in range(count):
        answer = _next(pgconn, waiting)
        assert answer is not None, "each command has an answer"
        answers.append(answer)
        _next(pgconn, waiting)  # The end of the command's answer.
    _next(pgconn, waiting)  # The end of the exchange.
    return answers


def _next(pgconn: pq.abc.PGconn, waiting: select.poll) -> pq.abc.PGresult | None:
    while pgconn.is_busy():
        waiting.poll()
        pgconn.consume_input()
    if pgconn.status == pq.ConnStatus.BAD:
        raise psycopg.OperationalError(f"the connection is lost: {pgconn.get_error_message()}")
    return pgconn.get_result()
