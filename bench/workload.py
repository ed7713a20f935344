"""A way of appending: how many callers, of how many processes, with what; and what came of it.

Each process is `python -m bench.worker`: it opens a peer, appends a little so that plans are made, says that
it is ready, and when told appends until the time is over.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from bench.data import DATA_BYTES
from bench.measure import NotMeasured, Reading
from bench.programs import environment
from bench.series import percentile

WARM_UP: Final = 5
"""Appends of each caller before the time runs."""
_STARTS_WITHIN_S: Final = 60.0
_ENDS_WITHIN_S: Final = 120.0


@dataclass(frozen=True, slots=True)
class Workload:
    callers: int = 1
    """In all; each appends, waits for the answer, and appends again."""
    processes: int = 1
    """Among which the callers are shared evenly."""
    connection_each: bool = False
    """Whether geochain's callers have a connection each instead of one a process. (Peers' always have.)"""
    batch: int = 1
    """Events in an append."""
    data_bytes: int = DATA_BYTES
    conflicts: float = 0.0
    """Share of the appends that expect a revision that their stream is past."""
    seconds: float = 2.0
    first_process: int = 0
    """Streams are named after the number of their process: another one, other streams."""

    @property
    def callers_each(self) -> int:
        return self.callers // self.processes


@dataclass(frozen=True, slots=True)
class Tally:
    """What the callers of one process did within the time."""

    appends: int
    conflicts: int
    seconds: float
    latencies_s: list[float]


Append = Callable[[int, int], Awaitable[bool]]
"""Appends one batch, given the caller and the number of its append; False if that was a conflict."""


async def drive(append: Append, workload: Workload, wait_told: Callable[[], Awaitable[None]]) -> Tally:
    """Callers as tasks."""
    callers = range(workload.callers_each)
    for number in range(WARM_UP):
        await asyncio.gather(*(append(caller, number) for caller in callers))
    await wait_told()
    start = time.perf_counter()
    until = start + workload.seconds

    async def call(caller: int) -> tuple[int, list[float]]:
        conflicts, taken, number = 0, [], WARM_UP
        while (began := time.perf_counter()) < until:
            conflicts += not await append(caller, number)
            taken.append(time.perf_counter() - began)
            number += 1
        return conflicts, taken

    return _tally(await asyncio.gather(*(call(caller) for caller in callers)), start)


async def drive_threads(
    append: Callable[[int, int], bool], workload: Workload, wait_told: Callable[[], Awaitable[None]]
) -> Tally:
    """Callers as threads, for what blocks."""
    loop, callers = asyncio.get_running_loop(), range(workload.callers_each)
    with ThreadPoolExecutor(len(callers)) as threads:

        def warm(caller: int) -> None:
            for number in range(WARM_UP):
                append(caller, number)

        await asyncio.gather(*(loop.run_in_executor(threads, warm, caller) for caller in callers))
        await wait_told()
        start = time.perf_counter()
        until = start + workload.seconds

        def call(caller: int) -> tuple[int, list[float]]:
            conflicts, taken, number = 0, [], WARM_UP
            while (began := time.perf_counter()) < until:
                conflicts += not append(caller, number)
                taken.append(time.perf_counter() - began)
                number += 1
            return conflicts, taken

        done = await asyncio.gather(*(loop.run_in_executor(threads, call, caller) for caller in callers))
        return _tally(done, start)


def _tally(done: list[tuple[int, list[float]]], start: float) -> Tally:
    latencies = [round(s, 6) for _, taken in done for s in taken]
    return Tally(len(latencies), sum(c for c, _ in done), time.perf_counter() - start, latencies)


async def run(folder: Path, peer: str, dsn: str, workload: Workload) -> Reading:
    """Runs the workload on a peer: events a second (conflicts are answers, but no events), p50 and p99 in ms.

    Raises NotMeasured if the peer can't be had; RuntimeError if a worker fails.
    """
    argv = (sys.executable, "-m", "bench.worker", peer, dsn, json.dumps(asdict(workload)))
    workers = [
        await asyncio.create_subprocess_exec(
            *argv,
            str(workload.first_process + number),
            cwd=folder,
            env=environment(folder),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            limit=64 * 1024 * 1024,
        )
        for number in range(workload.processes)
    ]
    try:
        async with asyncio.timeout(_STARTS_WITHIN_S):
            said = [await _line(worker) for worker in workers]
        for line in said:
            if "missing" in line:
                raise NotMeasured(str(line["missing"]))
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.write(b"go\n")
        async with asyncio.timeout(workload.seconds + _ENDS_WITHIN_S):
            tallies = [Tally(**await _line(worker)) for worker in workers]
            for worker in workers:
                await worker.wait()
    finally:
        for worker in workers:
            if worker.returncode is None:
                worker.kill()
                await worker.wait()
    return figures(tallies, workload)


async def _line(worker: asyncio.subprocess.Process) -> dict[str, Any]:
    assert worker.stdout is not None
    assert worker.stderr is not None
    line = await worker.stdout.readline()
    if not line:
        errors = (await worker.stderr.read()).decode(errors="replace").strip()
        raise RuntimeError(f"a worker ended early: {errors[-500:]}")
    found: dict[str, Any] = json.loads(line)
    return found


def figures(tallies: list[Tally], workload: Workload) -> Reading:
    """Of all processes together."""
    seconds = max(tally.seconds for tally in tallies)
    stored = sum(tally.appends - tally.conflicts for tally in tallies) * workload.batch
    latencies = [s for tally in tallies for s in tally.latencies_s]
    return {
        "rate": stored / seconds,
        "answers": sum(tally.appends for tally in tallies) / seconds,
        "p50": percentile(latencies, 0.5) * 1000,
        "p99": percentile(latencies, 0.99) * 1000,
    }
