"""The tables: the one source of the schema. Migrations are tested to lead to exactly this.

`account_id` leads every primary key and unique index but that of `claim`, so that the schema can be
distributed by it. CHECK constraints repeat what `core.invariants` says, as far as one row can tell:
they are the last wall, never the rule.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Date,
    DateTime,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, UUID

from meterhold_server.core.credentials import Scope
from meterhold_server.core.model import (
    AllowancePeriod,
    ClaimKind,
    EntryKind,
    LotCategory,
    OnExpiry,
    PendingState,
    ReservationState,
)

REVISION = "0026"
"""The migration that the code needs. A server refuses a database before it, and one after it whose
`schema_window` begins later."""

APPLICATION_NAME = "meterhold"
"""What the database's connections are called, followed by the `REVISION` of their server."""

APPLICATION_ROLE = "meterhold_app"
"""The role that a server works as: it may not change or remove entries."""

READER_ROLE = "meterhold_reader"
"""The role that a server reads as for its callers: it sees one namespace, the one that is set."""

PAGED_RESERVATIONS = "create_time > '-infinity'::timestamptz"
"""True of every reservation. A query must say it to be answered by the index of pages."""

RARE_KINDS = "kind NOT IN ('DEBIT', 'CAPTURE')"
"""True of entries of all kinds but the two that most entries are.

A query must say it to be answered by the index of the others, which those two never touch.
"""

