"""Secrets are renewed while callers go on, as docs/operations.md says."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

import meterhold
from meterhold_server.storage import migrate
from robustness.database_apart import DatabaseApart
from support.certificates import Certificate, needs_openssl, self_signed, signed_by
from support.keys import make_certificate
from support.service import ServerProcess, service

from .page import has_programs, run_block

pytestmark = pytest.mark.slow


class TestThePasswordOfTheDatabase:
    @pytest.fixture
    def url(self) -> Iterator[str]:
        """A migrated database, as its owner. `meterhold_a` and `_b` have to say a password."""
        with DatabaseApart() as database:
            migrate.upgrade(database.url)
            with psycopg.connect(database.url, autocommit=True) as owner:
                owner.execute("CREATE ROLE meterhold_a LOGIN PASSWORD 'first'")
                owner.execute("GRANT meterhold_app TO meterhold_a")
                [hba] = owner.execute("SHOW hba_file").fetchone() or ()
                rules = Path(hba)
                asked = "local all meterhold_a,meterhold_b scram-sha-256\n"
                rules.write_text(asked + rules.read_text())
                owner.execute("SELECT pg_reload_conf()")
            yield database.url

    async def test_is_read_anew_from_its_file(self, url: str, tmp_path: Path) -> None:
        file = tmp_path / "pgpass"
        put_password(file, "first")
        as_a = f"{url.replace('postgres@', 'meterhold_a@')}&passfile={file}"
        with (
            ServerProcess(as_a, allow_unsafe_database=False) as server,
            psycopg.connect(url, autocommit=True) as owner,
        ):
            async with meterhold.AsyncClient(server.address) as client:
                await client.grant_once("alice", 100, idempotency_key="gift")
                owner.execute("ALTER ROLE meterhold_a PASSWORD 'second'")
                await client.debit("alice", 1)  # by a connection that stands
                put_password(file, "second")
                owner.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE usename = 'meterhold_a'"
                )
                assert (await client.debit("alice", 1)).balance.available_micros == 98
        put_password(file, "first")
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(as_a)

    @pytest.mark.skipif(not has_programs("psql"), reason="this PostgreSQL has no psql")
    async def test_is_that_of_another_user_from_now_on(self, url: str, tmp_path: Path) -> None:
        as_a = url.replace("postgres@", "meterhold_a:first@")
        as_b = url.replace("postgres@", "meterhold_b:se'cond@")
        with ServerProcess(as_a, allow_unsafe_database=False) as old:
            async with meterhold.AsyncClient(old.address) as client:
                await client.grant_once("alice", 100, idempotency_key="gift")
            run_block(
                "another database user", tmp_path, METERHOLD_DATABASE_URL=url, PASSWORD="se'cond"
            )
            with ServerProcess(as_b, allow_unsafe_database=False) as new:
                assert await asyncio.to_thread(old.terminate) == 0
                with psycopg.connect(url) as owner:
                    owner.execute("ALTER ROLE meterhold_a NOLOGIN")
                async with meterhold.AsyncClient(new.address) as client:
                    assert (await client.debit("alice", 1)).balance.available_micros == 99
        with pytest.raises(psycopg.OperationalError, match="not permitted to log in"):
            psycopg.connect(as_a)


def put_password(file: Path, password: str) -> None:
    file.write_text(f"*:*:*:meterhold_a:{password}\n")
    file.chmod(0o600)


@needs_openssl
async def test_roots_of_client_certificates_overlap(database_url: str, tmp_path: Path) -> None:
    of_server = self_signed(tmp_path, "served", loopback=True)
    old, new = (self_signed(tmp_path, name) for name in ("old-root", "new-root"))
    before, after = signed_by(old, tmp_path, "before"), signed_by(new, tmp_path, "after")
    for name in ("before", "after"):
        make_certificate(database_url, name)
    roots = tmp_path / "roots.pem"
    trust(roots, old)
    async with service(
        database_url,
        tls_certificate=of_server.certificate,
        tls_private_key=of_server.private_key,
        tls_client_roots=roots,
    ) as address:

        async def comes_in(client: Certificate) -> bool:
            tls = meterhold.Tls(
                root_certificates=of_server.certificate.read_bytes(),
                private_key=client.private_key.read_bytes(),
                certificate_chain=client.certificate.read_bytes(),
            )
            async with meterhold.AsyncClient(address, tls=tls, timeout_seconds=2) as connected:
                try:
                    await connected.balance("alice")
                except meterhold.OutcomeUnknown:
                    return False
            return True

        assert [await comes_in(before), await comes_in(after)] == [True, False]
        trust(roots, old, new)
        assert [await comes_in(before), await comes_in(after)] == [True, True]
        trust(roots, new)
        assert [await comes_in(before), await comes_in(after)] == [False, True]


def trust(roots: Path, *issuers: Certificate) -> None:
    """Replace the file at once."""
    beside = roots.with_suffix(".new")
    beside.write_text("".join(issuer.certificate.read_text() for issuer in issuers))
    beside.rename(roots)
