"""What the database itself refuses, whoever asks: the last wall, should the code be wrong."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from psycopg import errors, sql

from core.book import ALICE, START, capture, debit, debit_once, grant, reserve, settle
from meterhold_server.batching.transaction import transact
from meterhold_server.core.charge_blocks import BlockKey
from meterhold_server.core.model import AllowancePeriod, AllowanceTerms, Rules, account_id_of
from meterhold_server.core.operations import (
    Configure,
    ConfigureDefaults,
    RefundCharge,
    RevokeGrant,
)
from meterhold_server.storage.charge_blocks import make_block
from meterhold_server.storage.session import Session
from meterhold_server.storage.tables import APPLICATION_ROLE

MUTABLE = (
    "account",
    "lot",
    "reservation",
    "charge_refund",
    "allowance",
    "pending_grant",
    "tombstone",
    "account_default",
)
APPEND_ONLY = ("entry", "claim", "account_claim")
COPIES = ("charge_block", "charge_summary")
CHANGES = ("UPDATE {} SET account_id = account_id", "DELETE FROM {}", "TRUNCATE {}")
NO_CHANGE = "UPDATE {} SET {} = {}"

Connection = psycopg.Connection[tuple[Any, ...]]


@pytest.fixture
def owner(database_url: str) -> Iterator[Connection]:
    """The owner of a ledger in which every table has a row."""
    session = Session(database_url)
    transact(
        session,
        [
            grant("gift", 100, expire_time=START.replace(year=2200)),
            reserve("open", 10, ttl=timedelta(hours=1)),
            capture("open", "first", 1),
            reserve("done", 10),
            settle("done", 5),
            debit(1, request_id="request"),
            debit_once("key", 1),
            RefundCharge(ALICE, "back", 2, 1),
            *(debit(1) for _ in range(4)),
            Configure(ALICE, allowance=AllowanceTerms(0, AllowancePeriod.OFF)),
            grant("later", 5, effective_time=START.replace(year=2200)),
            RevokeGrant(ALICE, "never", fraction_ppm=1, allow_tombstone=True),
            ConfigureDefaults(ALICE, signup_micros=1),
        ],
        Rules(),
    )
    assert make_block(session.connection, BlockKey(account_id_of(ALICE), 1, 8))
    session.close()
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def application(owner: Connection) -> Connection:
    """The role that a server works as."""
    owner.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(APPLICATION_ROLE)))
    return owner


def run(connection: Connection, statement: str, *names: str) -> int:
    identifiers = map(sql.Identifier, names)
    return connection.execute(sql.SQL(statement).format(*identifiers)).rowcount  # type: ignore[arg-type, unused-ignore]


class TestTheApplication:
    @pytest.mark.parametrize("statement", CHANGES)
    @pytest.mark.parametrize("table", APPEND_ONLY)
    def test_may_not_change_history(
        self, application: Connection, table: str, statement: str
    ) -> None:
        with pytest.raises(errors.InsufficientPrivilege):
            run(application, statement, table)

    @pytest.mark.parametrize("statement", CHANGES[1:])
    @pytest.mark.parametrize("table", MUTABLE)
    def test_may_remove_nothing(self, application: Connection, table: str, statement: str) -> None:
        with pytest.raises(errors.InsufficientPrivilege):
            run(application, statement, table)

    @pytest.mark.parametrize("table", COPIES)
    def test_may_remove_a_copy_and_not_change_it(self, application: Connection, table: str) -> None:
        with pytest.raises(errors.InsufficientPrivilege):
            run(application, CHANGES[0], table)
        assert run(application, CHANGES[1], table) > 0

    @pytest.mark.parametrize("table", [*MUTABLE, *APPEND_ONLY, *COPIES])
    def test_may_read_and_add(self, application: Connection, table: str) -> None:
        assert run(application, "SELECT * FROM {}", table) > 0
        assert run(application, "INSERT INTO {} SELECT * FROM {} LIMIT 0", table, table) == 0

    @pytest.mark.parametrize("table", MUTABLE)
    def test_may_change_the_present(self, application: Connection, table: str) -> None:
        key = "account_id" if table not in ("tombstone", "account_default") else "namespace"
        assert run(application, NO_CHANGE, table, key, key) > 0

    @pytest.mark.parametrize(
        "statement",
        [
            "ALTER TABLE {} DISABLE TRIGGER ALL",
            "DROP TABLE {}",
            "CREATE TRIGGER t BEFORE INSERT ON {} FOR EACH ROW EXECUTE FUNCTION refuse_change()",
        ],
    )
    def test_may_not_change_the_tables(self, application: Connection, statement: str) -> None:
        with pytest.raises(errors.InsufficientPrivilege):
            run(application, statement, "entry")


class TestTheOwner:
    @pytest.mark.parametrize("replica", [False, True], ids=["in a session", "as a replica"])
    @pytest.mark.parametrize("statement", CHANGES)
    def test_may_not_change_an_entry_either(
        self, owner: Connection, statement: str, replica: bool
    ) -> None:
        if replica:  # an ordinary trigger would not fire
            owner.execute("SET session_replication_role = replica")
        before = owner.execute("SELECT * FROM entry ORDER BY seq").fetchall()
        with pytest.raises(errors.IntegrityConstraintViolation) as refused:
            run(owner, statement, "entry")
        operation = statement.split()[0]
        assert f"the ledger is append-only: {operation} on entry" in str(refused.value)
        assert owner.execute("SELECT * FROM entry ORDER BY seq").fetchall() == before

    def test_may_add_one(self, owner: Connection) -> None:
        run(owner, "INSERT INTO entry SELECT account_id, 99, kind, 1, 1, now(), NULL, NULL, NULL,"
                   " '[]', NULL, NULL, NULL, NULL FROM entry WHERE kind = 'GRANT'")  # fmt: skip


# What is written to a row, and the constraint that must not let it stand.
REFUSED_CHANGES = [
    ("account", "granted_micros = granted_micros + 1", "remaining_is_available_and_held"),
    ("account", "held_micros = held_micros + 1", "remaining_is_available_and_held"),
    ("account", "seq = -1", "not_negative"),
    ("account", "credit_limit_micros = -1", "not_negative"),
    (
        "account",
        "lots_available_micros = -1, held_micros = held_micros + lots_available_micros + 1",
        "not_negative",
    ),
    (
        "account",
        ("held_on_credit_micros = held_micros + 1,"
        " lots_available_micros = lots_available_micros + held_micros + 1"),
        "held",
    ),
    (
        "account",
        "debt_micros = 1, lots_available_micros = lots_available_micros + 1",
        "debt_is_repaid_first",
    ),
    ("lot", "available_micros = -1", "within_granted"),
    ("lot", "held_micros = -1", "within_granted"),
    ("lot", "available_micros = granted_micros - held_micros + 1", "within_granted"),
    ("lot", "live = false", "live"),
    ("lot", "available_micros = 0, held_micros = 0", "live"),
    ("lot", "category = 'GIFT'", "category"),
    ("reservation", "open_micros = open_micros + 1", "nothing_lost"),
    ("reservation", "released_micros = released_micros + 1", "nothing_lost"),
    ("reservation", "from_hold_micros = -1, released_micros = reserved_micros - open_micros + 1",
     "not_negative"),
    ("reservation", "end_time = now()", "ended"),
    ("reservation", "closing = '[{}, {}]'", "closed"),
    ("reservation", "state = 'SETTLED', end_time = now(), from_hold_micros = reserved_micros",
     "closed"),
    ("reservation", "state = 'LOST', end_time = now(), from_hold_micros = reserved_micros",
     "state"),
    ("reservation", "on_expiry = 'BURN'", "on_expiry"),
]  # fmt: skip


@pytest.mark.parametrize(("table", "change", "constraint"), REFUSED_CHANGES)
def test_a_row_that_cannot_be_true_is_refused(
    owner: Connection, table: str, change: str, constraint: str
) -> None:
    which = "WHERE state = 'ACTIVE'" if table == "reservation" else ""
    with pytest.raises(errors.CheckViolation) as refused:
        owner.execute(f"UPDATE {table} SET {change} {which}".encode())
    assert refused.value.diag.constraint_name == f"ck_{table}_{constraint}"


ENTRY = {
    "account_id": "(SELECT account_id FROM account)",
    "seq": "100",
    "kind": "'DEBIT'",
    "amount_micros": "-1",
    "remaining_after_micros": "1",
    "create_time": "now()",
    "parts": "'[]'",
}


@pytest.mark.parametrize(
    ("fields", "constraint"),
    [
        ({"amount_micros": "0"}, "something"),
        ({"seq": "0"}, "something"),
        ({"amount_micros": "1"}, "sign"),
        ({"kind": "'GRANT'"}, "sign"),
        ({"kind": "'REFUND'"}, "sign"),
        ({"kind": "'GIFT'"}, "kind"),
    ],
)
def test_an_entry_that_cannot_be_true_is_refused(
    owner: Connection, fields: dict[str, str], constraint: str
) -> None:
    entry = ENTRY | fields
    names, values = ", ".join(entry), ", ".join(entry.values())
    with pytest.raises(errors.CheckViolation) as refused:
        owner.execute(f"INSERT INTO entry ({names}) VALUES ({values})".encode())
    assert refused.value.diag.constraint_name == f"ck_entry_{constraint}"


@pytest.mark.parametrize("table", [*MUTABLE, *APPEND_ONLY, *COPIES])
def test_a_key_is_there_once(owner: Connection, table: str) -> None:
    with pytest.raises(errors.UniqueViolation):
        run(owner, "INSERT INTO {} SELECT * FROM {}", table, table)


@pytest.mark.parametrize("table", ["claim", "account_claim"])
def test_a_claim_of_an_unknown_kind_is_refused(owner: Connection, table: str) -> None:
    rows = owner.execute(f"SELECT * FROM {table} LIMIT 1".encode())
    names = [column.name for column in rows.description or ()]
    fields = ", ".join("'GIFT'" if name == "kind" else name for name in names)
    with pytest.raises(errors.CheckViolation):
        owner.execute(f"INSERT INTO {table} SELECT {fields} FROM {table} LIMIT 1".encode())


def test_all_rows_of_this_test_are_of_one_account(owner: Connection) -> None:
    """What the tests above rest on."""
    assert owner.execute("SELECT account FROM account").fetchall() == [(ALICE.account,)]
    for table in (*MUTABLE, *APPEND_ONLY, *COPIES):
        assert run(owner, "SELECT * FROM {}", table) > 0