metadata = MetaData(
    naming_convention={
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "pk": "pk_%(table_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)


def _micros(name: str) -> Column[int]:
    return Column(name, BigInteger, nullable=False)


def _time(name: str, *, nullable: bool = False) -> Column[Any]:
    return Column(name, DateTime(timezone=True), nullable=nullable)


def _json(name: str, *, nullable: bool = True) -> Column[Any]:
    return Column(name, JSONB(none_as_null=True), nullable=nullable)


def _account_id() -> Column[Any]:
    return Column("account_id", UUID(as_uuid=False), nullable=False)


def _one_of(column: str, values: type[StrEnum]) -> CheckConstraint:
    names = ", ".join(f"'{value}'" for value in values)
    return CheckConstraint(f"{column} IN ({names})", name=column)


account = Table(
    "account",
    metadata,
    _account_id(),
    Column("namespace", Text, nullable=False),
    Column("account", Text, nullable=False),
    Column("unit", Text, nullable=False),
    Column("seq", BigInteger, nullable=False),
    _micros("granted_micros"),
    _micros("spent_micros"),
    _micros("expired_micros"),
    _micros("revoked_micros"),
    _micros("refunded_micros"),
    _micros("held_micros"),
    _micros("held_on_credit_micros"),
    _micros("lots_available_micros"),
    _micros("debt_micros"),
    _micros("credit_limit_micros"),
    Column("holds_use_credit", Boolean, nullable=False),
    _time("next_expire_time", nullable=True),
    _time("create_time"),
    Column("frozen", Boolean, nullable=False, server_default=text("false")),
    Column("pending_micros", BigInteger, nullable=False, server_default=text("0")),
    PrimaryKeyConstraint("account_id"),
    CheckConstraint(
        "granted_micros + refunded_micros - spent_micros - expired_micros - revoked_micros"
        " = lots_available_micros - debt_micros - held_on_credit_micros + held_micros",
        name="remaining_is_available_and_held",
    ),
    CheckConstraint(
        "seq >= 0 AND granted_micros >= 0 AND spent_micros >= 0 AND expired_micros >= 0"
        " AND revoked_micros >= 0 AND refunded_micros >= 0 AND lots_available_micros >= 0"
        " AND debt_micros >= 0 AND credit_limit_micros >= 0",
        name="not_negative",
    ),
    CheckConstraint(
        "held_on_credit_micros >= 0 AND held_on_credit_micros <= held_micros", name="held"
    ),
    CheckConstraint("debt_micros = 0 OR lots_available_micros = 0", name="debt_is_repaid_first"),
    Index(None, "next_expire_time", postgresql_where=text("next_expire_time IS NOT NULL")),
    Index("ix_account_by_name", "namespace", text('account COLLATE "C"'), text('unit COLLATE "C"')),
    postgresql_with={"fillfactor": 70},
)

lot = Table(
    "lot",
    metadata,
    _account_id(),
    Column("seq", BigInteger, nullable=False),
    _micros("granted_micros"),
    _micros("available_micros"),
    _micros("held_micros"),
    Column("live", Boolean, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("category", Text, nullable=False),
    _time("expire_time", nullable=True),
    _time("create_time"),
    Column("idempotency_key", Text, nullable=False),
    _json("cash"),
    _json("source"),
    Column("expired_micros", BigInteger, nullable=False, server_default=text("0")),
    Column("repaid_micros", BigInteger, nullable=False, server_default=text("0")),
    Column("revoked_micros", BigInteger, nullable=False, server_default=text("0")),
    Column("revoked_here_micros", BigInteger, nullable=False, server_default=text("0")),
    _json("revocations"),
    PrimaryKeyConstraint("account_id", "seq"),
    CheckConstraint(
        "available_micros >= 0 AND held_micros >= 0 AND expired_micros >= 0"
        " AND revoked_here_micros >= 0"
        " AND available_micros + held_micros + expired_micros + revoked_here_micros"
        " <= granted_micros",
        name="within_granted",
    ),
    CheckConstraint(
        "revoked_here_micros <= revoked_micros"
        " AND revoked_micros + expired_micros <= granted_micros",
        name="revoked",
    ),
    CheckConstraint("repaid_micros >= 0", name="repaid"),
    # The index of live lots hangs on this column and not on the amounts, so that an update of the
    # amounts alone stays a heap-only one.
    CheckConstraint("live = (available_micros > 0 OR held_micros > 0)", name="live"),
    _one_of("category", LotCategory),
    Index("ix_lot_live", "account_id", postgresql_where=text("live")),
    postgresql_with={"fillfactor": 70},
)

reservation = Table(
    "reservation",
    metadata,
    _account_id(),
    Column("reservation_id", Text, nullable=False),
    Column("state", Text, nullable=False),
    _micros("reserved_micros"),
    _micros("open_micros"),
    _micros("on_credit_micros"),
    _micros("captured_micros"),
    _micros("from_hold_micros"),
    _micros("released_micros"),
    _micros("expiry_charged_micros"),
    Column("expiry_charge_seq", BigInteger, nullable=False),
    _json("parts", nullable=False),
    Column("on_expiry", Text, nullable=False),
    Column("late", Boolean, nullable=False),
    Column("ttl_microseconds", BigInteger, nullable=False),
    _time("expire_time"),
    _time("create_time"),
    _time("end_time", nullable=True),
    _json("opening", nullable=False),
    _json("closing"),
    _json("labels"),
    _json("metadata"),
    PrimaryKeyConstraint("account_id", "reservation_id"),
    CheckConstraint(
        "reserved_micros > 0 AND open_micros >= 0 AND on_credit_micros >= 0"
        " AND captured_micros >= 0 AND from_hold_micros >= 0 AND released_micros >= 0"
        " AND expiry_charged_micros >= 0",
        name="not_negative",
    ),
    CheckConstraint(
        "reserved_micros = from_hold_micros + released_micros + expiry_charged_micros"
        " + CASE WHEN state = 'ACTIVE' THEN open_micros ELSE 0 END",
        name="nothing_lost",
    ),
    CheckConstraint("(state = 'ACTIVE') = (end_time IS NULL)", name="ended"),
    CheckConstraint("(state = 'SETTLED') = (closing IS NOT NULL)", name="closed"),
    _one_of("state", ReservationState),
    _one_of("on_expiry", OnExpiry),
    Index(
        "ix_reservation_active",
        "account_id",
        "expire_time",
        postgresql_where=text("state = 'ACTIVE'"),
    ),
    # For pages alone, which say so. A planner that has seen no rows yet would take it for as good a
    # way to find a reservation by its id as the primary key, and keep that plan.
    Index(
        "ix_reservation_newest",
        "account_id",
        "create_time",
        "reservation_id",
        postgresql_where=text(PAGED_RESERVATIONS),
    ),
    # Until a vacuum comes, a hold that has ended is in the way of those who look for what is next
    # due in its account. By default one comes when a fifth of all holds there ever were has ended.
    postgresql_with={
        "fillfactor": 85,
        "autovacuum_vacuum_scale_factor": 0.01,
        "autovacuum_vacuum_threshold": 5000,
    },
)

charge_refund = Table(
    "charge_refund",
    metadata,
    _account_id(),
    Column("charge_seq", BigInteger, nullable=False),
    _micros("refunded_micros"),
    PrimaryKeyConstraint("account_id", "charge_seq"),
    CheckConstraint("refunded_micros > 0", name="something"),
    comment="How much of a charge has been given back by RefundCharge",
)

allowance = Table(
    "allowance",
    metadata,
    _account_id(),
    _micros("amount_micros"),
    Column("period", Text, nullable=False),
    _time("anchor_time"),
    Column("priority", Integer, nullable=False),
    _time("until_time", nullable=True),
    _time("refill_time", nullable=True),
    PrimaryKeyConstraint("account_id"),
    CheckConstraint("amount_micros >= 0", name="not_negative"),
    CheckConstraint("(period = 'OFF') = (refill_time IS NULL)", name="refilled"),
    _one_of("period", AllowancePeriod),
)

pending_grant = Table(
    "pending_grant",
    metadata,
    _account_id(),
    Column("idempotency_key", Text, nullable=False),
    _micros("amount_micros"),
    _time("effective_time"),
    Column("state", Text, nullable=False),
    Column("entry_seq", BigInteger, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("category", Text, nullable=False),
    _time("expire_time", nullable=True),
    _time("create_time"),
    Column("reason", Text, nullable=False),
    _json("cash"),
    _json("source"),
    _json("labels"),
    _json("metadata"),
    _json("revocations", nullable=False),
    PrimaryKeyConstraint("account_id", "idempotency_key"),
    CheckConstraint("amount_micros > 0", name="something"),
    CheckConstraint("(state = 'LANDED') = (entry_seq > 0)", name="landed"),
    _one_of("state", PendingState),
    _one_of("category", LotCategory),
    Index(
        "ix_pending_grant_effective",
        "account_id",
        "effective_time",
        postgresql_where=text("state = 'PENDING'"),
    ),
    comment="Grants that were made before their effective time",
)

tombstone = Table(
    "tombstone",
    metadata,
    Column("namespace", Text, nullable=False),
    Column("key", Text, nullable=False),
    _time("create_time"),
    _json("source"),
    _json("revocations", nullable=False),
    PrimaryKeyConstraint("namespace", "key"),
    comment="Revocations that came before their grant was there or effective",
)

account_default = Table(
    "account_default",
    metadata,
    Column("namespace", Text, nullable=False),
    Column("unit", Text, nullable=False),
    _micros("signup_micros"),
    Column("signup_lifetime_microseconds", BigInteger),
    _json("allowance"),
    PrimaryKeyConstraint("namespace", "unit"),
    CheckConstraint("signup_micros >= 0", name="not_negative"),
    comment="What accounts get when they are created",
)

entry = Table(
    "entry",
    metadata,
    _account_id(),
    Column("seq", BigInteger, nullable=False),
    Column("kind", Text, nullable=False),
    _micros("amount_micros"),
    _micros("remaining_after_micros"),
    _time("create_time"),
    Column("reservation_id", Text),
    Column("key", Text),
    Column("related_seq", BigInteger),
    _json("parts", nullable=False),
    _json("labels"),
    _json("usage"),
    _json("metadata"),
    Column("reason", Text),
    PrimaryKeyConstraint("account_id", "seq"),
    CheckConstraint("seq > 0 AND (amount_micros <> 0 OR kind = 'CORRECTION')", name="something"),
    CheckConstraint(
        "(amount_micros > 0) = (kind IN ('GRANT', 'REFUND', 'ALLOWANCE', 'REINSTATEMENT'))"
        " OR kind = 'CORRECTION'",
        name="sign",
    ),
    _one_of("kind", EntryKind),
    Index(
        "ix_entry_create_time",
        "create_time",
        postgresql_using="brin",
        postgresql_with={"autosummarize": "on"},
    ),
    Index(
        "ix_entry_rare_kinds",
        "account_id",
        "kind",
        "seq",
        postgresql_where=text(RARE_KINDS),
    ),
)


def _receipt_columns() -> list[Column[Any]]:
    return [
        Column("entry_seq", BigInteger),
        _json("request", nullable=False),
        _json("answer", nullable=False),
        _time("create_time"),
    ]


claim = Table(
    "claim",
    metadata,
    Column("namespace", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("key", Text, nullable=False),
    _account_id(),
    *_receipt_columns(),
    PrimaryKeyConstraint("namespace", "kind", "key"),
    _one_of("kind", ClaimKind),
    comment="Idempotency keys that are unique in the namespace",
)

account_claim = Table(
    "account_claim",
    metadata,
    _account_id(),
    Column("kind", Text, nullable=False),
    Column("key", Text, nullable=False),
    *_receipt_columns(),
    PrimaryKeyConstraint("account_id", "kind", "key"),
    _one_of("kind", ClaimKind),
    comment="Idempotency keys that are unique in the account",
)

charge_block = Table(
    "charge_block",
    metadata,
    _account_id(),
    Column("first_seq", BigInteger, nullable=False),
    Column("entry_count", Integer, nullable=False),
    _time("first_time"),
    _time("last_time"),
    Column("summed_labels", ARRAY(Text)),
    Column("varied_labels", ARRAY(Text)),
    PrimaryKeyConstraint("account_id", "first_seq", "entry_count"),
    CheckConstraint("first_seq > 0 AND entry_count > 0", name="something"),
    CheckConstraint("first_time <= last_time", name="times"),
    comment="Runs of entries whose charges were summed up, as a copy for reports",
)

charge_summary = Table(
    "charge_summary",
    metadata,
    _account_id(),
    Column("first_seq", BigInteger, nullable=False),
    Column("entry_count", Integer, nullable=False),
    Column("label", Text, nullable=False),
    Column("number", Integer, nullable=False),
    Column("value", Text),
    Column("day", Date, nullable=False),
    Column("model", Text, nullable=False),
    Column("provider", Text, nullable=False),
    _micros("charged_micros"),
    Column("charge_count", Integer, nullable=False),
    PrimaryKeyConstraint("account_id", "first_seq", "entry_count", "label", "number"),
    CheckConstraint("charge_count > 0", name="something"),
    comment="The sums of the charges of a block, without labels and by the values of each",
)

credential = Table(
    "credential",
    metadata,
    Column("credential_id", Text, nullable=False),
    Column("namespace", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("scopes", ARRAY(Text), nullable=False),
    Column("secret_hash", LargeBinary),
    Column("certificate_name", Text),
    Column("operations_per_second_max", Integer),
    _time("create_time"),
    _time("last_use_time", nullable=True),
    _time("revoke_time", nullable=True),
    PrimaryKeyConstraint("credential_id"),
    CheckConstraint(
        "cardinality(scopes) > 0 AND scopes <@ ARRAY["
        + ", ".join(f"'{scope}'" for scope in Scope)
        + "]",
        name="scopes",
    ),
    CheckConstraint("(secret_hash IS NULL) <> (certificate_name IS NULL)", name="one_proof"),
    CheckConstraint("octet_length(secret_hash) = 32", name="sha256"),
    CheckConstraint("operations_per_second_max > 0", name="limit"),
    Index("ix_credential_namespace", "namespace", "create_time", "credential_id"),
    Index(
        "ix_credential_certificate_name",
        "certificate_name",
        unique=True,
        postgresql_where=text("revoke_time IS NULL"),
    ),
)

audit_record = Table(
    "audit_record",
    metadata,
    Column("audit_id", UUID(as_uuid=False), server_default=text("gen_random_uuid()")),
    Column("namespace", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("account", Text, nullable=False),
    Column("unit", Text, nullable=False),
    Column("subject", Text, nullable=False),
    _json("details", nullable=False),
    _time("create_time"),
    PrimaryKeyConstraint("audit_id"),
    Index("ix_audit_record_newest", "namespace", "create_time", "audit_id"),
)

schema_window = Table(
    "schema_window",
    metadata,
    Column("oldest_served_revision", Text, nullable=False),
    PrimaryKeyConstraint("oldest_served_revision"),
    comment="The oldest revision whose servers this schema serves: one row",
)
