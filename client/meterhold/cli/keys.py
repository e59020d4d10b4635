"""The commands `keys …`: make, list and revoke credentials of the caller's namespace.

They need the scope `admin`. Their options are those of `meterhold-server keys`, which makes the
first key.
"""

from __future__ import annotations

from typing import Annotated

import typer

import meterhold
from meterhold.cli import tables
from meterhold.cli.exit_codes import UsageError
from meterhold.cli.options import PerSecondMax, text_option
from meterhold.cli.running import command
from meterhold.cli.session import Session

_SCOPES = {scope.lower(): scope for scope in meterhold.Scope if scope != "UNKNOWN"}


@command
def create(
    session: Session,
    name: Annotated[str, text_option("What it is for, to tell it by.")],
    scopes: Annotated[
        str, text_option(f"What it may do: some of {','.join(_SCOPES)}; meter,read if unset.")
    ] = "meter,read",
    operations_per_second_max: PerSecondMax = 0,
) -> None:
    """Make an API key, and print it: it is shown this once."""
    wanted = [_scope(each) for each in scopes.split(",")]
    with session.client() as client:
        session.will_change_each_time(
            "there may be a key that nobody has: see `meterhold keys list`, and revoke it"
        )
        made = client.create_api_key(
            name, scopes=wanted, operations_per_second_max=operations_per_second_max
        )
    if session.flags.json:
        session.show(made)
        return
    typer.echo(made.api_key)
    typer.echo(
        "This is the only time that the key is shown. Revoke it with: "
        f"keys revoke --id {made.credential.credential_id}",
        err=True,
    )


@command
def list_all(session: Session) -> None:
    """List the credentials, oldest first, without their secrets."""
    with session.client() as client:
        session.show_all(client.list_credentials(), tables.credentials)


@command
def revoke(
    session: Session,
    id_: Annotated[str, text_option("Which one, as `keys list` shows it.", "--id", metavar="ID")],
) -> None:
    """Revoke a credential: within 5 seconds no server lets it in."""
    with session.client() as client:
        session.will_change()
        done = client.revoke_credential(id_)
    if done is None:
        raise meterhold.NotFound(
            f"the namespace has no credential {id_!r}: see `meterhold keys list`",
            code="NOT_FOUND",
            applied="NO",
        )
    session.show(done, tables.credential(done))


def _scope(name: str) -> meterhold.Scope:
    if name not in _SCOPES:
        raise UsageError(f"{name!r} is not a scope; they are {', '.join(_SCOPES)}")
    return _SCOPES[name]
