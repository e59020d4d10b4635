"""Remove the keys of an account that name entries which do not exist, by the owner's right."""

from __future__ import annotations

from meterhold_server.core.decide import decide
from meterhold_server.core.model import AccountKey, Entry, Rules, account_id_of
from meterhold_server.core.needs import needs
from meterhold_server.core.operations import Rebuild
from meterhold_server.core.outcomes import Rebuilt
from meterhold_server.storage.connection import connect_owner
from meterhold_server.storage.load import load
from meterhold_server.storage.persist import persist
from meterhold_server.storage.strays import delete_stray_claims


def remove_stray_claims(
    database_url: str, account: AccountKey, rules: Rules, *, actor: str
) -> list[Entry]:
    """Delete them by order of `actor`, and post what they said as corrections of 0.

    Both is done in one transaction.

    Answers the corrections; none if there was no such key, or nothing could be posted: then none
    was deleted either. Raises psycopg.Error.
    """
    with connect_owner(database_url) as connection:
        state, now, _ = load(connection, needs([Rebuild(account)]))
        deleted = delete_stray_claims(connection, account_id_of(account))
        operation = Rebuild(account, tuple(deleted), actor=actor)
        (outcome,), writes = decide(state, [operation], now, rules)
        assert isinstance(outcome, Rebuilt), "a rebuild is not refused"
        if not deleted or not outcome.corrections:
            connection.execute("ROLLBACK")
            return []
        persist(connection, writes)
        return outcome.corrections
