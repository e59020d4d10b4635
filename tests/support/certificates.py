"""Certificates for tests, made by openssl."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

needs_openssl = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="openssl makes the certificate"
)


class Certificate(NamedTuple):
    """PEM files of a certificate and its private key."""

    certificate: Path
    private_key: Path


def self_signed(folder: Path, name: str, *, loopback: bool = False) -> Certificate:
    """A certificate for a host name, and for 127.0.0.1 too if wanted. It is its own root."""
    made = Certificate(folder / f"{name}.pem", folder / f"{name}.key")
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt"),
            *("ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", f"/CN={name}"),
            *("-addext", f"subjectAltName=DNS:{name}{',IP:127.0.0.1' if loopback else ''}"),
            *("-keyout", made.private_key, "-out", made.certificate),
        ],
        check=True,
        capture_output=True,
    )
    return made


def signed_by(issuer: Certificate, folder: Path, name: str, *, uri: str = "") -> Certificate:
    """A client certificate that `issuer` vouches for, with a host name and perhaps a URI."""
    made = Certificate(folder / f"{name}.pem", folder / f"{name}.key")
    names = f"subjectAltName=DNS:{name}" + (f",URI:{uri}" if uri else "")
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt"),
            *("ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", f"/CN={name}"),
            *("-addext", names, "-addext", "basicConstraints=critical,CA:FALSE"),
            *("-CA", issuer.certificate, "-CAkey", issuer.private_key),
            *("-keyout", made.private_key, "-out", made.certificate),
        ],
        check=True,
        capture_output=True,
    )
    return made
