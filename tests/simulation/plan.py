"""What a seed stands for: how big the deployment is, what load it gets, and what goes wrong."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import timedelta

from meterhold_server.batching.lane import LaneLimits
from meterhold_server.core.model import Rules
from simulation.database import Chances

RULES = Rules(
    ttl_default=timedelta(seconds=1), ttl_max=timedelta(days=7), settle_grace=timedelta(seconds=2)
)


@dataclass(frozen=True)
class Plan:
    """Times in seconds, chances for each message, faults of the deployment a second."""

    operations: int
    processes: int
    lanes: int
    sweepers: int
    accounts: int
    clients: int
    chains: bool
    refunds: bool
    latency_seconds: float
    timeout_seconds: float
    lost: float
    duplicated: float
    late: float
    database: Chances
    kills: float
    drains: float
    stops: float
    clock_steps: float
    crashes: float
    limits: LaneLimits


def plan_of(seed: int, operations: int, *, small: bool = False) -> Plan:
    """Each seed has its own few faults, at its own rates: swarms find more than an average does.

    A `small` one has histories that a search can take on.
    """
    chance = random.Random(f"plan {seed}")

    def sometimes(most: float) -> float:
        return chance.uniform(0.1, 1.0) * most if chance.random() < 0.5 else 0.0

    processes = chance.randint(1, 3)
    return Plan(
        operations=operations,
        processes=processes,
        lanes=chance.randint(1, 3),
        sweepers=chance.randint(1, processes),
        accounts=1 if small else chance.randint(2, 6),
        clients=4 if small else chance.randint(4, 16),
        chains=not small,
        refunds=not small,
        latency_seconds=chance.choice([0.0005, 0.001, 0.003]),
        timeout_seconds=chance.choice([0.03, 0.1, 0.5]),
        lost=sometimes(0.05),
        duplicated=sometimes(0.2),
        late=sometimes(0.1),
        database=Chances(
            cut=sometimes(0.01),
            freeze=sometimes(0.002),
            serialization_failure=sometimes(0.03),
            doubtful_commit=sometimes(0.01),
            slow=sometimes(0.03),
            stall=sometimes(0.005),
        ),
        kills=sometimes(1.0),
        drains=sometimes(0.5),
        stops=sometimes(1.0),
        clock_steps=sometimes(2.0),
        crashes=sometimes(0.5),
        limits=LaneLimits(
            batch_operations_max=chance.choice([2, 8, 256]),
            queue_operations_max=chance.choice([4, 64, 4096]),
            database_wait_seconds=1.0,
            transaction_seconds_max=1.5,
        ),
    )
