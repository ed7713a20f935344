"""The command line: how long it takes to say what it can do."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Final

from bench.measure import Bench, Contender, Measure, Reading
from bench.programs import run
from bench.series import Comparison, Goal, Sense


async def command(bench: Bench) -> Sequence[Comparison]:
    async def started(*argv: str) -> Reading:
        start = time.perf_counter()
        await run(bench.servers.folder, sys.executable, *argv)
        return {"ms": (time.perf_counter() - start) * 1000}

    found = await bench.side_by_side(
        "command",
        [
            Contender("chainctl --help", lambda: started("-m", "failover", "--help")),
            Contender("python -c pass", lambda: started("-c", "pass")),
        ],
        repeats=bench.scale.moves,
    )
    return [found.compare("ms", "chainctl --help", "ms", Sense.AT_MOST, Goal(300))]


MEASURES: Final = (Measure("command", "The start of `chainctl`.", command),)
