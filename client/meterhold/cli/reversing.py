"""The commands that take something back: a charge, a grant, or the revocation of one."""

from __future__ import annotations

from typing import Annotated

import typer

import meterhold
from meterhold.cli import tables
from meterhold.cli.exit_codes import UsageError
from meterhold.cli.options import (
    Account,
    ChargeSeq,
    ExpectCurrency,
    ExpectProvider,
    ExpectStore,
    ExpectTestMode,
    ExpiredLotGrace,
    GrantKey,
    Labels,
    OfAccount,
    Reason,
    RevocationId,
    Unit,
    amount_option,
    expected_source_of,
    key_option,
    labels_of,
    not_empty,
    text_option,
)
from meterhold.cli.running import command
from meterhold.cli.session import Session

_PPM_MAX = 1_000_000


@command
def refund(
    session: Session,
    account: Account,
    key: Annotated[str, key_option("Names the refund: with it, it is made once.")],
    amount: Annotated[
        str | None, typer.Argument(metavar="AMOUNT", help="All that is left of it if unset.")
    ] = None,
    entry: ChargeSeq = None,
    reservation: Annotated[
        str | None, text_option("Which charge: that of this hold.", metavar="RESERVATION_ID")
    ] = None,
    capture_id: Annotated[
        str | None, key_option("Which capture of the hold; its settle if unset.")
    ] = None,
    expired_lot_grace: ExpiredLotGrace = None,
    reason: Reason = "",
    label: Labels = None,
    unit: Unit = "",
) -> None:
    """Give a charge back, or part of it, once for its key."""
    if (entry is None) == (reservation is None):
        raise UsageError("give exactly one of --entry and --reservation")
    if capture_id is not None and reservation is None:
        raise UsageError("--capture-id names a capture of a hold: give --reservation too")
    amount_micros = session.optional_amount(amount)
    if amount is not None and not amount_micros:
        raise UsageError(f"{amount!r} is nothing; for all that is left, leave the amount out")
    labels = labels_of(label)
    with session.client() as client:
        session.will_change()
        done = client.refund_charge(
            account,
            amount_micros,
            idempotency_key=key,
            entry_seq=entry,
            reservation_id=reservation,
            capture_id=capture_id or "",
            unit=unit,
            expired_lot_grace=expired_lot_grace,
            reason=reason,
            labels=labels,
        )
    shown = session.shown(done.refunded_micros)
    rows = [
        ("entry", str(done.entry.seq)),
        ("key", done.entry.key),
        ("refunded of it", session.shown(done.charge_refunded_micros)),
        ("available", session.shown(done.balance.available_micros)),
    ]
    first_time = f"Refunded {shown}."
    again = f"Refunded {shown} before; nothing now."
    session.show(done, again if done.replayed else first_time, tables.facts(rows))


@command
def revoke(
    session: Session,
    grant_key: GrantKey,
    amount: Annotated[
        str | None, amount_option("How much of it, with what was revoked before; all if unset.")
    ] = None,
    fraction_ppm: Annotated[
        int | None,
        typer.Option(metavar="NUMBER", help="Instead, how many millionths.", min=1, max=_PPM_MAX),
    ] = None,
    account: OfAccount = None,
    allow_tombstone: Annotated[
        bool, typer.Option("--allow-tombstone", help="Also if the grant has not come yet.")
    ] = False,
    revocation_id: RevocationId = "",
    expect_provider: ExpectProvider = "",
    expect_store_id: ExpectStore = "",
    expect_test_mode: ExpectTestMode = None,
    expect_currency: ExpectCurrency = "",
    reason: Reason = "",
    label: Labels = None,
    unit: Unit = "",
) -> None:
    """Take a grant back, or part of it; a repeated command takes nothing more."""
    if amount is not None and fraction_ppm is not None:
        raise UsageError("give --amount or --fraction-ppm, not both")
    amount_micros = None if amount is None else session.amount(amount)
    labels = labels_of(label)
    with session.client() as client:
        session.will_change()
        done = client.revoke_grant(
            grant_key,
            fraction_ppm=fraction_ppm,
            amount_micros=amount_micros,
            account=not_empty("--account", account),
            unit=unit,
            allow_tombstone=allow_tombstone,
            revocation_id=revocation_id,
            expected_source=expected_source_of(
                expect_provider, expect_store_id, expect_test_mode, expect_currency
            ),
            reason=reason,
            labels=labels,
        )
    _show(session, done, done.revoked_micros, "Revoked")


@command
def reinstate(
    session: Session,
    grant_key: GrantKey,
    account: OfAccount = None,
    revocation_id: RevocationId = "",
    expect_provider: ExpectProvider = "",
    expect_store_id: ExpectStore = "",
    expect_test_mode: ExpectTestMode = None,
    expect_currency: ExpectCurrency = "",
    reason: Reason = "",
    label: Labels = None,
    unit: Unit = "",
) -> None:
    """Undo the revocations of a grant; a repeated command gives nothing more."""
    labels = labels_of(label)
    with session.client() as client:
        session.will_change()
        done = client.reinstate_grant(
            grant_key,
            account=not_empty("--account", account),
            unit=unit,
            revocation_id=revocation_id,
            expected_source=expected_source_of(
                expect_provider, expect_store_id, expect_test_mode, expect_currency
            ),
            reason=reason,
            labels=labels,
        )
    _show(session, done, done.reinstated_micros, "Reinstated")


def _show(
    session: Session,
    done: meterhold.RevokeResult | meterhold.ReinstateResult,
    moved_micros: int,
    verb: str,
) -> None:
    balance = done.balance
    numbers = [] if done.tombstone else [("available", session.shown(balance.available_micros))]
    rows = [
        ("account", f"{done.account} ({done.unit})" if done.account else ""),
        ("entry", str(done.entry.seq) if done.entry else ""),
        ("revoked of it", session.shown(done.grant_revoked_micros)),
        ("debt", session.shown(balance.debt_micros) if balance.debt_micros else ""),
        *numbers,
    ]
    told = f"{verb} {session.shown(moved_micros)}."
    if done.tombstone:
        told = "Noted: it counts when the grant becomes effective."
    session.show(done, told, tables.facts(rows))
