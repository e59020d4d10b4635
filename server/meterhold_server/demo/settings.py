"""Settings of the demo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, PositiveInt

from meterhold_server.config import EngineSettings


class DemoSettings(EngineSettings):
    """Which trace to replay, and how."""

    trace: Annotated[
        Path | None,
        Field(description="CSV of TIMESTAMP,ContextTokens,GeneratedTokens; without one, our own"),
    ] = None
    requests: Annotated[
        PositiveInt, Field(description="replay so many requests, from the start of the trace")
    ] = 4000
    accounts: Annotated[
        PositiveInt, Field(le=10_000, description="accounts that share the requests")
    ] = 50
    seed: Annotated[int, Field(description="who sends what, who has too little, what crashes")] = (
        2023
    )
    speed: Annotated[float, Field(ge=1, le=100_000, description="times faster than the trace")] = (
        60.0
    )
    in_flight_max: Annotated[PositiveInt, Field(description="requests at work at once")] = 64
    output_tokens_max: Annotated[
        PositiveInt, Field(le=10_000_000, description="what a hold assumes will be generated")
    ] = 1000
    data_directory: Annotated[
        Path | None, Field(description="not used: the demo makes a folder and removes it")
    ] = None
    log_level: Annotated[str, Field(pattern="^(debug|info|warning|error)$")] = "warning"
