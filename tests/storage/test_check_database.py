"""Which databases are refused, and that the refusal names every reason at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from meterhold_server.embedded import EmbeddedPostgres
from meterhold_server.storage import migrate
from meterhold_server.storage.connection import DatabaseError, check_database
from meterhold_server.storage.tables import REVISION
from meterhold_server.storage.verify import verify
from support.database import DatabaseServer, name_of, open_folder


@pytest.fixture
def empty_url(database_server: DatabaseServer) -> Iterator[str]:
    url = database_server.create_database()
    yield url
    database_server.drop_database(name_of(url))


@pytest.fixture
def embedded(database_server: DatabaseServer) -> None:
    if not database_server.is_embedded:
        pytest.skip("only the embedded server has the settings, and the trust, of this test")


def alter(url: str, statement: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement.replace("DATABASE", f"DATABASE {name_of(url)}").encode())


def refusal(url: str, *, allow_unsafe: bool = False) -> str:
    with pytest.raises(DatabaseError) as refused:
        check_database(url, allow_unsafe=allow_unsafe)
    return str(refused.value)


def test_every_reason_is_told_at_once(embedded: None, empty_url: str) -> None:
    alter(empty_url, "ALTER DATABASE SET default_transaction_read_only = on")
    assert refusal(empty_url) == (
        "The database is refused: it is read-only: default_transaction_read_only is on;"
        f" it is not migrated and {REVISION} is needed: run `meterhold-server migrate`;"
        " fsync is off: a crash would lose or corrupt what was acknowledged;"
        " full_page_writes is off: a crash would lose or corrupt what was acknowledged;"
        " synchronous_commit is off, below on: a crash would lose what was acknowledged."
    )


def test_unsafe_settings_can_be_allowed_for_tests(embedded: None, database_url: str) -> None:
    check_database(database_url, allow_unsafe=True)


def test_a_pooler_that_lends_for_a_transaction(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both connections then have the same process of the database."""
    with psycopg.connect(database_url, autocommit=True) as lent:
        monkeypatch.setattr(psycopg, "connect", lambda *_, **__: nullcontext(lent))
        assert "set pool_mode = session" in refusal(database_url, allow_unsafe=True)


@pytest.mark.slow
def test_a_durable_and_migrated_one_is_accepted() -> None:
    with DatabaseServer(durable=True) as server:
        url = server.create_database()
        assert "not migrated" in refusal(url)
        migrate.upgrade(url)
        check_database(url)


@pytest.mark.parametrize("level", ["off", "local", "remote_write"])
def test_a_commit_must_be_durable_before_it_is_answered(database_url: str, level: str) -> None:
    alter(database_url, f"ALTER DATABASE SET synchronous_commit = {level}")
    assert f"synchronous_commit is {level}, below on" in refusal(database_url)


@pytest.mark.parametrize("level", ["on", "remote_apply"])
def test_a_commit_that_is_durable_is_enough(embedded: None, database_url: str, level: str) -> None:
    alter(database_url, f"ALTER DATABASE SET synchronous_commit = {level}")
    assert "synchronous_commit" not in refusal(database_url)


@pytest.mark.parametrize("allow_unsafe", [False, True])
def test_the_schema_must_be_one_that_the_code_knows(database_url: str, allow_unsafe: bool) -> None:
    alter(database_url, "UPDATE alembic_version SET version_num = '0001'")
    refused = refusal(database_url, allow_unsafe=allow_unsafe)
    assert f"at migration 0001 and {REVISION} is needed" in refused
    assert "meterhold-server migrate" in refused


class TestANewerSchema:
    """One that a later version has migrated, as in the middle of an upgrade."""

    @pytest.fixture(autouse=True)
    def newer(self, database_url: str) -> None:
        alter(database_url, "UPDATE alembic_version SET version_num = '9999'")

    def test_that_serves_this_version(self, database_url: str) -> None:
        check_database(database_url, allow_unsafe=True)

    @pytest.mark.parametrize("allow_unsafe", [False, True])
    def test_that_no_longer_does(self, database_url: str, allow_unsafe: bool) -> None:
        alter(database_url, "UPDATE schema_window SET oldest_served_revision = '9998'")
        assert (
            "it is at migration 9999, which serves servers of 9998 and later, and this one is of"
            f" {REVISION}: start a newer version of Meterhold"
        ) in refusal(database_url, allow_unsafe=allow_unsafe)

    def test_that_does_not_say_whom_it_serves(self, database_url: str) -> None:
        alter(database_url, "DELETE FROM schema_window")
        assert "start a newer version of Meterhold" in refusal(database_url, allow_unsafe=True)


def test_a_read_only_one_is_refused_whatever_is_allowed(database_url: str) -> None:
    alter(database_url, "ALTER DATABASE SET default_transaction_read_only = on")
    assert "it is read-only" in refusal(database_url, allow_unsafe=True)


class TestAnotherUser:
    @pytest.fixture
    def stranger_url(self, embedded: None, database_url: str) -> Iterator[str]:
        alter(database_url, "CREATE ROLE stranger LOGIN")
        yield make_conninfo(database_url, user="stranger")
        alter(database_url, "DROP ROLE stranger")

    def test_must_be_able_to_act_as_the_application(self, stranger_url: str) -> None:
        assert "GRANT meterhold_app TO the user" in refusal(stranger_url, allow_unsafe=True)

    def test_who_is_needs_no_more(self, database_url: str, stranger_url: str) -> None:
        alter(database_url, "GRANT meterhold_app TO stranger")
        check_database(stranger_url, allow_unsafe=True)


def test_a_server_that_is_away_is_an_error_of_its_own() -> None:
    with pytest.raises(psycopg.OperationalError):
        check_database("postgresql://postgres@127.0.0.1:1/none", allow_unsafe=True)


def test_a_read_only_one_will_do_for_those_who_only_read(database_url: str) -> None:
    alter(database_url, "ALTER DATABASE SET default_transaction_read_only = on")
    check_database(database_url, writes=False)
    assert verify(database_url).clean


@pytest.mark.slow
def test_a_standby_is_refused_but_for_those_who_only_read() -> None:
    with open_folder() as folder:
        with EmbeddedPostgres.start(folder / "postgres") as primary:
            migrate.upgrade(primary.url)
        (folder / "postgres" / "data" / "standby.signal").touch()
        with EmbeddedPostgres.start(folder / "postgres") as standby:
            assert refusal(standby.url) == (
                "The database is refused: it is a standby: give the URL of the primary."
            )
            check_database(standby.url, writes=False)
            assert verify(standby.url).clean
