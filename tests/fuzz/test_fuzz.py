"""Nothing that is sent to a server harms it, or is answered with more or less than a definite code.

`python -m fuzz` does the same for longer.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from typing import Final

import pytest

from fuzz.prove import Plan, prove
from support.database import DatabaseServer, name_of

pytestmark = pytest.mark.slow

SEED: Final = int(os.environ.get("METERHOLD_TEST_SEED") or random.randrange(2**32))


@pytest.fixture
def urls(database_server: DatabaseServer, template: str) -> Iterator[list[str]]:
    """Of two fresh, migrated, empty databases."""
    made = [database_server.create_database(template) for _ in range(2)]
    yield made
    for url in made:
        database_server.drop_database(name_of(url))


async def test_nothing_that_is_sent_does_harm(urls: list[str]) -> None:
    print(f"METERHOLD_TEST_SEED={SEED}")  # noqa: T201 - to run a failure again
    plan = Plan(
        seed=SEED,
        requests=2_000,
        requests_of_strangers=400,
        mutants=20_000,
        calm_seconds=0.1,
        attack_seconds=0.15,
        siege_seconds=1.0,
    )
    report = await prove(plan, *urls)
    assert report.problems == []
    assert report.indefinite == 0
