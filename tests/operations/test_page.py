"""docs/operations.md says what is true: its lists are those of the code, and its queries run."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

import meterhold
from meterhold_server.storage import tables
from support.database import DatabaseServer
from support.service import service

from .page import COMMANDS, PAGE, QUERIES, has_programs, run_block

ROOT = Path(__file__).parents[2]
SERVER = ROOT / "server" / "meterhold_server"
LEVELS = {"debug", "info", "warning", "error", "exception"}


def test_the_events_are_those_of_the_code() -> None:
    documented = re.findall(r"^\| `(\w+)` \| ([a-z, ]+) \|", PAGE, re.MULTILINE)
    assert {event: set(levels.split(", ")) for event, levels in documented} == logged()


def logged() -> dict[str, set[str]]:
    """Every event that the server logs, and its levels."""
    # Handed on as the libraries rate it, from a warning on.
    found: dict[str, set[str]] = defaultdict(set, library={"warning", "error"})
    trees = [ast.parse(file.read_text()) for file in SERVER.rglob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    of_workers = [
        str(ast.literal_eval(node.value))
        for node in nodes
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "failed_event"
    ]
    for node in nodes:
        if not isinstance(node, ast.Call) or not ast.unparse(node.func).startswith("_log."):
            continue
        method = ast.unparse(node.func).removeprefix("_log.")
        assert method in LEVELS, f"what level has {ast.unparse(node)}?"
        event = node.args[0]
        names = of_workers if is_of_worker(event) else [str(ast.literal_eval(event))]
        for name in names:
            found[name].add("error" if method == "exception" else method)
    return dict(found)


def is_of_worker(event: ast.expr) -> bool:
    """Whether each worker has a name of its own for it."""
    return ast.unparse(event) == "self.failed_event"


def test_the_flags_that_it_names_exist() -> None:
    known = ""
    for command in ("serve", "migrate", "verify", "sweep"):
        asked = [sys.executable, "-m", "meterhold_server", command, "--help"]
        known += subprocess.run(asked, capture_output=True, text=True, check=True).stdout
    ours = re.findall(r"`(?:serve )?(--[a-z-]+)`|meterhold-server migrate (--[a-z-]+)", PAGE)
    assert len(ours) > 5
    for flag in ours:
        assert (flag[0] or flag[1]) in known


@pytest.mark.parametrize("target", re.findall(r"\]\(([^)]*)\)", PAGE))
def test_what_it_links_to_exists(target: str) -> None:
    file, _, heading = target.partition("#")
    path = (ROOT / "docs" / file).resolve() if file else ROOT / "docs" / "operations.md"
    assert path.exists()
    if heading:
        headings = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
        assert heading in {re.sub(r"[^a-z0-9 -]", "", each.lower()).replace(" ", "-")
                           for each in headings}  # fmt: skip


def test_every_command_is_run_by_a_test() -> None:
    tests = "".join(file.read_text() for file in Path(__file__).parent.glob("test_*.py"))
    assert PAGE.count("```sh\n") == len(COMMANDS) > 5
    for name in COMMANDS:
        assert f'"{name}"' in tests


class TestTheQueries:
    @pytest.fixture
    async def url(self, database_server: DatabaseServer, database_url: str) -> str:
        """A database with an account that is due, and that no sweeper comes to."""
        if not database_server.is_embedded or not has_programs("psql"):
            pytest.skip("only the embedded server lets this test make a user")
        async with (
            service(database_url, sweep=False) as address,
            meterhold.AsyncClient(address) as client,
        ):
            await client.grant_once("alice", 100, idempotency_key="gift")
        with psycopg.connect(database_url) as owner:
            owner.execute("SET meterhold.maintenance = 'on'")
            owner.execute("UPDATE account SET next_expire_time = now() - interval '1 hour'")
        return database_url

    @pytest.fixture
    def watcher(self, url: str, tmp_path: Path) -> Iterator[psycopg.Connection[Any]]:
        """Connected as the user whom the page makes."""
        run_block("a user who watches", tmp_path, METERHOLD_DATABASE_URL=url)
        try:
            with psycopg.connect(make_conninfo(url, user="meterhold_watch")) as connection:
                yield connection
        finally:
            with psycopg.connect(url, autocommit=True) as owner:
                owner.execute("DROP ROLE meterhold_watch")

    def test_run(self, watcher: psycopg.Connection[Any]) -> None:
        answers = [watcher.execute(query.encode()).fetchall() for query in QUERIES]
        assert len(answers) > 5
        due = next(query for query in QUERIES if "accounts_due" in query)
        [(accounts, late_by)] = watcher.execute(due.encode()).fetchall()
        assert (accounts, late_by.total_seconds() // 3600) == (1, 1)
        sizes = next(query for query in QUERIES if "n_dead_tup" in query)
        measured = {name for name, *_ in watcher.execute(sizes.encode()).fetchall()}
        assert measured == {*tables.metadata.tables, "alembic_version"}

    def test_see_the_entries_of_all(self, watcher: psycopg.Connection[Any]) -> None:
        newest = next(query for query in QUERIES if "newest_entry" in query)
        [(time, _)] = watcher.execute(newest.encode()).fetchall()
        assert time is not None

    def test_change_nothing(self, watcher: psycopg.Connection[Any]) -> None:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            watcher.execute("UPDATE account SET frozen = true")
