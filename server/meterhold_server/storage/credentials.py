"""Credentials: made, looked up, listed and revoked. Of a secret only its hash is ever here."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

import orjson
import psycopg
from sqlalchemy import Text as SqlText
from sqlalchemy import bindparam, cast, func, literal_column, select, tuple_, update
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, insert

from meterhold_server.core.credentials import Credential, Scope
from meterhold_server.storage.exchange import Connection
from meterhold_server.storage.statements import compiled
from meterhold_server.storage.tables import audit_record, credential

_IDS: Final = func.any(cast(bindparam("credential_ids"), ARRAY(SqlText)))
_GIVEN: Final = (
    "credential_id",
    "namespace",
    "name",
    "scopes",
    "secret_hash",
    "certificate_name",
    "operations_per_second_max",
)
_INSERT: Final = compiled(
    insert(credential)
    .values(
        {name: bindparam(name, type_=credential.c[name].type) for name in _GIVEN}
        | {"create_time": func.clock_timestamp()}
    )
    .on_conflict_do_nothing(index_elements=["credential_id"])
)
_BY_ID: Final = compiled(select(credential).where(credential.c.credential_id == _IDS))
_BY_CERTIFICATE: Final = compiled(
    select(credential).where(
        credential.c.certificate_name
        == func.any(cast(bindparam("certificate_names"), ARRAY(SqlText))),
        credential.c.revoke_time.is_(None),
    )
)
_REVOKE: Final = compiled(
    update(credential)
    .where(
        credential.c.credential_id == bindparam("credential_id", type_=SqlText),
        credential.c.namespace == bindparam("namespace", type_=SqlText),
        credential.c.revoke_time.is_(None),
    )
    .values(revoke_time=func.clock_timestamp())
)
_USED: Final = compiled(
    update(credential)
    .where(credential.c.credential_id == _IDS)
    .values(last_use_time=func.clock_timestamp())
)


_AUDIT: Final = compiled(
    insert(audit_record).values(
        **{name: bindparam(name, type_=SqlText) for name in ("namespace", "actor", "action")},
        account=literal_column("''"),
        unit=literal_column("''"),
        subject=bindparam("subject", type_=SqlText),
        details=cast(bindparam("details", type_=SqlText), JSONB),
        create_time=func.clock_timestamp(),
    )
)


def _page(*, after: bool) -> str:
    order = (credential.c.create_time, credential.c.credential_id)
    query = select(credential).where(
        credential.c.namespace == bindparam("namespace", type_=SqlText)
    )
    if after:
        start = (bindparam(column.name, type_=column.type) for column in order)
        query = query.where(tuple_(*order) > tuple_(*start))
    return compiled(query.order_by(*order).limit(bindparam("limit")))


_FIRST_PAGE: Final = _page(after=False)
_NEXT_PAGE: Final = _page(after=True)


class CertificateTakenError(Exception):
    """Another credential that is not revoked has the certificate's name, in whatever namespace."""


def create_credential(
    connection: Connection,
    *,
    credential_id: str,
    namespace: str,
    name: str,
    scopes: Sequence[Scope],
    secret_hash: bytes | None = None,
    certificate_name: str | None = None,
    operations_per_second_max: int | None = None,
    actor: str,
) -> Credential:
    """Make a credential, by order of `actor`. One with its id, of an earlier attempt, stays.

    Raises CertificateTakenError.
    """
    given = {
        "credential_id": credential_id,
        "namespace": namespace,
        "name": name,
        "scopes": [scope.value for scope in scopes],
        "secret_hash": secret_hash,
        "certificate_name": certificate_name,
        "operations_per_second_max": operations_per_second_max,
    }
    try:
        with connection.transaction():
            if connection.execute(_INSERT, given).rowcount:
                details = {"name": name, "scopes": given["scopes"]}
                _audit(connection, namespace, actor, "CreateCredential", credential_id, details)
    except psycopg.errors.UniqueViolation:
        raise CertificateTakenError(
            f"the certificate name {certificate_name!r} has a credential already: revoke it first"
        ) from None
    (made,) = read_credentials(connection, [credential_id])
    return made


def read_credentials(connection: Connection, credential_ids: Sequence[str]) -> list[Credential]:
    """Those of some ids that there are, revoked ones too."""
    rows = connection.execute(_BY_ID, {"credential_ids": list(credential_ids)}, prepare=True)
    return [_credential_from(row) for row in rows.fetchall()]


def read_certificates(connection: Connection, names: Sequence[str]) -> list[Credential]:
    """The credentials of a certificate's names that are not revoked."""
    rows = connection.execute(_BY_CERTIFICATE, {"certificate_names": list(names)}, prepare=True)
    return [_credential_from(row) for row in rows.fetchall()]


def page_of_credentials(
    connection: Connection, namespace: str, *, after: tuple[datetime, str] | None, limit: int
) -> list[Credential]:
    """Up to `limit` credentials of a namespace, oldest first, revoked ones too."""
    create_time, credential_id = after or (None, None)
    wanted = {
        "namespace": namespace,
        "create_time": create_time,
        "credential_id": credential_id,
        "limit": limit,
    }
    rows = connection.execute(_FIRST_PAGE if after is None else _NEXT_PAGE, wanted).fetchall()
    return [_credential_from(row) for row in rows]


def revoke_credential(
    connection: Connection, namespace: str, credential_id: str, *, actor: str
) -> Credential | None:
    """Revoke a credential of a namespace; one that is revoked stays so. None if there is none."""
    wanted = {"namespace": namespace, "credential_id": credential_id}
    with connection.transaction():
        if connection.execute(_REVOKE, wanted).rowcount:
            _audit(connection, namespace, actor, "RevokeCredential", credential_id, {})
    found = read_credentials(connection, [credential_id])
    return next((each for each in found if each.namespace == namespace), None)


def note_use(connection: Connection, credential_ids: Sequence[str]) -> None:
    """Write down that credentials have been used just now."""
    connection.execute(_USED, {"credential_ids": list(credential_ids)})


def _audit(
    connection: Connection,
    namespace: str,
    actor: str,
    action: str,
    credential_id: str,
    details: dict[str, Any],
) -> None:
    record = {
        "namespace": namespace,
        "actor": actor,
        "action": action,
        "subject": credential_id,
        "details": orjson.dumps(details).decode(),
    }
    connection.execute(_AUDIT, record)


def _credential_from(row: Sequence[Any]) -> Credential:
    found = dict(zip((column.name for column in credential.c), row, strict=True))
    scopes = frozenset(map(Scope, found.pop("scopes")))
    return Credential(scopes=scopes, **found)
