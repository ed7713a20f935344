"""How long a chain is without a head, and what it loses, under load: automatic failover, planned switchover.

A local chain of three nodes with two controllers takes writes all the time: half of the writers ask for an
acknowledgement from the head, half for one from another region. For each kill the head's region is killed
with SIGKILL at a random moment; it is started again, and the chain comes home by itself. At the end every
event that was acknowledged is looked for in the log and in the ledger.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from bench.load import Load
from bench.measure import Bench, Measure
from bench.series import Comparison, Goal, Sense, Series, percentile
from chain.client import Ack
from chain.connect import open_client
from chain.decisions import EpochGranted, RunStarted, StepFinished, StepStarted
from chain.event import Epoch, Position
from chain.tasks import end
from chain.topology import Topology
from failover import ledger_desk
from failover.fleet import Fleet, open_fleet
from failover.local.chain import LocalChain
from failover.playbook import load_playbook
from failover.runner import execute
from replicator.verify import Verdict, verify_chain

_LEASE_S: Final = 3.0
_OPTIONS: Final[dict[str, Any]] = {
    "lease": {"duration": f"{_LEASE_S:g}s"},
    "automation": {"policy": "automatic", "come_home": True, "cool_down": "1s"},
}
_PER_S: Final = 500.0
_ARRIVES_WITHIN_S: Final = 60.0


async def failover(bench: Bench) -> Sequence[Comparison]:
    random.seed(1)
    chain = LocalChain(bench.servers.folder / "chain-failover")
    try:
        config = await chain.up(options=_OPTIONS)
        client = open_client(config, deadline_s=60.0)
        load = Load(client, _PER_S)
        async with open_fleet(config, timeout_s=3.0) as fleet:
            loading = asyncio.create_task(load.run())
            try:
                pauses = await _moves(bench, fleet, load)
                failed = load.failed
                chain.start_controller("one")
                chain.start_controller("two")
                outages, decided = await _kills(bench, chain, fleet, load)
                load.ending = True
                await loading
            finally:
                await end(loading)
            accounts = await _account(fleet, load)
        await client.close()
    finally:
        await chain.wipe()
    return [*_paused(pauses, failed), *_outages(outages, decided), *_accounted(accounts)]


def _paused(pauses: Sequence[float], failed: int) -> list[Comparison]:
    return [
        *_times("planned switchover: pause of the writes", [s * 1000 for s in pauses], "ms", 250),
        _single("planned switchover: failed writes", "writes", failed, 0),
    ]


def _outages(outages: Sequence[float], decided: Sequence[float]) -> list[Comparison]:
    return [
        *_times(f"head's region killed to first write, lease of {_LEASE_S:g} s", outages, "s", 5),
        *_times("of this, decision to first write beyond the lease", [s * 1000 for s in decided], "ms", 500),
    ]


def _accounted(accounts: Sequence[_Account]) -> list[Comparison]:
    found = []
    for account in accounts:
        told = f"of {account.acknowledged:,} writes acknowledged at {account.level}"
        found.append(
            _single(
                f"{told}: lost",
                "events",
                account.lost,
                0,
                note=f"{account.not_in_log} were not in the log in the end; the ledger has what is not lost.",
            )
        )
    return found


def _times(name: str, values: Sequence[float], unit: str, bound: float) -> list[Comparison]:
    """Each run is a value; the bound is for p99, which of fewer than 100 runs is the largest."""
    every = Series("geochain", tuple(values))
    worst = Series("geochain", (percentile(values, 0.99),))
    return [
        Comparison(f"{name} ({len(values)} runs)", unit, Sense.AT_MOST, (every,)),
        Comparison(f"{name}: p99", unit, Sense.AT_MOST, (worst,), (Goal(bound),)),
    ]


def _single(name: str, unit: str, value: float, bound: float, note: str = "") -> Comparison:
    return Comparison(name, unit, Sense.AT_MOST, (Series("geochain", (float(value),)),), (Goal(bound),), note)


async def _wait_home(fleet: Fleet, wait_s: float = 120.0) -> Topology:
    """Waits until the whole chain is there, at home, with nothing under way."""
    async with asyncio.timeout(wait_s):
        while True:
            topology = await fleet.registry.topology()
            whole = len(topology.order) == 3 and topology.run is None and topology.began is not None
            if whole and topology.regions[topology.head] == topology.home:
                return topology
            await asyncio.sleep(0.1)


async def _moves(bench: Bench, fleet: Fleet, load: Load) -> list[float]:
    """Moves the head to and fro; the writers notice nothing but a pause."""
    pauses: list[float] = []
    for number in range(bench.scale.moves):
        topology = await fleet.registry.topology()
        start = time.monotonic()
        await execute(fleet, load_playbook("switchover"), {"node": topology.order[1]}, by="the bench")
        await asyncio.sleep(0.5)
        pauses.append(load.longest_pause_s(start, time.monotonic()))
        bench.tell(f"move {number + 1}: {pauses[-1] * 1000:.0f} ms")
    return pauses


async def _kills(
    bench: Bench, chain: LocalChain, fleet: Fleet, load: Load
) -> tuple[list[float], list[float]]:
    """Kills the head's region at random moments: until the first write, and what of that was no waiting."""
    outages, decided = [], []
    for number in range(bench.scale.kills):
        topology = await _wait_home(fleet)
        await asyncio.sleep(random.uniform(1.0, 2.0))
        region = [n for n in topology.order if topology.regions[n] == topology.regions[topology.head]]
        killed = time.monotonic()
        await chain.kill(*region)
        epoch = Epoch(topology.epoch + 1)
        written = await load.first_in(epoch, 60.0)
        outages.append(written - killed)
        decided.append(await _beyond_the_lease(fleet, epoch, written))
        bench.tell(
            f"kill {number + 1}: {outages[-1]:.3f} s, {decided[-1] * 1000:.0f} ms of it beyond the lease"
        )
        await asyncio.sleep(0.5)
        await chain.start(*region)
    await _wait_home(fleet)
    return outages, decided


