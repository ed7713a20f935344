"""The same scenario and seed give the same life, down to the last message, in any process."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.simulation.invariants import Violation
from tests.simulation.life import fingerprint, live
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


def test_a_failure_says_how_to_see_it_again() -> None:
    variant = VARIANTS["progress told before commit"]
    seed, _ = find(variant)
    with variant.broken(), pytest.raises(Violation) as caught:
        live(SCENARIOS[variant.scenario], seed)
    lines = str(caught.value).splitlines()
    assert "never was" in lines[0]
    assert len(lines) > 5
    assert lines[-1].endswith(f"again: python -m tests.simulation {variant.scenario} {seed}")
