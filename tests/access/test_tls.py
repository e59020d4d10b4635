"""TLS as operators meet it: renewed without a restart, and with certificates for the clients."""

from __future__ import annotations

import asyncio
import shutil
import socket
import ssl
import time
from pathlib import Path

import pytest
import structlog.testing

import meterhold
from meterhold_server.core.credentials import Scope
from meterhold_server.rpc.tls import Certificates, TlsError, TlsFiles
from support.certificates import Certificate, needs_openssl, self_signed, signed_by
from support.keys import make_certificate, make_key
from support.service import service

pytestmark = needs_openssl


def served(address: str) -> str:
    """The certificate that a new connection is shown."""
    host, port = address.rsplit(":", 1)
    return ssl.get_server_certificate((host, int(port)), timeout=5)


def pem(certificate: Certificate) -> str:
    return certificate.certificate.read_text()


def put(made: Certificate, into: Certificate) -> None:
    """Replace files as a renewal does: each at once."""
    for new, old in zip(made, into, strict=True):
        shutil.copy(new, beside := old.with_suffix(".new"))
        beside.rename(old)


def trusting(root: Certificate, client: Certificate | None = None) -> meterhold.Tls:
    return meterhold.Tls(
        root_certificates=root.certificate.read_bytes(),
        private_key=client.private_key.read_bytes() if client else None,
        certificate_chain=client.certificate.read_bytes() if client else None,
    )


async def test_a_renewed_certificate_is_used_from_the_next_connection_on(
    database_url: str, tmp_path: Path
) -> None:
    files = self_signed(tmp_path, "served", loopback=True)
    renewed = self_signed(tmp_path, "renewed", loopback=True)
    key = make_key(database_url).text
    settings = {"tls_certificate": files.certificate, "tls_private_key": files.private_key}
    async with service(database_url, **settings) as address:
        before = pem(files)
        async with meterhold.AsyncClient(address, tls=trusting(files), api_key=key) as open_before:
            await open_before.balance("alice")
            assert await _shown(address) == before
            put(renewed, into=files)
            assert await _shown(address) == pem(renewed) != before
            await open_before.balance("alice")
        async with meterhold.AsyncClient(address, tls=trusting(renewed), api_key=key) as client:
            await client.balance("alice")


async def test_files_that_do_not_fit_together_are_not_used(
    database_url: str, tmp_path: Path
) -> None:
    files = self_signed(tmp_path, "served", loopback=True)
    other = self_signed(tmp_path, "other", loopback=True)
    before = pem(files)
    settings = {"tls_certificate": files.certificate, "tls_private_key": files.private_key}
    async with service(database_url, **settings) as address:
        with structlog.testing.capture_logs() as logs:
            shutil.copy(other.certificate, files.certificate)
            assert await _shown(address) == before
            files.private_key.unlink()
            assert await _shown(address) == before
        assert [event["event"] for event in logs] == ["tls_files_unusable"] * 2
        shutil.copy(other.private_key, files.private_key)
        assert await _shown(address) == pem(other)


def test_a_server_does_not_start_with_wrong_files(tmp_path: Path) -> None:
    files = self_signed(tmp_path, "served")
    other = self_signed(tmp_path, "other")
    with pytest.raises(TlsError, match=r"served\.pem.*other\.key cannot be used"):
        Certificates(TlsFiles(files.certificate, other.private_key))
    with pytest.raises(TlsError, match=r"none\.pem cannot be read: No such file"):
        Certificates(TlsFiles(tmp_path / "none.pem", files.private_key))


async def test_a_client_certificate_says_who_calls(database_url: str, tmp_path: Path) -> None:
    root = self_signed(tmp_path, "root", loopback=True)
    gateway = signed_by(root, tmp_path, "gateway", uri="spiffe://acme/gateway")
    stranger = signed_by(root, tmp_path, "stranger")
    make_certificate(database_url, "spiffe://acme/gateway", Scope.READ)
    async with service(
        database_url,
        tls_certificate=root.certificate,
        tls_private_key=root.private_key,
        tls_client_roots=root.certificate,
    ) as address:
        async with meterhold.AsyncClient(address, tls=trusting(root, gateway)) as client:
            assert (await client.balance("alice")).ledger_seq == 0
            with pytest.raises(meterhold.ScopeMissing):
                await client.debit("alice", 5)
        async with meterhold.AsyncClient(address, tls=trusting(root, stranger)) as client:
            with pytest.raises(meterhold.CredentialInvalid):
                await client.balance("alice")


async def test_without_a_certificate_that_is_vouched_for_there_is_no_connection(
    database_url: str, tmp_path: Path
) -> None:
    root = self_signed(tmp_path, "root", loopback=True)
    foreign = self_signed(tmp_path, "gateway")
    make_certificate(database_url, "gateway")
    async with service(
        database_url,
        tls_certificate=root.certificate,
        tls_private_key=root.private_key,
        tls_client_roots=root.certificate,
    ) as address:
        for client_certificate in (None, foreign):
            tls = trusting(root, client_certificate)
            async with meterhold.AsyncClient(address, tls=tls, timeout_seconds=1) as client:
                with pytest.raises(meterhold.OutcomeUnknown) as raised:
                    await client.balance("alice")
            assert raised.value.code in ("UNAVAILABLE", "DEADLINE_EXCEEDED")


@pytest.mark.slow
async def test_a_connection_that_never_shakes_hands_is_cut(
    database_url: str, tmp_path: Path
) -> None:
    files = self_signed(tmp_path, "served", loopback=True)
    settings = {"tls_certificate": files.certificate, "tls_private_key": files.private_key}
    async with service(database_url, **settings) as address:
        assert await asyncio.to_thread(_seconds_until_cut, address) < 8


def _seconds_until_cut(address: str) -> float:
    host, port = address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=10) as silent:
        begun = time.monotonic()
        while silent.recv(4096):
            pass
        return time.monotonic() - begun


async def _shown(address: str) -> str:
    return await asyncio.to_thread(served, address)
