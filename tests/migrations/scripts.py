"""The migrations themselves."""

from __future__ import annotations

from types import ModuleType

from alembic.config import Config
from alembic.script import ScriptDirectory

from meterhold_server.storage import migrate


def migrations() -> list[ModuleType]:
    """All of them, from the first to the head."""
    config = Config()
    config.set_main_option("script_location", str(migrate.migrations_directory()))
    scripts = ScriptDirectory.from_config(config).walk_revisions()
    return [script.module for script in scripts][::-1]
