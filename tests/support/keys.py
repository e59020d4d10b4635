"""Credentials for tests, made as `meterhold-server keys create` makes them."""

from __future__ import annotations

import secrets

from meterhold_server.core.credentials import (
    ALL_SCOPES,
    ID_BYTES,
    SECRET_BYTES,
    ApiKey,
    Scope,
    api_key_of,
    credential_id_of,
)
from meterhold_server.storage.connection import connect_credentials
from meterhold_server.storage.credentials import create_credential, revoke_credential
from meterhold_server.storage.exchange import Connection


def make_key(
    database_url: str,
    namespace: str = "default",
    *scopes: Scope,
    operations_per_second_max: int | None = None,
) -> ApiKey:
    """A new key, with all scopes unless some are given."""
    with connect_credentials(database_url) as connection:
        return add_key(
            connection, namespace, *scopes, operations_per_second_max=operations_per_second_max
        )


def add_key(
    connection: Connection,
    namespace: str,
    *scopes: Scope,
    operations_per_second_max: int | None = None,
) -> ApiKey:
    """The same by a connection that is there."""
    credential_id = credential_id_of(secrets.token_bytes(ID_BYTES))
    key = api_key_of(credential_id, secrets.token_bytes(SECRET_BYTES))
    create_credential(
        connection,
        credential_id=credential_id,
        namespace=namespace,
        name="a test",
        scopes=sorted(scopes or ALL_SCOPES),
        secret_hash=key.secret_hash,
        operations_per_second_max=operations_per_second_max,
        actor="a test",
    )
    return key


def make_certificate(database_url: str, name: str, *scopes: Scope) -> str:
    """The id of a new credential of client certificates that have a name."""
    credential_id = credential_id_of(secrets.token_bytes(ID_BYTES))
    with connect_credentials(database_url) as connection:
        create_credential(
            connection,
            credential_id=credential_id,
            namespace="default",
            name="a test",
            scopes=sorted(scopes or ALL_SCOPES),
            certificate_name=name,
            actor="a test",
        )
    return credential_id


def revoke(database_url: str, credential_id: str, namespace: str = "default") -> None:
    with connect_credentials(database_url) as connection:
        revoked = revoke_credential(connection, namespace, credential_id, actor="a test")
    assert revoked is not None


def bearer(key: ApiKey) -> tuple[tuple[str, str], ...]:
    """The metadata that a caller sends with its key."""
    return (("authorization", f"Bearer {key.text}"),)
