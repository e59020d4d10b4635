"""The application role, and the fences around the ledger.

Entries are append-only by two fences: the role that servers work as has no privilege to change
or remove them, and a trigger refuses it to everybody, the owner included. The triggers are ENABLE
ALWAYS: a plain one is passed by `session_replication_role = replica`.
"""

from __future__ import annotations

from alembic import op

revision = "0007"
down_revision = "0006"

ROLE = "meterhold_app"
MUTABLE = ("account", "lot", "reservation")
APPEND_ONLY = ("entry", "claim", "account_claim")


def upgrade() -> None:
    op.execute(
        f"""
        DO $$ BEGIN
            IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{ROLE}') THEN
                CREATE ROLE {ROLE} NOLOGIN;
            END IF;
            IF NOT pg_has_role(current_user, '{ROLE}', 'USAGE') THEN
                GRANT {ROLE} TO CURRENT_USER;
            END IF;
        END $$
        """
    )
    op.execute(f"GRANT SELECT ON alembic_version TO {ROLE}")
    for table in MUTABLE:
        op.execute(f"GRANT SELECT, INSERT, UPDATE ON {table} TO {ROLE}")
    for table in APPEND_ONLY:
        op.execute(f"GRANT SELECT, INSERT ON {table} TO {ROLE}")
    op.execute(
        """
        CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION 'the ledger is append-only: % on % is refused', TG_OP, TG_TABLE_NAME
                USING ERRCODE = 'integrity_constraint_violation';
        END $$
        """
    )
    for name, timing in (
        ("entry_keeps_rows", "BEFORE UPDATE OR DELETE ON entry FOR EACH ROW"),
        ("entry_keeps_all", "BEFORE TRUNCATE ON entry FOR EACH STATEMENT"),
    ):
        op.execute(f"CREATE TRIGGER {name} {timing} EXECUTE FUNCTION refuse_change()")
        op.execute(f"ALTER TABLE entry ENABLE ALWAYS TRIGGER {name}")


def downgrade() -> None:
    op.execute("DROP TRIGGER entry_keeps_all ON entry")
    op.execute("DROP TRIGGER entry_keeps_rows ON entry")
    op.execute("DROP FUNCTION refuse_change()")
    for table in (*MUTABLE, *APPEND_ONLY, "alembic_version"):
        op.execute(f"REVOKE ALL ON {table} FROM {ROLE}")
    # The role itself stays: other databases of the cluster may use it.
