"""Bootstrap of a tail: from the command to a verified member, beside dump and restore, and a base backup.

The node's daemon is a real process; what it took of memory and processor is read off it.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from bench.chains import running_chain
from bench.measure import Bench, Contender, Measure, Reading
from bench.nodes import fill
from bench.peers import backup, dump
from bench.series import Comparison, Goal, Sense
from failover.fleet import Fleet, open_fleet
from failover.local import processes
from failover.local.chain import LocalChain
from failover.playbook import load_playbook
from failover.runner import execute

_OURS: Final = "chainctl bootstrap, verified"
_HEAD: Final = "n1"
_JOINS: Final = "n2"
_MEMORY_GOAL_MB: Final = 80.0
_DAEMON_WITHIN_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Usage:
    """What a daemon took so far."""

    peak_mb: float
    """The most memory that was ever resident."""
    cpu_s: float


async def bootstrap(bench: Bench) -> Sequence[Comparison]:
    servers, events = bench.servers, bench.scale.events
    # A long lease: the fill and the peers leave the daemon little time.
    options = {"lease": {"duration": "20s", "margin": "2s"}}
    async with running_chain(servers.folder, {_HEAD: "region-1"}, options=options) as chain:
        source = chain.config().node(_HEAD).dsn.reveal()
        password_file = chain.folder / "secrets" / "password"
        await fill(source, events)

        async def ours() -> Reading:
            return await _bootstrap(chain, events)

        async def dumped(jobs: int, *, compared: bool = False) -> Reading:
            async with servers.database("target") as target:
                start = time.perf_counter()
                await dump.copy(servers.folder, source, target, jobs=jobs)
                if compared:
                    await dump.compare(source, target)
                return {"rate": events / (time.perf_counter() - start)}

        async def backed_up() -> Reading:
            return {"rate": events / await backup.copy(servers.folder, source, password_file)}

        found = await bench.side_by_side(
            "bootstrap",
            [
                Contender(_OURS, ours),
                Contender(dump.PIPE, lambda: dumped(1)),
                Contender(dump.COMPARED, lambda: dumped(1, compared=True)),
                Contender(dump.TWO_JOBS, lambda: dumped(2)),
                Contender(backup.NAME, backed_up),
            ],
        )
    return [
        found.compare(
            "rate",
            "bootstrap of a tail, verified included",
            "events/s",
            Sense.AT_LEAST,
            Goal(1.0, dump.PIPE),
            note="The peers verify nothing, but for the one that says so. A base backup copies files: it"
            " needs an equal Postgres, and the right to replicate; the start of its server is in its time.",
        ),
        *(
            found.compare(figure, f"daemon: {name}", unit, Sense.AT_MOST, *goals, only=[_OURS])
            for figure, name, unit, goals in (
                ("peak", "peak memory while it copies that", "MB resident", (Goal(_MEMORY_GOAL_MB),)),
                ("rest", "memory before", "MB resident", ()),
                ("cpu", "processor time", "s a million events", ()),
            )
        ),
    ]


async def _bootstrap(chain: LocalChain, events: int) -> Reading:
    """A new node joins; then it leaves again, and is removed."""
    config = await chain.add_node(_JOINS, "region-2")
    try:
        async with open_fleet(config) as fleet:
            await _wait_daemon(fleet)
            before = usage(chain, _JOINS)
            start = time.perf_counter()
            await execute(fleet, load_playbook("bootstrap-tail"), {"node": _JOINS}, by="the bench")
            seconds = time.perf_counter() - start
            after = usage(chain, _JOINS)
            await execute(fleet, load_playbook("detach"), {"node": _JOINS}, by="the bench")
    finally:
        await _remove(chain)
    return {
        "rate": events / seconds,
        "peak": after.peak_mb,
        "rest": before.peak_mb,
        "cpu": (after.cpu_s - before.cpu_s) / events * 1_000_000,
    }


def usage(chain: LocalChain, node: str) -> Usage:
    """Of the node's daemon, all its processes together."""
    found = [psutil.Process(p.pid) for p in processes.find(chain.node_folder(node)) if not p.is_postgres]
    if not found:
        raise RuntimeError(f"{node} has no daemon")
    times = [process.cpu_times() for process in found]
    return Usage(sum(peak_mb(p.pid) for p in found), sum(t.user + t.system for t in times))


def peak_mb(pid: int) -> float:
    """The kernel's own record of the most that was resident."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"process {pid} has no VmHWM")


async def _wait_daemon(fleet: Fleet) -> None:
    async with asyncio.timeout(_DAEMON_WITHIN_S):
        while await fleet.ask_daemon(_JOINS) is None:
            await asyncio.sleep(0.05)


async def _remove(chain: LocalChain) -> None:
    """The node's processes and all its data; the next one of its name begins from nothing."""
    await chain.kill(_JOINS)
    await asyncio.to_thread(shutil.rmtree, chain.node_folder(_JOINS))


MEASURES: Final = (
    Measure(
        "bootstrap", "A new tail, from the command to the verified member; its daemon's memory.", bootstrap
    ),
)
