"""Each broken variant is caught in time, by a check that is meant for it; unbroken, those lives are sound."""

from __future__ import annotations

import pytest

from tests.simulation.life import live
from tests.simulation.scenarios import SCENARIOS
from tests.simulation.variants import NOT_CAUGHT, VARIANTS, find


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", VARIANTS)
def test_a_broken_variant_is_caught(name: str) -> None:
    variant = VARIANTS[name]
    seed, found = find(variant)
    assert seed <= variant.seeds
    live(SCENARIOS[variant.scenario], seed)  # it is the variant that breaks this life
    assert any(words in found for words in variant.caught)


def test_what_is_not_caught_is_no_variant_that_counts() -> None:
    assert not {v.name for v in NOT_CAUGHT} & set(VARIANTS)
    assert len(VARIANTS) >= 10
