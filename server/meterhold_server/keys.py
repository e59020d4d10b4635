"""The commands `meterhold-server keys …`: make, list and revoke credentials.

They work on the database, with or without a server, and so can make the first one.
"""

from __future__ import annotations

import secrets
import sys
from datetime import datetime
from typing import Annotated

from pydantic import Field, PositiveInt, field_validator, model_validator

from meterhold_server import app
from meterhold_server.config import NamespaceSettings
from meterhold_server.core.credentials import (
    ID_BYTES,
    SECRET_BYTES,
    Credential,
    api_key_of,
    credential_id_of,
    parse_scopes,
)
from meterhold_server.storage.connection import connect_credentials
from meterhold_server.storage.credentials import (
    create_credential,
    page_of_credentials,
    revoke_credential,
)

_PAGE_SIZE = 1000


class CreateSettings(NamespaceSettings):
    """What to make."""

    name: Annotated[
        str, Field(min_length=1, max_length=128, description="what it is for, to tell it by")
    ]
    scopes: Annotated[str, Field(description="what it may do: some of meter,grant,read,admin")] = (
        "meter,read"
    )
    certificate_name: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=255,
            description="no key: the client certificate with this subject alternative name",
        ),
    ] = None
    operations_per_second_max: Annotated[
        PositiveInt | None, Field(le=1_000_000, description="in each server process; none = any")
    ] = None

    @field_validator("name", "namespace", "certificate_name")
    @classmethod
    def _printable(cls, text: str | None) -> str | None:
        if text is not None and not text.isprintable():
            raise ValueError("has characters that are not printable")
        return text

    @field_validator("scopes")
    @classmethod
    def _known_scopes(cls, names: str) -> str:
        parse_scopes(names.split(","))
        return names


class RevokeSettings(NamespaceSettings):
    """What to revoke."""

    id: Annotated[
        str,
        Field(description="the credential's id, as `keys list` shows it", pattern="^[a-z2-7]+$"),
    ]

    @model_validator(mode="after")
    def _whole(self) -> RevokeSettings:
        if len(credential_id_of(bytes(ID_BYTES))) != len(self.id):
            raise ValueError("id is not a whole id: it has 16 characters, without mh_")
        return self


def create(settings: CreateSettings) -> int:
    """Make an API key, and print it: it is shown this once."""
    credential_id = credential_id_of(secrets.token_bytes(ID_BYTES))
    key = None
    if settings.certificate_name is None:
        key = api_key_of(credential_id, secrets.token_bytes(SECRET_BYTES))
    with app.database(settings) as url, connect_credentials(url) as connection:
        create_credential(
            connection,
            credential_id=credential_id,
            namespace=settings.namespace,
            name=settings.name,
            scopes=sorted(parse_scopes(settings.scopes.split(","))),
            secret_hash=key.secret_hash if key else None,
            certificate_name=settings.certificate_name,
            operations_per_second_max=settings.operations_per_second_max,
            actor=app.operator(),
        )
    print(key.text if key else credential_id)
    what = "This is the only time that the key is shown" if key else "The certificate may be used"
    print(f"{what}. Revoke it with: keys revoke --id {credential_id}", file=sys.stderr)
    return 0


def list_all(settings: NamespaceSettings) -> int:
    """List the credentials of a namespace, without their secrets."""
    after: tuple[datetime, str] | None = None
    with app.database(settings) as url, connect_credentials(url) as connection:
        while True:
            found = page_of_credentials(
                connection, settings.namespace, after=after, limit=_PAGE_SIZE
            )
            for credential in found:
                print(_line(credential))
            if len(found) < _PAGE_SIZE:
                return 0
            after = found[-1].create_time, found[-1].credential_id


def revoke(settings: RevokeSettings) -> int:
    """Revoke a credential: within 5 seconds no server lets it in."""
    with app.database(settings) as url, connect_credentials(url) as connection:
        revoked = revoke_credential(
            connection, settings.namespace, settings.id, actor=app.operator()
        )
    if revoked is None:
        print(
            f"meterhold-server keys revoke: namespace {settings.namespace!r} has no credential"
            f" {settings.id}; see `meterhold-server keys list --namespace …`",
            file=sys.stderr,
        )
        return 1
    print(_line(revoked))
    return 0


def _line(of: Credential) -> str:
    """One credential as text, its fields apart by tabs."""
    proof = "key" if of.certificate_name is None else f"certificate {of.certificate_name}"
    limit = of.operations_per_second_max
    return "\t".join(
        (
            of.credential_id,
            of.name,
            proof,
            ",".join(sorted(of.scopes)),
            f"{limit}/s" if limit else "unlimited",
            f"created {_time(of.create_time)}",
            f"used {_time(of.last_use_time)}",
            f"revoked {_time(of.revoke_time)}" if of.revoke_time else "active",
        )
    )


def _time(time: datetime | None) -> str:
    return time.isoformat(timespec="seconds") if time else "never"
