"""What PostgreSQL says a schema is, in its own words, so that two can be compared."""

from __future__ import annotations

from typing import Any, Final

import psycopg

_QUESTIONS: Final = {
    "tables": """
        SELECT relname, relkind, relpersistence, reloptions, obj_description(c.oid, 'pg_class')
        FROM pg_class c WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'S', 'v')
    """,
    "columns": """
        SELECT relname, attname, rank() OVER (PARTITION BY attrelid ORDER BY attnum),
            format_type(atttypid, atttypmod), attnotnull, attidentity, attgenerated,
            pg_get_expr(adbin, adrelid), col_description(attrelid, attnum)
        FROM pg_attribute a JOIN pg_class c ON c.oid = attrelid
            LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
        WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND attnum > 0
            AND NOT attisdropped
    """,
    "constraints": """
        SELECT relname, conname, contype, convalidated, condeferrable, pg_get_constraintdef(n.oid)
        FROM pg_constraint n JOIN pg_class c ON c.oid = conrelid
        WHERE relnamespace = 'public'::regnamespace
    """,
    "indexes": """
        SELECT relname, i.indexrelid::regclass::text, pg_get_indexdef(i.indexrelid), indisvalid
        FROM pg_index i JOIN pg_class c ON c.oid = indrelid
        WHERE relnamespace = 'public'::regnamespace
    """,
    "triggers": """
        SELECT relname, tgname, tgenabled, pg_get_triggerdef(t.oid)
        FROM pg_trigger t JOIN pg_class c ON c.oid = tgrelid WHERE NOT tgisinternal
    """,
    "functions": "SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace",
    "types": """
        SELECT typname FROM pg_type WHERE typnamespace = 'public'::regnamespace AND typtype <> 'c'
            AND typcategory <> 'A'
    """,
    "grants": """
        SELECT relname, relacl::text FROM pg_class
        WHERE relnamespace = 'public'::regnamespace AND relacl IS NOT NULL
    """,
    "row security": """
        SELECT relname, relrowsecurity, relforcerowsecurity FROM pg_class
        WHERE relnamespace = 'public'::regnamespace AND relrowsecurity
    """,
    "policies": """
        SELECT tablename, policyname, permissive, roles::text, cmd, qual, with_check
        FROM pg_policies WHERE schemaname = 'public'
    """,
}
ONLY_IN_MIGRATIONS: Final = frozenset(
    {"triggers", "functions", "grants", "row security", "policies"}
)
"""Fences around the tables, which the metadata does not tell of."""


Catalog = dict[str, list[tuple[Any, ...]]]


def catalog(url: str) -> Catalog:
    """Everything in the schema `public` but Alembic's own table, in a fixed order."""
    with psycopg.connect(url) as connection:
        return {
            name: sorted(
                (
                    row
                    for row in connection.execute(question.encode()).fetchall()
                    if row[0] != "alembic_version"
                ),
                key=repr,
            )
            for name, question in _QUESTIONS.items()
        }
