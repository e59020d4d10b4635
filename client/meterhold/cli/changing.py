"""The commands that change something. Each has a key, so that it can be run again safely."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from meterhold.cli import json_values, tables, times
from meterhold.cli.exit_codes import UsageError
from meterhold.cli.options import (
    Account,
    Amount,
    Category,
    DebitOverage,
    EffectiveTime,
    Expiry,
    Labels,
    Model,
    OnExpiryOption,
    Priority,
    Provider,
    Reason,
    ReservationId,
    SettleOverage,
    Tokens,
    Ttl,
    Unit,
    amount_option,
    key_option,
    labels_of,
    usage_of,
)
from meterhold.cli.running import command
from meterhold.cli.session import Session


@command
def grant(
    session: Session,
    account: Account,
    amount: Amount,
    key: Annotated[str, key_option("Names the grant: with it, it is made once.")],
    reason: Reason = "",
    category: Category = None,
    priority: Priority = None,
    effective_time: EffectiveTime = None,
    expires: Expiry = None,
    label: Labels = None,
    legacy_key: Annotated[
        list[str] | None, key_option("It may have been made by this one before; may be repeated.")
    ] = None,
    unit: Unit = "",
) -> None:
    """Put credits in, once for its key."""
    amount_micros = session.amount(amount)
    labels = labels_of(label)
    with session.client() as client:
        session.will_change()
        session.repeat_at("--effective-time", effective_time)
        session.repeat_at("--expires", expires)
        done = client.grant_once(
            account,
            amount_micros,
            idempotency_key=key,
            unit=unit,
            legacy_keys=legacy_key or (),
            reason=reason,
            category=category,
            priority=priority,
            effective_time=effective_time,
            expire_time=expires,
            labels=labels,
        )
    entry = done.entry  # none as long as the grant is pending
    shown = session.shown(entry.amount_micros if entry else amount_micros)
    effective = times.shown(effective_time) if effective_time and done.pending else ""
    rows = [
        ("entry", str(entry.seq) if entry else ""),
        ("key", entry.key if entry else key),
        ("effective", effective),
        ("expires", times.shown(expires) if expires and not done.replayed else ""),
        ("debt repaid", session.shown(done.debt_repaid_micros) if done.debt_repaid_micros else ""),
        ("revoked", session.shown(done.revoked_micros) if done.revoked_micros else ""),
        ("available", session.shown(done.balance.available_micros)),
    ]
    first_time = f"Granted {shown}."
    again = f"Granted {shown} before; nothing now."
    session.show(done, again if done.replayed else first_time, tables.facts(rows))


@command
def debit(
    session: Session,
    account: Account,
    amount: Amount,
    key: Annotated[
        str | None, key_option("Charge once for this key, unique among the debits of all accounts.")
    ] = None,
    request_id: Annotated[
        str | None,
        key_option("Charge once for this key, unique in the account; a fresh one if neither."),
    ] = None,
    overage: DebitOverage = None,
    label: Labels = None,
    provider: Provider = "",
    model: Model = "",
    input_tokens: Tokens = 0,
    output_tokens: Tokens = 0,
    unit: Unit = "",
) -> None:
    """Charge now."""
    if key and request_id:
        raise UsageError("give --key or --request-id, not both")
    amount_micros = session.amount(amount)
    charge: dict[str, Any] = {
        "unit": unit,
        "overage": overage,
        "labels": labels_of(label),
        "usage": usage_of(provider, model, input_tokens, output_tokens),
    }
    with session.client() as client:
        session.will_change()
        if key:
            done = client.debit_once(account, amount_micros, idempotency_key=key, **charge)
        else:
            own = session.key("--request-id", request_id)
            done = client.debit(account, amount_micros, request_id=own, **charge)
    shown = session.shown(-done.entry.amount_micros)
    rows = [
        ("entry", str(done.entry.seq)),
        ("key", done.entry.key),
        ("available", session.shown(done.balance.available_micros)),
    ]
    first_time = f"Debited {shown}."
    again = f"Debited {shown} before; nothing now."
    session.show(done, again if done.replayed else first_time, tables.facts(rows))


@command
def reserve(
    session: Session,
    account: Account,
    amount: Amount,
    id_: Annotated[str | None, key_option("Names the hold; a fresh one if unset.", "--id")] = None,
    ttl: Ttl = None,
    min_amount: Annotated[
        str | None, amount_option("Hold less if that is all there is, but at least this.")
    ] = None,
    min_available: Annotated[
        str | None, amount_option("Refuse if less than this is available before.")
    ] = None,
    on_expiry: OnExpiryOption = None,
    label: Labels = None,
    unit: Unit = "",
) -> None:
    """Hold credits for a job."""
    amount_micros = session.amount(amount)
    min_amount_micros = session.optional_amount(min_amount)
    min_available_micros = session.optional_amount(min_available)
    labels = labels_of(label)
    with session.client() as client:
        session.will_change()
        reservation_id = session.key("--id", id_)
        done = client.reserve(
            account,
            amount_micros,
            reservation_id=reservation_id,
            unit=unit,
            ttl=ttl,
            min_amount_micros=min_amount_micros,
            min_available_micros=min_available_micros,
            on_expiry=on_expiry,
            labels=labels,
        )
    held = f"Held {session.shown(done.held_micros)}"
    until = f"{held} until {times.shown(done.expire_time)}."
    before = f"{held} before; nothing now."
    session.show(
        {"reservation_id": reservation_id, **json_values.plain(done)},
        before if done.replayed else until,
        tables.facts(
            [
                ("reservation", reservation_id),
                ("available", session.shown(done.balance.available_micros)),
            ]
        ),
    )


@command
def settle(
    session: Session,
    account: Account,
    reservation_id: ReservationId,
    amount: Amount,
    keep_open: Annotated[
        bool, typer.Option("--keep-open", help="A capture: charge, and keep the rest of the hold.")
    ] = False,
    capture_id: Annotated[
        str | None, key_option("Names the capture; a fresh one if unset. With --keep-open only.")
    ] = None,
    overage: SettleOverage = None,
    label: Labels = None,
    provider: Provider = "",
    model: Model = "",
    input_tokens: Tokens = 0,
    output_tokens: Tokens = 0,
    unit: Unit = "",
) -> None:
    """Charge what a job cost; end its hold."""
    if capture_id and not keep_open:
        raise UsageError("--capture-id names a capture: give --keep-open too")
    amount_micros = session.amount(amount)
    labels = labels_of(label)
    usage = usage_of(provider, model, input_tokens, output_tokens)
    with session.client() as client:
        session.will_change()
        own_id = session.key("--capture-id", capture_id) if keep_open else ""
        done = client.settle(
            account,
            amount_micros,
            reservation_id=reservation_id,
            unit=unit,
            keep_open=keep_open,
            capture_id=own_id,
            overage=overage,
            labels=labels,
            usage=usage,
        )
    named = {"reservation_id": reservation_id} | ({"capture_id": own_id} if keep_open else {})
    rows = [
        ("reservation", reservation_id),
        ("capture", own_id),
        ("from the hold", session.shown(done.from_hold_micros)),
        ("beyond the hold", session.shown(done.overage_micros) if done.overage_micros else ""),
        ("not charged", session.shown(done.shortfall_micros) if done.shortfall_micros else ""),
        ("released", "" if keep_open else session.shown(done.released_micros)),
        ("late", "the reservation had expired" if done.late else ""),
        ("available", session.shown(done.balance.available_micros)),
    ]
    charged = f"Charged {session.shown(done.charged_micros)}"
    session.show(
        named | json_values.plain(done),
        f"{charged} before; nothing now." if done.replayed else f"{charged}.",
        tables.facts(rows),
    )


@command
def release(
    session: Session, account: Account, reservation_id: ReservationId, unit: Unit = ""
) -> None:
    """Give back what a hold still holds."""
    with session.client() as client:
        session.will_change()
        done = client.release(account, reservation_id=reservation_id, unit=unit)
    ended = done.reservation
    session.show(
        done,
        f"Released {session.shown(ended.released_micros)}."
        if done.changed
        else f"It had ended before: {ended.state}.",
        tables.facts(
            [
                ("reservation", ended.reservation_id),
                ("captured", session.shown(ended.captured_micros)),
                ("available", session.shown(done.balance.available_micros)),
            ]
        ),
    )


@command
def extend(
    session: Session,
    account: Account,
    reservation_id: ReservationId,
    ttl: Ttl = None,
    add: Annotated[str | None, amount_option("Hold so much more.")] = None,
    on_expiry: OnExpiryOption = None,
    extend_id: Annotated[
        str | None, key_option("Names the extension; with --add, a fresh one if unset.")
    ] = None,
    unit: Unit = "",
) -> None:
    """Hold longer, hold more, or have it charged if nobody ends it."""
    if ttl is None and add is None and on_expiry is None:
        raise UsageError("give at least one of --ttl, --add and --on-expiry")
    add_amount_micros = session.optional_amount(add)
    with session.client() as client:
        session.will_change()
        own_id = session.key("--extend-id", extend_id) if add_amount_micros else extend_id or ""
        done = client.extend(
            account,
            reservation_id=reservation_id,
            unit=unit,
            ttl=ttl,
            add_amount_micros=add_amount_micros,
            on_expiry=on_expiry,
            extend_id=own_id,
        )
    named = {"reservation_id": reservation_id} | ({"extend_id": own_id} if own_id else {})
    session.show(
        named | json_values.plain(done),
        f"Holds {session.shown(done.held_micros)} until {times.shown(done.expire_time)}, "
        f"then {done.on_expiry}.",
        tables.facts(
            [
                ("reservation", reservation_id),
                ("available", session.shown(done.balance.available_micros)),
            ]
        ),
    )
