"""The same scenario and seed give the same life, down to the last message, in any process."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.simulation.invariants import Violation
from tests.simulation.life import fingerprint, live, shortest
from tests.simulation.scenarios import SCENARIOS
from tests.simulation.variants import VARIANTS, find


@pytest.mark.parametrize("name", ["everything", "two-of-each", "growing"])
def test_a_seed_gives_the_same_life_in_another_process(name: str) -> None:
    here = fingerprint(live(SCENARIOS[name], 7))
    command = [sys.executable, "-m", "tests.simulation", name, "7"]
    environment = {**os.environ, "PYTHONHASHSEED": "12345"}
    there = subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=60)
    assert here in there.stdout.split()
    assert fingerprint(live(SCENARIOS[name], 8)) != here


def test_a_failure_is_told_with_the_shortest_history_found_and_how_to_see_it_again() -> None:
    variant = VARIANTS["truncate without keeping"]
    scenario = SCENARIOS[variant.scenario]
    seed, _ = find(variant)
    with variant.broken():
        with pytest.raises(Violation) as caught:
            live(scenario, seed)
        told = shortest(scenario, seed).splitlines()
        without = frozenset(int(n) for n in told[-1].split("--without ")[1].split(","))
        with pytest.raises(Violation) as again:
            live(scenario, seed, without)
    whole = str(caught.value).splitlines()
    assert whole[0].startswith("L7")
    assert whole[-1].endswith(f"again: python -m tests.simulation {scenario.name} {seed}")
    assert told[0].startswith("L7")
    assert told == str(again.value).splitlines()
    assert without, "faults that had nothing to do with it are left out"
