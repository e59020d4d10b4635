"""What LLM tokens cost. 1 credit = 1 US dollar, so that a price in micros is in micro-dollars.

List prices per million tokens, as published in mid-2025 on https://openai.com/api/pricing and
https://www.anthropic.com/pricing.
"""

from __future__ import annotations

from typing import Final, NamedTuple

_TOKENS_PRICED: Final = 1_000_000


class Model(NamedTuple):
    provider: str
    name: str
    input_micros_per_million: int
    output_micros_per_million: int

    def cost_micros(self, input_tokens: int, output_tokens: int) -> int:
        """What so many tokens cost, rounded up to the micro once, at the end."""
        millionths = (
            input_tokens * self.input_micros_per_million
            + output_tokens * self.output_micros_per_million
        )
        return -(-millionths // _TOKENS_PRICED)


MODELS: Final = (
    Model("openai", "gpt-4o", 2_500_000, 10_000_000),
    Model("openai", "gpt-4o-mini", 150_000, 600_000),
    Model("anthropic", "claude-sonnet-4", 3_000_000, 15_000_000),
)
