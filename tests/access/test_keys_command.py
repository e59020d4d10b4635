"""`meterhold-server keys`: how the first key is made, and what becomes of keys."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

import meterhold
from cli.test_command import Run, run
from meterhold_server.config import ServeSettings
from meterhold_server.core.credentials import parse_api_key
from support.service import service

__all__ = ["run"]


async def test_a_key_is_made_shown_once_used_and_revoked(run: Run, database_url: str) -> None:
    made = run(
        *("keys", "create", "--name", "the gateway", "--scopes", "meter,read"),
        *("--namespace", "acme", "--operations-per-second-max", "50"),
        database_url=database_url,
    )
    key = parse_api_key(made.out.strip())
    assert key is not None
    assert made.code == 0
    assert "This is the only time that the key is shown" in made.err
    assert key.credential_id in made.err
    assert key.secret not in made.err

    async with (
        service(database_url, auth="keys") as address,
        meterhold.AsyncClient(address, api_key=key.text) as client,
    ):
        assert (await client.balance("alice")).available_micros == 0
        with pytest.raises(meterhold.ScopeMissing) as raised:
            await client.grant_once("alice", 5, idempotency_key="gift")
        assert raised.value.scope == "grant"

    listed = run("keys", "list", "--namespace", "acme", database_url=database_url)
    (line,) = listed.out.splitlines()
    fields = line.split("\t")
    assert fields[:5] == [key.credential_id, "the gateway", "key", "meter,read", "50/s"]
    assert fields[6] != "used never"
    assert fields[7] == "active"
    assert key.secret not in listed.out + listed.err

    revoked = run(
        *("keys", "revoke", "--namespace", "acme", "--id", key.credential_id),
        database_url=database_url,
    )
    assert revoked.code == 0
    assert "\trevoked 20" in revoked.out
    again = run(
        *("keys", "revoke", "--namespace", "acme", "--id", key.credential_id),
        database_url=database_url,
    )
    assert again == revoked, "it was revoked when it was revoked"


def test_other_namespaces_neither_see_nor_revoke_it(run: Run, database_url: str) -> None:
    made = run("keys", "create", "--name", "x", "--namespace", "acme", database_url=database_url)
    key = parse_api_key(made.out.strip())
    assert key is not None
    assert run("keys", "list", database_url=database_url).out == ""
    done = run("keys", "revoke", "--id", key.credential_id, database_url=database_url)
    assert done.code == 1
    assert f"namespace 'default' has no credential {key.credential_id}" in done.err
    listed = run("keys", "list", "--namespace", "acme", database_url=database_url)
    assert listed.out.rstrip().endswith("\tactive")


def test_a_certificate_has_one_credential_at_a_time(run: Run, database_url: str) -> None:
    create = ("keys", "create", "--name", "x", "--certificate-name", "gateway.internal")
    made = run(*create, database_url=database_url)
    assert (made.code, len(made.out.strip())) == (0, 16)
    taken = run(*create, "--namespace", "acme", database_url=database_url)
    assert taken.code == 1
    assert "'gateway.internal' has a credential already: revoke it first" in taken.err
    assert "Traceback" not in taken.err
    listed = run("keys", "list", database_url=database_url)
    assert "\tcertificate gateway.internal\t" in listed.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("create",), "name: Field required"),
        (("create", "--name", "x", "--scopes", "root"), "'root' is not a scope; they are meter"),
        (("create", "--name", "a\nb"), "has characters that are not printable"),
        (("create", "--name", "x", "--operations-per-second-max", "0"), "greater than 0"),
        (("revoke", "--id", "mh_abc"), "should match pattern"),
        (("revoke", "--id", "abc"), "id is not a whole id"),
    ],
)
def test_what_is_wrong_is_said(run: Run, arguments: tuple[str, ...], message: str) -> None:
    done = run("keys", *arguments)
    assert (done.code, done.out) == (2, "")
    assert message in done.err


@pytest.mark.parametrize(
    ("settings", "asks"),
    [
        ({}, False),
        ({"address": "localhost:0"}, False),
        ({"address": "[::1]:0"}, False),
        ({"auth": "keys"}, True),
        ({"address": "0.0.0.0:0", "allow_plaintext": True}, True),
        ({"tls_certificate": "c.pem", "tls_private_key": "k.pem"}, True),
        ({"tls_certificate": "c.pem", "tls_private_key": "k.pem", "auth": "none"}, False),
    ],
)
def test_callers_need_a_credential_but_on_loopback_in_plaintext(
    settings: dict[str, object], asks: bool
) -> None:
    assert ServeSettings.model_validate(settings).asks_for_credentials is asks


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0", "192.0.2.1:7717", "example.org:7717"])
def test_an_open_address_is_never_open_to_everybody(address: str) -> None:
    with pytest.raises(ValidationError, match=r"auth is none, and address .* is not loopback"):
        ServeSettings(address=address, auth="none", allow_plaintext=True)
