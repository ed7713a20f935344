"""Very many lives of all scenarios, on all cores: `make soak`. Says at once what ends badly.

python -m tests.simulation.soak [--lives 100000] [--first 1] [--jobs 2]
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

from tests.simulation.invariants import Violation
from tests.simulation.life import live, shortest
from tests.simulation.scenarios import SCENARIOS

_CHUNK = 50


@dataclass(frozen=True, slots=True)
class Lives:
    """Some lives of a scenario, and how they ended."""

    scenario: str
    count: int
    met: Counter[str]
    failed: tuple[str, ...]
    """Of each that ended badly, the shortest history found."""


def _live(scenario: str, seeds: range) -> Lives:
    met, failed = Counter[str](), list[str]()
    for seed in seeds:
        try:
            met += live(SCENARIOS[scenario], seed).met
        except Violation:
            failed.append(shortest(SCENARIOS[scenario], seed))
    return Lives(scenario, len(seeds), met, tuple(failed))


def _chunks(lives: int, first: int) -> Iterator[tuple[str, range]]:
    """All scenarios go on at the same time, each at the pace of its share."""
    shares = sum(s.share for s in SCENARIOS.values())
    ends = {name: first + round(lives * s.share / shares) for name, s in SCENARIOS.items()}
    for start in range(first, max(ends.values()), _CHUNK):
        for name, end in ends.items():
            if start < end:
                yield name, range(start, min(start + _CHUNK, end))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.soak", description=__doc__)
    parser.add_argument("--lives", type=int, default=100_000)
    parser.add_argument("--first", type=int, default=1, help="the first seed of each scenario")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args()
    began, lived, failed = time.monotonic(), Counter[str](), Counter[str]()
    met: dict[str, Counter[str]] = {name: Counter() for name in SCENARIOS}
    with ProcessPoolExecutor(given.jobs) as pool:
        work = list(_chunks(given.lives, given.first))
        for done in pool.map(_live, *zip(*work, strict=True)):
            lived[done.scenario] += done.count
            met[done.scenario] += done.met
            failed[done.scenario] += len(done.failed)
            _say(*(f"{text}\n" for text in done.failed))
    lacking = 0
    for name, scenario in SCENARIOS.items():
        missing = [what for what in scenario.meets if not met[name][what]]
        lacking += len(missing)
        told = f"; NOT MET: {', '.join(missing)}" if missing else ""
        _say(f"{name:<16} {lived[name]:>7,} lives, {failed[name]} ended badly{told}")
    minutes = (time.monotonic() - began) / 60
    _say(f"{lived.total():,} lives in {minutes:.1f} min, {failed.total()} of them ended badly")
    return 1 if failed.total() or lacking else 0


def _say(*lines: str) -> None:
    sys.stdout.writelines(f"{line}\n" for line in lines)
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
