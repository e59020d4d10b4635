"""Settings of `meterhold-server prove`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, PositiveInt, SecretStr, model_validator

from meterhold_server.config import CommandSettings


class ProveSettings(CommandSettings):
    """Which service to prove, and with how much."""

    target: Annotated[str, Field(description="host:port of a running service")] = "127.0.0.1:7717"
    operations: Annotated[PositiveInt, Field(description="how many calls to make")] = 2000
    seed: Annotated[int | None, Field(description="which calls; without one, drawn and told")] = (
        None
    )
    accounts: Annotated[
        PositiveInt, Field(le=1000, description="fresh accounts that share the calls")
    ] = 8
    in_flight_max: Annotated[PositiveInt, Field(le=1000, description="callers at once")] = 16
    tls: Annotated[bool, Field(description="speak TLS; CA files of the system by default")] = False
    tls_ca_certificate: Annotated[
        Path | None, Field(description="PEM file of the CA; means TLS")
    ] = None
    api_key: Annotated[SecretStr | None, Field(description="sent as a bearer token")] = None
    log_level: Annotated[str, Field(pattern="^(debug|info|warning|error)$")] = "warning"

    @model_validator(mode="after")
    def _ca_means_tls(self) -> ProveSettings:
        if self.tls_ca_certificate is not None:
            self.tls = True
        return self
