"""`meterhold keys`: credentials made, listed and revoked by those who may."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import fields

import grpc
import pytest

import meterhold
from client.scripted_server import Abort, ScriptedServer
from client_cli.conftest import Run
from meterhold_server.core.credentials import Scope, parse_api_key
from support.keys import make_certificate, make_key
from support.service import service


@pytest.fixture
async def address(database_url: str) -> AsyncIterator[str]:
    async with service(database_url, auth="keys") as served:
        yield served


async def test_a_key_is_made_used_listed_and_revoked(
    run: Run, database_url: str, address: str
) -> None:
    admin = make_key(database_url, "acme", Scope.ADMIN, Scope.READ).text
    made = await run(
        *("keys", "create", "--name", "gateway", "--scopes", "read"),
        *("--operations-per-second-max", "50", "--api-key", admin),
    )
    key = parse_api_key(made.out.strip())
    assert key is not None
    assert made.code == 0
    assert "This is the only time that the key is shown" in made.err
    assert f"keys revoke --id {key.credential_id}" in made.err
    assert key.secret not in made.err

    assert (await run("balance", "alice", "--api-key", key.text)).code == 0
    refused = await run("debit", "alice", "1cr", "--api-key", key.text)
    assert (refused.code, "lacks the scope 'meter'" in refused.err) == (4, True)

    listed = await run("keys", "list", METERHOLD_API_KEY=admin)
    heading, _, _, line = listed.out.splitlines()
    assert heading.split()[:4] == ["id", "name", "proof", "scopes"]
    assert line.split()[:5] == [key.credential_id, "gateway", "key", "read", "50"]
    assert key.secret not in listed.out

    revoke = ("keys", "revoke", "--id", key.credential_id)
    done = await run(*revoke, METERHOLD_API_KEY=admin)
    assert (done.code, done.err) == (0, "")
    assert f"id          {key.credential_id}\n" in done.out
    assert "\nrevoked     20" in done.out
    assert await run(*revoke, METERHOLD_API_KEY=admin) == done, "it was revoked when it was"


async def test_as_json(run: Run, database_url: str, address: str) -> None:
    admin = make_key(database_url, "default").text
    make_certificate(database_url, "gateway.internal", Scope.METER)
    credential = {field.name for field in fields(meterhold.Credential)}
    made = await run("keys", "create", "--name", "a", "--json", METERHOLD_API_KEY=admin)
    assert set(made.value) == {"credential", "api_key"}
    assert set(made.value["credential"]) == credential
    assert made.value["credential"]["scopes"] == ["METER", "READ"]
    found = (await run("keys", "list", "--json", METERHOLD_API_KEY=admin)).values
    assert [each["certificate_name"] for each in found] == ["", "gateway.internal", ""]
    assert found[2] == made.value["credential"]
    shown = (await run("keys", "list", METERHOLD_API_KEY=admin)).out
    assert "certificate gateway.internal  meter" in shown
    revoked = await run(
        *("keys", "revoke", "--json", "--id", found[2]["credential_id"]), METERHOLD_API_KEY=admin
    )
    assert revoked.value["revoke_time"] is not None


async def test_who_may_not_is_told(run: Run, database_url: str, address: str) -> None:
    reader = make_key(database_url, "acme", Scope.READ).text
    admin = make_key(database_url, "acme", Scope.ADMIN).text
    for command in (("create", "--name", "x"), ("list",), ("revoke", "--id", "x")):
        done = await run("keys", *command, METERHOLD_API_KEY=reader)
        assert (done.code, done.out) == (4, "")
        assert done.err.startswith(f"meterhold keys {command[0]}: ")
        assert "lacks the scope 'admin'" in done.err
    more = await run("keys", "create", "--name", "x", METERHOLD_API_KEY=admin)
    assert (more.code, "lacks the scope 'meter'" in more.err) == (4, True)


async def test_other_namespaces_neither_see_nor_revoke_it(
    run: Run, database_url: str, address: str
) -> None:
    theirs = make_key(database_url, "globex").credential_id
    admin = make_key(database_url, "acme").text
    assert theirs not in (await run("keys", "list", METERHOLD_API_KEY=admin)).out
    done = await run("keys", "revoke", "--id", theirs, METERHOLD_API_KEY=admin)
    assert (done.code, done.out) == (5, "")
    assert f"the namespace has no credential '{theirs}': see `meterhold keys list`" in done.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("create",), "Missing option '--name'"),
        (("create", "--name", "x", "--scopes", "root"), "'root' is not a scope; they are meter"),
        (("create", "--name", "x", "--scopes", ""), "'' is not a scope"),
        (("create", "--name", "x", "--operations-per-second-max", "-1"), "Invalid value for"),
        (("revoke",), "Missing option '--id'"),
    ],
)
async def test_what_is_wrong_is_said(
    run_alone: Run, arguments: tuple[str, ...], message: str
) -> None:
    done = await run_alone("keys", *arguments)
    assert (done.code, done.out) == (2, "")
    assert message in done.err


async def test_without_a_command_it_lists_them(run_alone: Run) -> None:
    done = await run_alone("keys", "--help")
    assert done.code == 0
    for name in ("create", "list", "revoke"):
        assert name in done.out


async def test_a_key_that_may_have_been_made_is_not_made_again_unasked(
    run_scripted: Run, scripted: ScriptedServer
) -> None:
    """Unlike all other commands: the same one again would make a second key."""
    create = ("keys", "create", "--name", "x")
    scripted.answer(Abort(grpc.StatusCode.UNKNOWN, "the answer is lost"))
    done = await run_scripted(*create)
    assert (done.code, done.out) == (7, "")
    assert "there may be a key that nobody has: see `meterhold keys list`" in done.err
    assert "nothing is done twice" not in done.err
    scripted.answer(Abort(grpc.StatusCode.UNKNOWN, "the answer is lost"))
    error = (await run_scripted(*create, "--json")).error
    assert (error["exit_code"], error["applied"]) == (7, "UNKNOWN")
    assert "repeat_with" not in error
    assert [call.method for call in scripted.calls] == ["CreateApiKey"] * 2
