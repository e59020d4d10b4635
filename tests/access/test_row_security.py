"""The second fence: what the database shows to reads for a caller, should the code be wrong."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator

import psycopg
import pytest

import meterhold
from meterhold_server.batching.reader import Reader
from meterhold_server.core.model import AccountKey, account_id_of
from meterhold_server.storage import tables
from meterhold_server.storage.connection import connect_owner, connect_reader_for_callers, within
from meterhold_server.storage.exchange import Connection
from meterhold_server.storage.pages import page_of_accounts, read_account
from support.keys import make_key
from support.service import service

FENCED = sorted(tables.metadata.tables.keys() - {"credential", "schema_window"})
"""Credentials are looked up before it is known whose they are, and not by the reader; the window of
the schema has nothing of callers."""

NAMESPACES = ("acme", "globex")


_SUMMED_UP = """
INSERT INTO charge_block (account_id, first_seq, entry_count, first_time, last_time)
SELECT account_id, 1, 1, now(), now() FROM account;
INSERT INTO charge_summary
SELECT account_id, 1, 1, '', 1, '', now(), '', '', 1, 1 FROM account
"""
"""What a worker writes of accounts that are far larger."""


@pytest.fixture
async def url(database_url: str) -> str:
    """A database in which two tenants have a row in every table."""
    async with service(database_url, auth="keys") as address:
        for namespace in NAMESPACES:
            key = make_key(database_url, namespace).text
            async with meterhold.AsyncClient(address, api_key=key) as client:
                await _fill(client)
    with psycopg.connect(database_url) as owner:
        owner.execute(_SUMMED_UP)
    return database_url


async def _fill(client: meterhold.AsyncClient) -> None:
    await client.grant_once("alice", 100, idempotency_key="gift")
    await client.reserve("alice", 10, reservation_id="job")
    debit = await client.debit("alice", 5, request_id="request")
    await client.refund_charge("alice", 1, entry_seq=debit.entry.seq, idempotency_key="back")
    later = debit.entry.create_time.replace(year=2200)
    await client.grant_once("alice", 5, idempotency_key="later", effective_time=later)
    await client.revoke_grant("early", amount_micros=1, allow_tombstone=True)
    daily = meterhold.Allowance(amount_micros=5, period=meterhold.AllowancePeriod.DAILY)
    await client.configure_account("alice", allowance=daily)
    await client.configure_defaults(allowance=daily)


def seen(connection: Connection, table: str) -> int:
    row = connection.execute(f"SELECT count(*) FROM {table}".encode()).fetchone()
    assert row is not None
    return int(row[0])


@pytest.fixture
def reader(url: str) -> Iterator[Connection]:
    with connect_reader_for_callers(url) as connection:
        yield connection


@pytest.mark.parametrize("table", FENCED)
def test_every_table_has_the_fence(database_url: str, table: str) -> None:
    """A new table has to have it, too: see the migration row_level_security."""
    with psycopg.connect(database_url) as connection:
        fences = connection.execute(
            "SELECT relrowsecurity, relforcerowsecurity FROM pg_class WHERE oid = %s::regclass",
            (table,),
        ).fetchall()
        policies = connection.execute(
            "SELECT policyname FROM pg_policies WHERE tablename = %s ORDER BY 1", (table,)
        ).fetchall()
    assert fences == [(True, True)]
    assert policies == [("of_all",), ("of_caller",), ("of_owner",)]


async def test_without_a_namespace_nothing_is_seen(reader: Connection) -> None:
    assert {table: seen(reader, table) for table in FENCED} == dict.fromkeys(FENCED, 0)


async def test_of_two_namespaces_one_is_seen(reader: Connection, url: str) -> None:
    with psycopg.connect(url) as owner:
        everything = {
            table: len(owner.execute(f"SELECT FROM {table}".encode()).fetchall())
            for table in FENCED
        }
    for namespace in NAMESPACES:
        shown = {table: within(reader, namespace, seen, table) for table in FENCED}
        assert shown == {table: count / 2 for table, count in everything.items()}
        assert all(shown.values())
    assert within(reader, "nobody", seen, "account") == 0


async def test_the_reader_has_no_other_rights(reader: Connection) -> None:
    for statement in (
        "SELECT FROM credential",
        "INSERT INTO audit_record SELECT * FROM audit_record",
        "UPDATE account SET frozen = true",
        "DELETE FROM lot",
    ):
        with pytest.raises(
            (psycopg.errors.InsufficientPrivilege, psycopg.errors.ReadOnlySqlTransaction)
        ):
            reader.execute(statement.encode())


@pytest.fixture
async def reads(url: str) -> AsyncIterator[Reader]:
    reads = Reader(url, connect=connect_reader_for_callers)
    yield reads
    await reads.close()


async def test_a_read_with_a_wrong_name_in_it_finds_nothing(reads: Reader) -> None:
    """As if the code had mixed up the namespaces of two callers."""
    theirs = account_id_of(AccountKey("globex", "alice", "credits"))
    assert await reads.within("globex").run(read_account, theirs) is not None
    assert await reads.within("acme").run(read_account, theirs) is None
    found = await reads.within("acme").run(
        page_of_accounts, "globex", account_prefix="", after=None, limit=10
    )
    assert found == []


async def test_callers_who_share_connections_do_not_share_what_they_see(reads: Reader) -> None:
    async def own(namespace: str) -> None:
        account_id = account_id_of(AccountKey(namespace, "alice", "credits"))
        read = await reads.within(namespace).run(read_account, account_id)
        assert read is not None
        assert read.account.key.namespace == namespace

    await asyncio.gather(*(own(namespace) for namespace in NAMESPACES * 50))


async def test_the_owner_has_to_say_that_it_is_maintenance(url: str) -> None:
    """An owner who is no superuser, as most are where PostgreSQL is a service."""
    role = f"test_owner_{secrets.token_hex(4)}"
    with psycopg.connect(url, autocommit=True) as superuser:
        superuser.execute(f"CREATE ROLE {role}".encode())
        superuser.execute(f"ALTER TABLE account OWNER TO {role}".encode())
        try:
            superuser.execute(f"SET ROLE {role}".encode())
            assert superuser.execute("SELECT FROM account").fetchall() == []
            superuser.execute("SET meterhold.maintenance = 'on'")
            assert len(superuser.execute("SELECT FROM account").fetchall()) == len(NAMESPACES)
        finally:
            superuser.execute("RESET ROLE")
            superuser.execute("ALTER TABLE account OWNER TO CURRENT_USER")
            superuser.execute(f"DROP ROLE {role}".encode())
    with connect_owner(url) as owner:
        assert owner.execute("SHOW meterhold.maintenance").fetchone() == ("on",)
