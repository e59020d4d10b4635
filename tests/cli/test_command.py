"""The command `meterhold-server`: what it prints, and its exit codes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import NamedTuple, Protocol

import psycopg
import pytest

import meterhold
from meterhold_server import cli
from meterhold_server.storage.tables import REVISION
from support.database import DatabaseServer, name_of
from support.service import service

USED_ACCOUNT = "alice"


class Done(NamedTuple):
    """What a shell sees of a command that has ended."""

    code: int
    out: str
    err: str


class Run(Protocol):
    def __call__(
        self, *arguments: str, database_url: str | None = None, **environment: str
    ) -> Done: ...


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command in this process, which takes a tenth of the time of one of its own."""
    # The logs of this process belong to pytest.
    monkeypatch.setattr(cli, "configure_logs", lambda *_: None)

    def run(*arguments: str, database_url: str | None = None, **environment: str) -> Done:
        with monkeypatch.context() as patch:
            for name in list(os.environ):
                if name.startswith("METERHOLD_"):
                    patch.delenv(name)
            for name, value in _settings(database_url, environment).items():
                patch.setenv(name, value)
            capsys.readouterr()
            try:
                code = cli.main(arguments)
            except SystemExit as end:
                code = int(end.code or 0)
        return Done(code, *capsys.readouterr())

    return run


