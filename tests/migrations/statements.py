"""What a migration tells the database, found out without one, and what it must not tell it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from io import StringIO
from types import ModuleType
from typing import Final

from alembic.migration import MigrationContext
from alembic.operations import Operations

# Servers of the release before still read, write and name what these take away or change.
_CONTRACTS: Final = {
    r"DROP (TABLE|COLUMN|VIEW|FUNCTION|SCHEMA)\b": "drops what older servers use",
    r"\bRENAME (TO|COLUMN|CONSTRAINT)\b": "renames what older servers name",
    r"ALTER COLUMN \S+ (SET DATA )?TYPE\b": "changes a type that older servers know",
    r"ALTER COLUMN \S+ SET NOT NULL": "refuses what older servers write",
    r"ALTER COLUMN \S+ DROP DEFAULT": "refuses what older servers leave out",
    r"ADD COLUMN (?!.*\bDEFAULT\b).*\bNOT NULL\b": "refuses rows without it: give a DEFAULT",
    r"^REVOKE\b": "takes away a right that older servers use",
    r"^TRUNCATE\b": "removes what older servers read",
}

# These keep a lock that stops writers for as long as the table is long.
_STALLS: Final = {
    r"^CREATE (UNIQUE )?INDEX (?!CONCURRENTLY)": "builds an index not CONCURRENTLY",
    r"ADD CONSTRAINT \S+ (CHECK|FOREIGN KEY)(?!.*NOT VALID)": "adds a constraint not NOT VALID",
    r"ADD (CONSTRAINT \S+ )?(PRIMARY KEY|UNIQUE|EXCLUDE)\b(?!.*USING INDEX)": (
        "adds a key: build its index CONCURRENTLY, and add it USING INDEX"
    ),
    r"ADD COLUMN .*\b(BIG|SMALL)?SERIAL\b|ADD COLUMN .*\bGENERATED\b": "writes every row anew",
    r"ADD COLUMN .*\bDEFAULT .*\b(random|clock_timestamp|nextval|gen_random_uuid)\b": (
        "writes every row anew"
    ),
    r"ALTER COLUMN \S+ (SET DATA )?TYPE\b": "writes every row anew",
    r"^(UPDATE|DELETE FROM)\b": "goes through the rows: let a worker do so, in small transactions",
    r"^(CLUSTER|VACUUM FULL|LOCK)\b": "locks the table",
}


def statements(migration: ModuleType) -> list[str]:
    """The SQL of its `upgrade`, one statement an item, on one line each."""
    written = StringIO()
    context = MigrationContext.configure(
        dialect_name="postgresql", opts={"as_sql": True, "output_buffer": written}
    )
    with Operations.context(context):
        migration.upgrade()
    parts = re.split(r";\s*\n", written.getvalue() + "\n")
    return [" ".join(part.split()) for part in parts if part.strip()]


def contractions(sql: Sequence[str]) -> list[str]:
    """What servers of the revision before could not live with."""
    return list(_found(sql, _CONTRACTS))


def stalls(sql: Sequence[str]) -> list[str]:
    """What would stop writers for longer than a moment."""
    found = list(_found(sql, _STALLS))
    validating = [each for each in sql if "VALIDATE CONSTRAINT" in each]
    altering = [each for each in sql if each.startswith("ALTER TABLE") and each not in validating]
    if validating and altering:
        found.append(f"{validating[0]}: validates under the lock of {altering[0]}")
    for each in sql:
        built = re.match(r"CREATE (?:UNIQUE )?INDEX CONCURRENTLY (\S+)", each)
        if built and f"DROP INDEX CONCURRENTLY IF EXISTS {built[1]}" not in sql:
            found.append(f"{each}: cannot be tried again: drop it IF EXISTS before")
    return found


def _found(sql: Sequence[str], rules: dict[str, str]) -> Iterator[str]:
    made = {name for each in sql for name in re.findall(r"^CREATE TABLE (\S+)", each)}
    for each in sql:
        if made & set(re.findall(r"\w+", each)):
            continue  # nobody uses it yet
        for pattern, wrong in rules.items():
            if re.search(pattern, each, re.IGNORECASE):
                yield f"{each}: {wrong}"