async def _beyond_the_lease(fleet: Fleet, epoch: Epoch, written: float) -> float:
    """From the recorded decision to fail over to the first write, less the wait for the lease in between."""
    began = waiting = waited = None
    for recorded in await fleet.registry.history():
        decision = recorded.decision
        if isinstance(decision, RunStarted) and decision.playbook == "failover":
            began, waited = recorded.at, 0.0
        elif isinstance(decision, StepStarted) and decision.step == "end-lease":
            waiting = recorded.at
        elif isinstance(decision, StepFinished) and decision.step == "end-lease" and waiting is not None:
            waited = (recorded.at - waiting).total_seconds()
        elif isinstance(decision, EpochGranted) and decision.epoch == epoch:
            break
    if began is None or waited is None:
        raise RuntimeError(f"the history has no failover to epoch {epoch}")
    at = time.time() - (time.monotonic() - written)
    return at - began.timestamp() - waited


@dataclass(frozen=True, slots=True)
class _Account:
    """What became of the events that were acknowledged at a level."""

    level: str
    acknowledged: int
    not_in_log: int
    lost: int


async def _account(fleet: Fleet, load: Load) -> list[_Account]:
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
    async with asyncio.timeout(_ARRIVES_WITHIN_S):
        for store in stores.values():
            while (await store.tip()).position < position:
                await store.wait(Position(position - 1), 0.2)
    for verified in await verify_chain(stores, last=position):
        if verified.verdict is not Verdict.OK:
            raise RuntimeError(
                f"{verified.source} and {verified.target}: {verified.verdict.value}: {verified.reason}"
            )
    accounts = []
    for level in (Ack.HEAD, Ack.REGION):
        ids = load.answers[level].keys()
        accounts.append(_Account(level.value, len(ids), len(ids - found), len(ids - found - kept)))
    return accounts


MEASURES: Final = (Measure("failover", "Planned moves and killed regions under 500 writes/s.", failover),)
