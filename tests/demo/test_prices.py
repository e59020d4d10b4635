"""What tokens cost, to the micro."""

from __future__ import annotations

import pytest

from meterhold_server.demo.prices import Model

MODEL = Model("a provider", "a model", 2_500_000, 10_000_000)
CHEAP = Model("a provider", "a cheap model", 150_000, 600_000)


@pytest.mark.parametrize(
    ("model", "input_tokens", "output_tokens", "micros"),
    [
        (MODEL, 374, 44, 1375),
        (MODEL, 1, 0, 3),
        (MODEL, 0, 1, 10),
        (MODEL, 0, 0, 0),
        (CHEAP, 1, 0, 1),
        (CHEAP, 1, 1, 1),
        (CHEAP, 2, 1, 1),
        (CHEAP, 3, 1, 2),
        (CHEAP, 1_000_000, 1_000_000, 750_000),
    ],
)
def test_a_cost_is_rounded_up_once_at_the_end(
    model: Model, input_tokens: int, output_tokens: int, micros: int
) -> None:
    assert model.cost_micros(input_tokens, output_tokens) == micros


def test_large_costs_are_exact() -> None:
    assert MODEL.cost_micros(10**18 + 1, 0) == 25 * 10**17 + 3
