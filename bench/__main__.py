"""The bench: geochain beside its peers, in one run, on real servers.

    python -m bench [--quick] [--only NAME …] [--out FOLDER] [--list]

Prints a table, and writes results.json, results.md and results.html. Exits 1 if something failed that could
be had; a goal that is missed is no failure.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bench import table
from bench.machine import look
from bench.measure import FULL, QUICK, SCALES, Bench, Measure, Scale
from bench.measures import ALL
from bench.results import Results, write
from bench.series import Comparison
from bench.servers import servers

_LEAST_SIZE: Final = 1_000


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="small sizes, at most 3 minutes")
    parser.add_argument("--scale", choices=sorted(SCALES), help="how much is measured (default: full)")
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", choices=[m.name for m in ALL], help="these measures alone"
    )
    parser.add_argument(
        "--sizes", nargs="+", type=int, metavar="EVENTS", help="of the logs that `growth` compares"
    )
    parser.add_argument("--out", type=Path, default=Path("bench-results"), help="folder for the results")
    parser.add_argument(
        "--folder", type=Path, default=Path("/var/tmp"), help="where the servers' data goes meanwhile"
    )
    parser.add_argument("--list", action="store_true", help="what can be measured")
    arguments = parser.parse_args()
    if arguments.list:
        for measure in ALL:
            print(f"{measure.name:20} {measure.what}")  # noqa: T201
        return
    if arguments.sizes and min(arguments.sizes) < _LEAST_SIZE:
        parser.error(f"a log of less than {_LEAST_SIZE:,} events tells nothing")
    scale = SCALES[arguments.scale] if arguments.scale else QUICK if arguments.quick else FULL
    if arguments.sizes:
        scale = scale.of_sizes(tuple(arguments.sizes))
    chosen = [m for m in ALL if not arguments.only or m.name in arguments.only]
    try:
        results = asyncio.run(_until_told(scale, chosen, arguments.folder, arguments.out))
    except (KeyboardInterrupt, asyncio.CancelledError):
        print(f"interrupted: nothing is left running; {arguments.out} has what was measured", file=sys.stderr)  # noqa: T201
        sys.exit(130)
    print(table.plain(results.comparisons))  # noqa: T201
    for failure in results.failures:
        print(f"failed: {failure}", file=sys.stderr)  # noqa: T201
    print(f"\n{arguments.out}/results.html", file=sys.stderr)  # noqa: T201
    sys.exit(1 if results.failures else 0)


async def _until_told(scale: Scale, measures: Sequence[Measure], folder: Path, out: Path) -> Results:
    """Measures until it is done, or until SIGINT or SIGTERM; then all processes are ended, too."""
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    return await measured(scale, measures, folder, out)


async def measured(scale: Scale, measures: Sequence[Measure], folder: Path, out: Path) -> Results:
    """Measures one after the other, and writes what there is after each."""
    comparisons: list[Comparison] = []
    start = time.monotonic()
    async with servers(folder) as stand:
        bench = Bench(scale, stand)
        machine = await look(stand.folder)
        for measure in measures:
            began = time.monotonic()
            try:
                comparisons += await measure.run(bench)
            except Exception as error:
                bench.failures.append(f"{measure.name}: {type(error).__name__}: {error}")
                bench.tell(bench.failures[-1])
            bench.tell(f"{measure.name} took {time.monotonic() - began:.0f} s")
            took = time.monotonic() - start
            results = Results(scale.name, machine, tuple(comparisons), tuple(bench.failures), took)
            write(results, out)
    return results


if __name__ == "__main__":
    main()
