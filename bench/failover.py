"""How long a chain is without a head, and what it loses, under load: automatic failover, planned switchover.

    python -m bench.failover --kills 20 --moves 20

Prints JSON. A local chain of three nodes with two controllers takes writes all the time: half of the writers
ask for an acknowledgement from the head, half for one from another region. For each kill the head's region
is killed with SIGKILL at a random moment; it is started again, and the chain comes home by itself. At the end
every acknowledged event is looked for in the log and in the ledger.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import UUID

from chain.client import Ack, Client
from chain.connect import open_client
from chain.errors import ChainError
from chain.event import Appended, Expect, NewEvent, Position
from chain.topology import Topology
from failover import ledger_desk
from failover.fleet import Fleet, open_fleet
from failover.local.chain import LocalChain
from failover.playbook import load_playbook
from failover.runner import execute
from replicator.verify import Verdict, verify_chain

LEASE_S = 3.0
OPTIONS: dict[str, Any] = {
    "lease": {"duration": f"{LEASE_S:g}s"},
    "automation": {"policy": "automatic", "come_home": True, "cool_down": "1s"},
}


@dataclass(slots=True)
class Load:
    """Writers at a pace; every answer is remembered, by the level that was asked for."""

    client: Client
    per_second: float
    writers: int = 20
    answers: dict[Ack, dict[UUID, Appended]] = field(default_factory=lambda: {a: {} for a in Ack})
    answered: list[tuple[float, int]] = field(default_factory=list)
    """When, and in which epoch."""
    failed: int = 0
    ending: bool = False

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for number in range(self.writers):
                tasks.create_task(self._write(number))

    async def _write(self, number: int) -> None:
        ack = Ack.REGION if number % 2 else Ack.HEAD
        pause_s = self.writers / self.per_second
        due = time.monotonic() + random.uniform(0, pause_s)
        while not self.ending:
            due = max(due + pause_s, time.monotonic())
            await asyncio.sleep(due - time.monotonic())
            event = NewEvent("Measured", b"%d" % number)
            try:
                answer = await self.client.add(f"w-{number}", Expect.ANY, [event], ack=ack)
            except ChainError as error:
                self.failed += 1
                print(f"a write failed: {error}", file=sys.stderr)  # noqa: T201
                continue
            self.answers[ack][event.id] = answer
            self.answered.append((time.monotonic(), answer.epoch))

    def longest_pause_s(self, start: float, end: float) -> float:
        times = [start, *(t for t, _ in self.answered if start <= t <= end), end]
        return max(b - a for a, b in pairwise(times))

    async def first_in(self, epoch: int, wait_s: float) -> float:
        """When the first write of an epoch was acknowledged."""
        seen = 0
        async with asyncio.timeout(wait_s):
            while True:
                for at, in_epoch in self.answered[seen:]:
                    if in_epoch >= epoch:
                        return at
                seen = len(self.answered)
                await asyncio.sleep(0.002)


async def wait_home(fleet: Fleet, wait_s: float = 120.0) -> Topology:
    """Waits until the whole chain is there, at home, with nothing under way."""
    async with asyncio.timeout(wait_s):
        while True:
            topology = await fleet.registry.topology()
            whole = len(topology.order) == 3 and topology.run is None and topology.began is not None
            if whole and topology.regions[topology.head] == topology.home:
                return topology
            await asyncio.sleep(0.1)


async def kills(chain: LocalChain, fleet: Fleet, load: Load, count: int) -> dict[str, Any]:
    """Kills the head's region `count` times, at random moments."""
    outages: list[float] = []
    for number in range(count):
        topology = await wait_home(fleet)
        await asyncio.sleep(random.uniform(1.0, 2.0))
        region = [n for n in topology.order if topology.regions[n] == topology.regions[topology.head]]
        killed = time.monotonic()
        await chain.kill(*region)
        outages.append(await load.first_in(topology.epoch + 1, 60.0) - killed)
        print(f"kill {number + 1}: {outages[-1]:.3f} s", file=sys.stderr)  # noqa: T201
        await asyncio.sleep(0.5)
        await chain.start(*region)
    await wait_home(fleet)
    return {"runs": count, "lease_s": LEASE_S, "killed_to_first_write_s": summary(outages)}


