"""From settings to a client."""

from __future__ import annotations

import meterhold
from meterhold.cli.exit_codes import UsageError
from meterhold.cli.settings import Settings


def connect(settings: Settings, timeout_seconds: float) -> meterhold.Client:
    """Make a client, which connects with its first call. Raises UsageError."""
    try:
        return meterhold.Client(
            settings.address,
            timeout_seconds=timeout_seconds,
            tls=_tls(settings),
            api_key=settings.api_key(),
        )
    except ValueError as error:
        raise UsageError(str(error)) from None


def _tls(settings: Settings) -> meterhold.Tls | None:
    if not settings.tls:
        return None
    try:
        return meterhold.Tls.from_files(
            root_certificates=settings.text("tls_root_certificates"),
            certificate_chain=settings.text("tls_certificate"),
            private_key=settings.text("tls_private_key"),
            server_name=settings.text("tls_server_name") or "",
        )
    except OSError as error:
        raise UsageError(f"a TLS file cannot be read: {error}") from None
