"""What tokens cost, in whole micros: no float comes near an amount."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

_TOKENS_PRICED = 1_000_000


class Tokens(NamedTuple):
    """Tokens by what they cost. `input` does not include those served from a cache."""

    input: int = 0
    cached_input: int = 0
    output: int = 0


@dataclass(frozen=True, slots=True)
class Model:
    """One row of the price table. Prices are micros per million tokens, 0 or more."""

    provider: str
    name: str
    input_micros_per_million: int
    cached_input_micros_per_million: int
    output_micros_per_million: int

    def cost_micros(self, tokens: Tokens) -> int:
        """What so many tokens cost, rounded up to the micro once, at the end."""
        millionths = (
            tokens.input * self.input_micros_per_million
            + tokens.cached_input * self.cached_input_micros_per_million
            + tokens.output * self.output_micros_per_million
        )
        return -(-millionths // _TOKENS_PRICED)