async def moves(fleet: Fleet, load: Load, count: int) -> dict[str, Any]:
    """Moves the head to and fro, `count` times; the writers notice nothing but a pause."""
    pauses: list[float] = []
    failed = load.failed
    for number in range(count):
        topology = await fleet.registry.topology()
        start = time.monotonic()
        await execute(fleet, load_playbook("switchover"), {"node": topology.order[1]}, by="the bench")
        await asyncio.sleep(0.5)
        pauses.append(load.longest_pause_s(start, time.monotonic()))
        print(f"move {number + 1}: {pauses[-1] * 1000:.0f} ms", file=sys.stderr)  # noqa: T201
    return {"runs": count, "pause_s": summary(pauses), "failed_writes": load.failed - failed}


async def account(fleet: Fleet, load: Load) -> dict[str, Any]:
    """What became of every acknowledged event."""
    topology = await fleet.registry.topology()
    stores = {n: fleet.store(n) for n in topology.order}
    head = stores[topology.head]
    found: set[UUID] = set()
    position = Position(0)
    while True:
        page = await head.log(position)
        found |= {event.id for event in page.events}
        position = Position(page.next)
        if page.at_tip:
            break
    kept = {entry.event.id for entry in await ledger_desk.entries(head)}
    for store in stores.values():
        while (await store.tip()).position < position:
            await store.wait(Position(position - 1), 0.2)
    verified = await verify_chain(stores, last=position)
    result: dict[str, Any] = {"verified": all(v.verdict is Verdict.OK for v in verified)}
    for ack in (Ack.HEAD, Ack.REGION):
        ids = load.answers[ack].keys()
        result[ack.value] = {
            "acknowledged": len(ids),
            "not_in_the_log": len(ids - found),
            "of_these_in_the_ledger": len((ids - found) & kept),
            "lost": len(ids - found - kept),
        }
    return result


def summary(seconds: Sequence[float]) -> dict[str, Any]:
    """The figures of a series; of fewer than 100 values, p99 is the largest."""
    if not seconds:
        return {}
    ordered = sorted(seconds)
    return {
        "min": round(ordered[0], 4),
        "median": round(statistics.median(ordered), 4),
        "p99": round(ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))], 4),
        "max": round(ordered[-1], 4),
        "all": [round(s, 4) for s in seconds],
    }


async def measure(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    chain = LocalChain(folder)
    options = dict(OPTIONS)
    result: dict[str, Any] = {
        "machine": {
            "python": platform.python_version(),
            "cores": os.cpu_count(),
            "system": platform.platform(),
        },
        "writes_per_second": arguments.rate,
        "seed": arguments.seed,
    }
    try:
        config = await chain.up(options=options)
        client = open_client(config, deadline_s=60.0)
        load = Load(client, arguments.rate)
        async with open_fleet(config, timeout_s=3.0) as fleet:
            loading = asyncio.create_task(load.run())
            if arguments.moves:
                result["switchover"] = await moves(fleet, load, arguments.moves)
            if arguments.kills:
                chain.start_controller("one")
                chain.start_controller("two")
                result["automatic_failover"] = await kills(chain, fleet, load, arguments.kills)
            load.ending = True
            await loading
            result["failed_writes"] = load.failed
            result["acknowledged"] = await account(fleet, load)
        await client.close()
    finally:
        await chain.wipe()
    return result


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--moves", type=int, default=20)
    parser.add_argument("--rate", type=float, default=500.0, help="writes a second")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    random.seed(arguments.seed)
    with tempfile.TemporaryDirectory(prefix="geochain-bench-") as folder:
        print(json.dumps(asyncio.run(measure(Path(folder) / "chain", arguments)), indent=2))  # noqa: T201


main()
