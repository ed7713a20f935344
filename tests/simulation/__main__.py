"""Lives of a scenario: one with its trace, or many and what they met."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

from tests.simulation.invariants import Violation
from tests.simulation.life import Life, Scenario, fingerprint, live, shortest, total, trace
from tests.simulation.scenarios import SCENARIOS


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("scenario", choices=[*SCENARIOS, "all"])
    parser.add_argument("seed", type=int)
    parser.add_argument("count", type=int, nargs="?", default=1)
    parser.add_argument("--without", default="", help="numbers of faults that are left out, with commas")
    parser.add_argument("--shortest", action="store_true", help="look for the shortest bad history")
    given = parser.parse_args()
    scenarios = [s for s in SCENARIOS.values() if given.scenario in (s.name, "all")]
    if given.shortest:
        told = [shortest(s, given.seed) for s in scenarios]
        _say(*(text or "it ends well" for text in told))
        return 1 if any(told) else 0
    without = frozenset(int(number) for number in given.without.split(",") if number)
    ended_well = [_live(s, range(given.seed, given.seed + given.count), without) for s in scenarios]
    return 0 if all(ended_well) else 1


def _live(scenario: Scenario, seeds: Sequence[int], without: frozenset[int]) -> bool:
    """Whether all of these lives ended well."""
    lives: list[Life] = []
    start = time.process_time()
    for seed in seeds:
        try:
            lives.append(live(scenario, seed, without))
        except Violation as violation:
            lines = str(violation).splitlines()
            _say(*(lines if len(seeds) == 1 else (lines[0], f"    {lines[-1]}")))
    took_ms = (time.process_time() - start) / len(seeds) * 1000
    if len(seeds) == 1 and lives:
        _say(*trace(lives[0]), fingerprint(lives[0]))
    healed_s = max((life.healed_s for life in lives), default=0.0)
    _say(f"{scenario.name}: {took_ms:.0f} ms a life; whole after {healed_s:.1f} s at the most")
    if len(seeds) > 1:
        met = total(lives)
        _say("    " + ", ".join(f"{what} {count}" for what, count in sorted(met.items())))
        _say(*(f"    NOT MET: {what}" for what in scenario.meets if not met[what]))
    return len(lives) == len(seeds)


def _say(*lines: str) -> None:
    sys.stdout.writelines(f"{line}\n" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
