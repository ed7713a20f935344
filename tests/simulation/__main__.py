"""Lives of a scenario: `python -m tests.simulation SCENARIO SEED [COUNT]`."""

from __future__ import annotations

import sys
import time

from tests.simulation.invariants import Violation
from tests.simulation.life import fingerprint, live, total, trace
from tests.simulation.scenarios import SCENARIOS


def main() -> int:
    name, seed, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 1
    names = list(SCENARIOS) if name == "all" else [name]
    failed = 0
    for each in names:
        lives = []
        start = time.process_time()
        for n in range(seed, seed + count):
            try:
                lives.append(live(SCENARIOS[each], n))
            except Violation as violation:
                failed += 1
                text = str(violation)
                print(text if count == 1 else text.splitlines()[0] + "\n    " + text.splitlines()[-1])  # noqa: T201
        took = time.process_time() - start
        if count == 1 and lives:
            print("\n".join(trace(lives[0])), fingerprint(lives[0]), sep="\n")  # noqa: T201
        met = total(lives)
        healed = max((life.healed_s for life in lives), default=0.0)
        print(f"{each}: {took / count * 1000:.0f} ms a life; whole after {healed:.1f} s at the most")  # noqa: T201
        if count > 1:
            print("   ", ", ".join(f"{what} {n}" for what, n in sorted(met.items())))  # noqa: T201
            lacking = [what for what in SCENARIOS[each].meets if not met[what]]
            if lacking:
                print("    NOT MET:", lacking)  # noqa: T201
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