@pytest.fixture(scope="module")
def run_apart() -> Run:
    """Runs it as a shell does, in a process of its own."""

    def run(*arguments: str, database_url: str | None = None, **environment: str) -> Done:
        inherited = {key: value for key, value in os.environ.items() if "METERHOLD" not in key}
        done = subprocess.run(
            [sys.executable, "-m", "meterhold_server", *arguments],
            env=inherited | _settings(database_url, environment),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    return run


def _settings(database_url: str | None, others: dict[str, str]) -> dict[str, str]:
    own = {"METERHOLD_ALLOW_UNSAFE_DATABASE": "true"} | others
    return own if database_url is None else own | {"METERHOLD_DATABASE_URL": database_url}


@pytest.fixture
def empty_url(database_server: DatabaseServer) -> Iterator[str]:
    """A database without any schema."""
    url = database_server.create_database()
    yield url
    database_server.drop_database(name_of(url))


@pytest.fixture
async def used_url(database_url: str) -> str:
    """A database with an account that has done something of each kind."""
    async with service(database_url) as address, meterhold.AsyncClient(address) as client:
        await client.grant_once(USED_ACCOUNT, 500, idempotency_key="gift")
        await client.reserve(USED_ACCOUNT, 200, reservation_id="job")
        await client.settle(USED_ACCOUNT, 150, reservation_id="job")
        await client.reserve(USED_ACCOUNT, 75, reservation_id="running")
        await client.debit_once(USED_ACCOUNT, 10, idempotency_key="fee")
    return database_url


def test_migrate_brings_an_empty_database_up_and_back(run: Run, empty_url: str) -> None:
    done = run("migrate", database_url=empty_url)
    assert (done.code, done.out) == (0, f"The schema is at revision {REVISION}.\n")
    assert run("verify", database_url=empty_url).code == 0
    assert run("migrate", database_url=empty_url).code == 0, "again is no error"
    done = run("migrate", "--down", "--revision", "base", database_url=empty_url)
    assert done.code == 0
    assert run("verify", database_url=empty_url).code == 1


@pytest.mark.slow
def test_a_database_that_is_not_migrated_is_not_served(run_apart: Run, empty_url: str) -> None:
    done = run_apart("serve", database_url=empty_url)
    assert (done.code, done.out) == (1, "")
    assert "meterhold-server serve: The database is refused: it is not migrated" in done.err
    assert "run `meterhold-server migrate`" in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize("command", ["sweep", "verify"])
def test_a_database_that_is_not_migrated_is_refused(run: Run, empty_url: str, command: str) -> None:
    done = run(command, database_url=empty_url)
    assert (done.code, done.out) == (1, "")
    assert f"meterhold-server {command}: The database is refused: it is not migrated" in done.err
    assert "run `meterhold-server migrate`" in done.err
    assert "Traceback" not in done.err


def test_a_database_that_could_lose_commits_is_refused(
    run: Run, database_url: str, database_server: DatabaseServer
) -> None:
    if not database_server.is_embedded:
        pytest.skip("only the embedded one is known to be unsafe")
    done = run("sweep", database_url=database_url, METERHOLD_ALLOW_UNSAFE_DATABASE="false")
    assert done.code == 1
    assert "fsync is off" in done.err


def test_a_database_that_is_away_is_an_error_and_no_traceback(run: Run) -> None:
    done = run("serve", database_url="postgresql://nobody:swordfish@127.0.0.1:1/none")
    assert done.code == 1
    assert "meterhold-server serve: " in done.err
    assert "Traceback" not in done.err
    assert "swordfish" not in done.err


def test_verify_says_that_all_is_well(run: Run, used_url: str) -> None:
    done = run("verify", database_url=used_url)
    assert (done.code, done.out) == (
        0,
        "1 accounts, 3 entries: every invariant holds\n",
    )


@pytest.mark.parametrize(
    ("corruption", "told"),
    [
        (
            "UPDATE reservation SET captured_micros = captured_micros + 1 WHERE state = 'SETTLED'",
            "reservation 'job' charged 151",
        ),
        (
            "UPDATE account SET granted_micros = 501, lots_available_micros = 266",
            "remaining 341",
        ),
        ("UPDATE lot SET available_micros = available_micros - 1", "sum of lots 264"),
        ("DELETE FROM lot", "entries say 340 of lot 1, which does not exist"),
    ],
    ids=["reservation", "account", "lot", "no_lot"],
)
def test_verify_finds_what_was_tampered_with(
    run: Run, used_url: str, corruption: str, told: str
) -> None:
    with psycopg.connect(used_url) as connection:
        connection.execute(corruption.encode())
    done = run("verify", database_url=used_url)
    assert done.code == 1
    *violations, verdict = done.out.splitlines()
    assert verdict == f"1 accounts, 3 entries: {len(violations)} differences"
    assert any(told in violation for violation in violations), done.out
    assert all("account 'alice' (credits): " in violation for violation in violations)


OTHER = "UPDATE account SET spent_micros = spent_micros + 1, granted_micros = granted_micros + 1"


def test_verify_looks_at_one_account(run: Run, used_url: str) -> None:
    with psycopg.connect(used_url) as connection:
        connection.execute(OTHER.encode())
    assert run("verify", "--account", USED_ACCOUNT, database_url=used_url).code == 1
    for other in (
        ("--account", "bob"),
        ("--account", USED_ACCOUNT, "--unit", "minutes"),
        ("--account", USED_ACCOUNT, "--namespace", "other"),
    ):
        done = run("verify", *other, database_url=used_url)
        assert (done.code, done.out) == (0, "0 accounts, 0 entries: every invariant holds\n")


def test_repair_sets_right_what_differs_and_says_what_it_did(run: Run, used_url: str) -> None:
    with psycopg.connect(used_url) as connection:
        connection.execute(OTHER.encode())
        connection.execute("ALTER TABLE entry DISABLE TRIGGER ALL")
        connection.execute("DELETE FROM entry WHERE seq = 3")
        connection.execute(
            "INSERT INTO claim SELECT namespace, 'DEBIT_ONCE', 'lost', account_id, 9, '{}', '{}',"
            " now() FROM account"
        )
    done = run("verify", "--repair", database_url=used_url)
    assert done.code == 0, done
    *lines, verdict = done.out.splitlines()
    assert "account 'alice' (credits): seq 3 ≠ number of entries 2" in lines
    assert lines[-3:] == [
        "account 'alice' (credits): rebuilt",
        "  entry 3: a correction of -10, entry 3 was missing",
        "  entry 4: a correction of 0, a key named an entry that does not exist, and was deleted",
    ]
    assert verdict == "1 accounts, 4 entries: every invariant holds"
    assert run("verify", database_url=used_url).code == 0


def test_repair_removes_wrong_sums_of_charges(run: Run, used_url: str) -> None:
    with psycopg.connect(used_url) as connection:
        connection.execute(
            "INSERT INTO charge_block SELECT account_id, 1, 2, now(), now(), '{}', '{}'"
            " FROM account"
        )
    done = run("verify", "--repair", database_url=used_url)
    assert (done.code, done.out.splitlines()) == (
        0,
        [
            "account 'alice' (credits): the summary of entries 1 to 2 is not that of their charges",
            "1 accounts, 3 entries: 1 differences",
            "account 'alice' (credits): rebuilt",
            "1 accounts, 3 entries: every invariant holds",
        ],
    )


def test_repair_leaves_what_needs_a_person(run: Run, used_url: str) -> None:
    """Credits of a lot whose row and entry are both gone."""
    with psycopg.connect(used_url) as connection:
        connection.execute(
            "ALTER TABLE entry DISABLE TRIGGER USER;"
            "DELETE FROM lot; DELETE FROM entry WHERE seq = 1;"
            "ALTER TABLE entry ENABLE TRIGGER USER"
        )
    done = run("verify", "--repair", database_url=used_url)
    assert done.code == 1
    left = "account 'alice' (credits): reservations hold 75 in lot 1, which does not exist"
    assert left in done.out.splitlines()


def test_on_a_terminal_verify_tells_how_far_it_is(
    run: Run, used_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("verify", database_url=used_url).err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    shown = run("verify", database_url=used_url).err
    assert re.search(r"\r\[#{20} {20}\]  \d\d %", shown)
    assert shown.endswith("\r\033[K")


def test_sweep_once_expires_what_is_due_and_reports(run: Run, used_url: str) -> None:
    with psycopg.connect(used_url) as connection:
        connection.execute(
            "UPDATE reservation SET expire_time = now() - interval '1 hour'"
            " WHERE reservation_id = 'running'"
        )
        connection.execute("UPDATE account SET next_expire_time = now() - interval '1 hour'")
    done = run("sweep", "--once", database_url=used_url)
    assert done.code == 0
    swept = dict(pair.split("=") for pair in done.out.split())
    assert (swept["accounts"], swept["holds_released"], swept["lots_expired"]) == ("1", "1", "0")
    assert float(swept["lag_seconds"]) >= 3600
    done = run("sweep", "--once", database_url=used_url)
    assert done.out.startswith("accounts=0 ")
    assert run("verify", database_url=used_url).code == 0


def test_without_a_command_it_lists_them(run: Run) -> None:
    done = run()
    assert (done.code, done.err) == (0, "")
    for command in ("serve", "sweep", "migrate", "verify"):
        assert re.search(rf"^  {command} +[A-Z]", done.out, re.MULTILINE)
    assert "worker" not in done.out


def test_an_unknown_command_is_a_wrong_call(run: Run) -> None:
    done = run("conjure")
    assert (done.code, done.out) == (2, "")
    assert "there is no command 'conjure'" in done.err


def test_version(run: Run) -> None:
    done = run("--version")
    assert done.code == 0
    assert re.fullmatch(r"meterhold-server \d+\.\d+\.\d+\n", done.out)


@pytest.mark.parametrize(
    ("arguments", "environment", "told"),
    [
        (["serve", "--workers", "0"], {}, "workers: "),
        (["serve"], {"METERHOLD_TTL_MAX_SECONDS": "soon"}, "ttl_max_seconds: "),
        (["serve", "--ttl-default-seconds", "9", "--ttl-max-seconds", "8"], {}, "ttl_max_seconds"),
        (["serve", "--address", "0.0.0.0:1"], {}, "allow_plaintext"),
        (["serve", "--address", "nonsense"], {}, "'nonsense' is not host:port"),
        (["serve", "--tls-certificate", "c.pem"], {}, "tls_private_key"),
        (["serve", "--log-calls", "some"], {}, "log_calls: "),
        (["verify"], {"METERHOLD_LOG_LEVEL": "loud"}, "log_level: "),
        (["verify", "--unit", "minutes"], {}, "give account too"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else None,
)
def test_a_wrong_setting_is_named(
    run: Run, arguments: list[str], environment: dict[str, str], told: str
) -> None:
    done = run(*arguments, **environment)
    assert (done.code, done.out) == (2, "")
    assert told in done.err
    assert "Traceback" not in done.err


def test_an_unknown_option_is_a_wrong_call(run: Run) -> None:
    done = run("serve", "--wrokers", "2")
    assert done.code == 2
    assert "--wrokers" in done.err


def test_print_config_shows_the_settings_but_no_secrets(run: Run) -> None:
    done = run(
        *("serve", "--print-config", "--workers", "3"),
        database_url="postgresql://meter:swordfish@db.example/meterhold",
        METERHOLD_SETTLE_GRACE_SECONDS="77",
    )
    assert (done.code, done.err) == (0, "")
    settings = dict(line.split("=", 1) for line in done.out.splitlines())
    assert settings["METERHOLD_WORKERS"] == "3"
    assert settings["METERHOLD_SETTLE_GRACE_SECONDS"] == "77"
    assert settings["METERHOLD_ADDRESS"] == "127.0.0.1:7717"
    assert settings["METERHOLD_DATABASE_URL"]
    assert "swordfish" not in done.out
