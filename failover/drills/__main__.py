"""One drill in a process of its own: `python -m failover.drills FOLDER`, as `failover.drills.suite` does.

Drills that run at the same time share no event loop: what one of them computes holds up no other's proxies.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from chain.config import load_config
from failover.drills.drill import load_drill
from failover.drills.runner import run_drill
from failover.drills.stage import clear_folder, staged, visited
from failover.drills.suite import DRILL_FILE, Task, read_task
from failover.local.chain import LocalChain


async def _run(folder: Path, task: Task) -> None:
    drill, text = load_drill(str(folder / DRILL_FILE))
    stop = asyncio.Event()
    with _told(stop):
        if task.on is not None:
            stage = visited(drill, folder, load_config(task.on, os.environ), seed=task.seed)
        else:
            await clear_folder(folder)
            stage = staged(drill, folder, prepared=LocalChain(task.prepared), seed=task.seed)
        await run_drill(drill, text, folder, stage, seed=task.seed, stop=stop)


@contextmanager
def _told(stop: asyncio.Event) -> Iterator[None]:
    """Sets `stop` when this process is told to end, and when whoever ordered the drill is gone: its standard
    input ends then. Told again, it goes on taking back what was done.
    """
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_unheard)
    for sig in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(sig, stop.set)

    def heard() -> None:
        if not os.read(sys.stdin.fileno(), 4096):
            loop.remove_reader(sys.stdin.fileno())
            stop.set()

    loop.add_reader(sys.stdin.fileno(), heard)
    try:
        yield
    finally:
        loop.remove_reader(sys.stdin.fileno())


def _unheard(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Connections are broken here on purpose; drivers leave behind what nobody waits for any more."""
    if not isinstance(context.get("exception"), OSError):
        loop.default_exception_handler(context)


def main() -> None:
    folder = Path(sys.argv[1]).resolve()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)-7s %(message)s")
    asyncio.run(_run(folder, read_task(folder)))


if __name__ == "__main__":
    main()
