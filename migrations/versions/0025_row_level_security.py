"""Reads for a caller see one namespace: that of their credential, and nothing if none is set.

Servers read for their callers as a role of its own. The role that writes sees every row, as it
carries out the operations of many namespaces in one transaction; and so does the owner, who has to
say that it is maintenance: the tables are FORCEd upon it.
"""

from __future__ import annotations

from alembic import op

revision = "0025"
down_revision = "0024"

APPLICATION = "meterhold_app"
READER = "meterhold_reader"
OF_NAMESPACE = ("account", "claim", "tombstone", "account_default", "audit_record")
OF_ACCOUNT = (
    "lot",
    "reservation",
    "entry",
    "account_claim",
    "charge_refund",
    "allowance",
    "pending_grant",
    "charge_block",
    "charge_summary",
)

NAMESPACE = "(SELECT current_setting('meterhold.namespace', true))"
MAINTENANCE = "(SELECT current_setting('meterhold.maintenance', true)) = 'on'"


def upgrade() -> None:
    op.execute(
        f"""
        DO $$ BEGIN
            IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{READER}') THEN
                CREATE ROLE {READER} NOLOGIN;
            END IF;
            IF NOT pg_has_role('{APPLICATION}', '{READER}', 'MEMBER') THEN
                GRANT {READER} TO {APPLICATION};
            END IF;
        END $$
        """
    )
    for table in (*OF_NAMESPACE, *OF_ACCOUNT):
        op.execute(f"GRANT SELECT ON {table} TO {READER}")
    for table in OF_NAMESPACE:
        _fence(table, f"namespace = {NAMESPACE}")
    for table in OF_ACCOUNT:
        # Of the accounts it sees those of the namespace alone.
        _fence(table, f"EXISTS (SELECT FROM account a WHERE a.account_id = {table}.account_id)")


def _fence(table: str, visible: str) -> None:
    op.execute(f"CREATE POLICY of_caller ON {table} FOR SELECT TO {READER} USING ({visible})")
    op.execute(f"CREATE POLICY of_all ON {table} TO {APPLICATION} USING (true) WITH CHECK (true)")
    op.execute(f"CREATE POLICY of_owner ON {table} USING ({MAINTENANCE})")
    op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
    op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")


def downgrade() -> None:
    for table in (*OF_NAMESPACE, *OF_ACCOUNT):
        op.execute(f"ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY")
        for policy in ("of_caller", "of_all", "of_owner"):
            op.execute(f"DROP POLICY {policy} ON {table}")
        op.execute(f"REVOKE ALL ON {table} FROM {READER}")
    # The role itself stays: other databases of the cluster may use it.
