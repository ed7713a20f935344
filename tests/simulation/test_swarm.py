"""Swarms of lives: each scenario over many seeds, and each must meet what it is about.

`SEEDS` says how many lives in all, `FIRST_SEED` from which on. For very many: `make soak`.
"""

from __future__ import annotations

import os
from collections import Counter
from typing import Final

import pytest

from tests.simulation.invariants import Violation
from tests.simulation.life import live, shortest
from tests.simulation.scenarios import SCENARIOS

SEEDS: Final = int(os.environ.get("SEEDS", "2000"))
FIRST: Final = int(os.environ.get("FIRST_SEED", "1"))
MEETS_ALL: Final = 1000
"""In so many lives everything is met that a scenario is about."""
MOST_SHOWN: Final = 5

_SHARES: Final = sum(s.share for s in SCENARIOS.values())


@pytest.mark.timeout(0)
@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_holds_and_meets_what_it_is_about(name: str) -> None:
    scenario, met, failed = SCENARIOS[name], Counter[str](), list[str]()
    for seed in range(FIRST, FIRST + round(SEEDS * scenario.share / _SHARES)):
        try:
            met += live(scenario, seed).met
        except Violation:
            failed.append(shortest(scenario, seed))
            if len(failed) == MOST_SHOWN:
                break
    assert not failed, "\n\n".join(failed)
    lacking = [what for what in scenario.meets if not met[what]]
    assert SEEDS < MEETS_ALL or not lacking, f"no life of {name} has met: {', '.join(lacking)}"
