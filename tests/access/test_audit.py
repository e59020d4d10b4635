"""Who did what: every change that somebody answers for has its record, in the same transaction."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

import meterhold
from cli.test_command import Run, run
from core.book import ALICE, Book, debit, debit_once, grant, reserve, settle
from meterhold_server.core.operations import (
    Chain,
    Configure,
    RefundCharge,
    ReinstateGrant,
    RevokeGrant,
)
from meterhold_server.core.outcomes import Rejected
from meterhold_server.storage.tables import APPLICATION_ROLE
from support.engines import Observer
from support.keys import make_key, revoke
from support.service import service

__all__ = ["run"]


@pytest.fixture
def observer(database_url: str) -> Iterator[Observer]:
    observer = Observer(database_url)
    yield observer
    observer.close()


def told(book: Book) -> list[tuple[str, str, str]]:
    """The records of the last operations: action, actor and subject."""
    return [(record.action, record.actor, record.subject) for record in book.written.audit]


class TestWhatIsTold:
    def test_a_grant_and_not_its_replay(self) -> None:
        book = Book()
        book.do(grant("gift", 10, actor="key-1"))
        assert told(book) == [("GrantOnce", "key-1", "gift")]
        (record,) = book.written.audit
        assert (record.account, record.unit, record.namespace) == (
            ALICE.account,
            ALICE.unit,
            ALICE.namespace,
        )
        assert record.details == {"amount_micros": 10}
        assert record.create_time == book.now
        book.do_all([debit(1), grant("gift", 10, actor="key-2")])
        assert told(book) == []

    def test_revocations_refunds_and_settings(self) -> None:
        book = Book()
        book.do(grant("gift", 10))
        book.do(debit(4))
        book.do(RefundCharge(ALICE, "back", 2, 1, actor="a", reason="goodwill"))
        assert told(book) == [("RefundCharge", "a", "back")]
        assert book.written.audit[0].details == {
            "charge_seq": 2,
            "refunded_micros": 1,
            "reason": "goodwill",
        }
        book.do(RevokeGrant(ALICE, "gift", amount_micros=3, actor="b"))
        assert told(book) == [("RevokeGrant", "b", "gift")]
        book.do(RevokeGrant(ALICE, "gift", amount_micros=3, actor="b"))
        assert told(book) == [], "it took nothing"
        book.do(ReinstateGrant(ALICE, "gift", actor="c"))
        assert told(book) == [("ReinstateGrant", "c", "gift")]
        book.do(Configure(ALICE, frozen=True, actor="d"))
        assert told(book) == [("Configure", "d", "")]
        assert book.written.audit[0].details == {"frozen": True}

    def test_holds_and_charges_are_not_told(self) -> None:
        book = Book()
        book.do(grant("gift", 100))
        for operation in (reserve("job", 10), settle("job", 5), debit(1), debit_once("fee", 1)):
            book.do(operation)
            assert told(book) == []

    def test_what_is_refused_is_not_told(self) -> None:
        book = Book()
        assert isinstance(book.do(RevokeGrant(ALICE, "none", amount_micros=1)), Rejected)
        assert told(book) == []

    def test_a_chain_is_told_operation_by_operation_or_not_at_all(self) -> None:
        book = Book()
        gift, toy = grant("gift", 5, actor="a"), grant("toy", 5, actor="a")
        book.do(Chain((gift, debit_once("fee", 50))))
        assert told(book) == []
        book.do(Chain((gift, toy)))
        assert told(book) == [("GrantOnce", "a", "gift"), ("GrantOnce", "a", "toy")]


async def test_the_log_names_the_key_that_was_used(
    database_url: str, observer: Observer, run: Run
) -> None:
    key = make_key(database_url)
    async with (
        service(database_url, auth="keys") as address,
        meterhold.AsyncClient(address, api_key=key.text) as client,
    ):
        await client.grant_once("alice", 100, idempotency_key="gift", reason="welcome")
        await client.debit("alice", 10)
        await client.configure_account("alice", credit_limit_micros=5)
    revoke(database_url, key.credential_id)
    found = records(run, database_url)
    assert [(each["action"], each["actor"], each["subject"]) for each in found] == [
        ("RevokeCredential", "a test", key.credential_id),
        ("Configure", key.credential_id, ""),
        ("GrantOnce", key.credential_id, "gift"),
        ("CreateCredential", "a test", key.credential_id),
    ]
    assert found[2]["details"] == {"amount_micros": 100, "reason": "welcome"}
    # In the transaction of what it tells of.
    assert observer.one(
        "SELECT e.xmin = a.xmin FROM entry e, audit_record a"
        " WHERE e.kind = 'GRANT' AND a.action = 'GrantOnce'"
    )


async def test_commands_are_told_as_those_of_their_user(run: Run, database_url: str) -> None:
    run("keys", "create", "--name", "x", database_url=database_url)
    (record,) = records(run, database_url)
    assert record["actor"].startswith("command:")


def test_the_newest_come_first_page_by_page(
    run: Run, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("meterhold_server.auditing._PAGE_SIZE", 2)
    keys = [make_key(database_url).credential_id for _ in range(5)]
    assert [each["subject"] for each in records(run, database_url)] == keys[::-1]
    assert [each["subject"] for each in records(run, database_url, "--limit", "3")] == [
        *keys[:1:-1]
    ]
    assert records(run, database_url, "--namespace", "other") == []


@pytest.mark.parametrize("role", [APPLICATION_ROLE, None], ids=["application", "owner"])
@pytest.mark.parametrize(
    "statement",
    ["UPDATE audit_record SET actor = ''", "DELETE FROM audit_record", "TRUNCATE audit_record"],
)
def test_nobody_changes_the_log(database_url: str, role: str | None, statement: str) -> None:
    make_key(database_url)
    with psycopg.connect(database_url, autocommit=True) as connection:
        if role:
            connection.execute(f"SET ROLE {role}".encode())
        with pytest.raises((psycopg.errors.InsufficientPrivilege, psycopg.errors.IntegrityError)):
            connection.execute(statement.encode())


@pytest.mark.parametrize("column", ["namespace", "scopes", "secret_hash", "create_time"])
def test_the_application_cannot_change_what_a_credential_may_do(
    database_url: str, column: str
) -> None:
    make_key(database_url)
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(f"SET ROLE {APPLICATION_ROLE}".encode())
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(f"UPDATE credential SET {column} = {column}".encode())
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("DELETE FROM credential")


def records(run: Run, database_url: str, *arguments: str) -> list[dict[str, Any]]:
    done = run("audit", *arguments, database_url=database_url)
    assert done.code == 0
    return [json.loads(line) for line in done.out.splitlines()]
