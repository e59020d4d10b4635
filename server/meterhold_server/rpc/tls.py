"""TLS of the server, with certificates that are read anew when their files change."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, cast

import grpc
import structlog

_log = structlog.get_logger(__name__)


class TlsFiles(NamedTuple):
    """PEM files. With `client_roots`, every client must have a certificate that they vouch for."""

    certificate: Path
    private_key: Path
    client_roots: Path | None = None


class TlsError(Exception):
    """Certificates that cannot be used. The message says which file, and why."""


class Certificates:
    """What each handshake is made with: the files as they are now, if they fit together.

    Renewed files count from the next handshake on; connections that stand go on. Files that do not
    fit together, as while they are being replaced, are logged and the ones before them kept.
    """

    def __init__(self, files: TlsFiles) -> None:
        """Read the files. Raises TlsError."""
        self._files = files
        self._version = self._stamp()
        self._configuration = self._read()

    def credentials(self) -> grpc.ServerCredentials:
        """The credentials of a server's port."""
        # None means that nothing has changed, which the types of grpc do not say.
        renewed = cast("Callable[[], grpc.ServerCertificateConfiguration]", self._renewed)
        return grpc.dynamic_ssl_server_credentials(
            self._configuration,
            renewed,
            require_client_authentication=self._files.client_roots is not None,
        )

    def _renewed(self) -> grpc.ServerCertificateConfiguration | None:
        """The files, if they have changed. Asked by gRPC before each handshake, in its thread."""
        try:
            version = self._stamp()
            if version == self._version:
                return None
            configuration = self._read()
        except TlsError as error:
            _log.error("tls_files_unusable", error=str(error))
            return None
        self._version = version
        _log.info("tls_files_renewed", certificate=str(self._files.certificate))
        return configuration

    def _stamp(self) -> list[tuple[int, int, int]]:
        """What changes when a file does."""
        return [
            (status.st_mtime_ns, status.st_ino, status.st_size)
            for status in (_status_of(file) for file in self._files if file is not None)
        ]

    def _read(self) -> grpc.ServerCertificateConfiguration:
        certificate, private_key, client_roots = self._files
        try:
            # Says whether they fit together, which gRPC would tell each client only.
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate, private_key)
            if client_roots is not None:
                context.load_verify_locations(client_roots)
            return grpc.ssl_server_certificate_configuration(
                [(private_key.read_bytes(), certificate.read_bytes())],
                root_certificates=client_roots.read_bytes() if client_roots else None,
            )
        except OSError as error:  # An ssl.SSLError is one, too.
            files = ", ".join(str(file) for file in self._files if file is not None)
            raise TlsError(f"the TLS files {files} cannot be used: {error}") from error


def _status_of(file: Path) -> os.stat_result:
    try:
        return file.stat()
    except OSError as error:
        raise TlsError(f"the TLS file {file} cannot be read: {error.strerror}") from error
