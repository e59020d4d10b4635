"""The price table and the callers, as written in `settings.toml`."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from examples.llm_proxy.prices import Model

PATH = Path(__file__).with_name("settings.toml")


@dataclass(frozen=True, slots=True)
class Settings:
    """`accounts` are keyed by the SHA-256 of a bearer token, in hex, `models` by their name."""

    max_output_tokens: int
    models: Mapping[str, Model]
    accounts: Mapping[str, str]

    def account_of(self, authorization: str) -> str | None:
        """Whose token an `authorization` header brings; None if nobody's.

        A hash is looked up, so that the file holds no secret and the time it takes tells none.
        """
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer":
            return None
        return self.accounts.get(hashlib.sha256(token.encode()).hexdigest())


def load(path: Path = PATH) -> Settings:
    """Read a settings file. A price that is missing is a TypeError, before anything is sold."""
    written = tomllib.loads(path.read_text())
    return Settings(
        max_output_tokens=written["max_output_tokens"],
        models={name: Model(name=name, **prices) for name, prices in written["models"].items()},
        accounts=written["callers"],
    )
