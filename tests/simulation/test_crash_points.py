"""Every playbook, with its runner killed before and after every decision that it journals.

Another controller finds the run and carries it on, to the same chain. The shipped runner, steps, daemons and
controller run on memory stores in virtual time.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import pytest

from chain.commands import Command, approve_plan
from chain.decisions import RunFinished, RunStarted, StepFinished
from chain.event import Epoch, Event, Expect, NewEvent
from chain.registry import Registry
from chain.store import Store
from chain.topology import Topology
from failover import ledger_desk
from failover.plan import plan
from failover.playbook import playbook_names
from failover.runner import execute
from tests.simulation.life import load
from tests.simulation.loop import simulate
from tests.simulation.network import Process
from tests.simulation.world import World

QUIET: Final = {"rejoin": False, "lost_after": "1h", "cool_down": "1s"}
"""The controller has nothing to do but to carry on."""


class Crash(BaseException):
    """The end of a process: nothing in it catches this."""


class CrashingRegistry(Registry):
    """Kills its process at the decision number `at`: before it is made, or after."""

    def __init__(self, inner: Registry, at: int | None, *, after: bool) -> None:
        self.__dict__.update(inner.__dict__)
        self.count = 0
        self._at, self._after = at, after

    async def decide(self, command: Command, *, by: str, why: str = "") -> Topology:
        self.count += 1
        if self.count == self._at and not self._after:
            raise Crash
        decided = await super().decide(command, by=by, why=why)
        if self.count == self._at:
            raise Crash
        return decided


@dataclass(frozen=True)
class Case:
    """A playbook on a chain for which it is meant."""

    playbook: str
    given: Mapping[str, Any] = field(default_factory=dict)
    prepare: Callable[[World], Awaitable[None]] | None = None
    approved: bool = False


async def lose_head(world: World) -> None:
    """The head dies with events that nobody else has."""
    cut = {("daemon of west-1", "east-1"), ("east-1", "daemon of west-1")}
    world.network.cuts |= cut
    await append(world.machines["east-1"].store, 5, "dead")
    await world.kill("east-1")
    world.network.cuts -= cut


async def move_away(world: World) -> None:
    await run(world, "switchover", {"node": "west-1"})


async def head_is_back(world: World) -> None:
    await lose_head(world)
    await run(world, "failover", {})
    await append(world.machines["west-1"].store, 5, "later")
    world.revive("east-1")


async def lose_middle(world: World) -> None:
    await world.kill("west-1")


CASES: Final = (
    Case("switchover", {"node": "west-1"}),
    Case("failover", prepare=lose_head),
    Case("failover-middle", {"node": "west-1"}, lose_middle),
    Case("detach", {"node": "west-1"}),
    Case("bootstrap-tail", {"node": "west-2"}),
    Case("rejoin", {"node": "east-1"}, head_is_back),
    Case("rotate", prepare=move_away),
    Case("failback", prepare=move_away),
    Case("region-evacuation", {"region": "east"}, approved=True),
)


async def append(store: Store, count: int, prefix: str) -> None:
    for n in range(count):
        await store.add(f"s-{n % 3}", Expect.ANY, [NewEvent("Tested", f"{prefix}{n}".encode())])


async def run(world: World, playbook: str, given: Mapping[str, Any]) -> None:
    fleet = world.fleet(Process("an operator"))
    await execute(fleet, load(playbook), given, by="an operator")
    await settled(world)


async def settled(world: World) -> Topology:
    """Waits until no run is unfinished and every member that is up has the same log, and follows."""
    async with asyncio.timeout(300):
        while True:
            topology = await world.topology()
            up = [n for n in topology.order if world.machines[n].server.up]
            logs = [world.machines[n].store for n in up]
            tips = {await store.tip() for store in logs} if topology.head in up else set()
            if topology.run is None and len(tips) == 1 and world.writable() == [topology.head]:
                return topology
            await asyncio.sleep(0.1)


@dataclass(frozen=True)
class Outcome:
    """What is to be the same, wherever the runner was killed."""

    order: tuple[str, ...]
    epoch: Epoch
    log: tuple[bytes, ...]
    ledger: tuple[bytes, ...]
    runs: tuple[str, ...]


async def outcome(world: World) -> Outcome:
    topology = await settled(world)
    logs = [await whole_log(world.machines[n].store) for n in topology.order if world.machines[n].server.up]
    assert all(log == logs[0] for log in logs)
    assert [e.position for e in logs[0]] == list(range(1, len(logs[0]) + 1))
    entries = await ledger_desk.entries(world.machines[topology.head].store)
    assert world.crashes == []
    return Outcome(
        topology.order,
        topology.epoch,
        tuple(e.data for e in logs[0] if e.type == "Tested"),
        tuple(sorted(entry.event.data for entry in entries if entry.event.type == "Tested")),
        await finished_runs(world),
    )


async def finished_runs(world: World) -> tuple[str, ...]:
    """The playbooks of all runs and how they ended. No step of a run is done twice."""
    history = await world.registry().history()
    started = {d.run: d.playbook for r in history if isinstance(d := r.decision, RunStarted)}
    ended = {d.run: d.outcome for r in history if isinstance(d := r.decision, RunFinished)}
    steps = Counter((d.run, d.step) for r in history if isinstance(d := r.decision, StepFinished))
    assert all(count == 1 for count in steps.values())
    return tuple(f"{playbook} {ended[each]}" for each, playbook in started.items())


async def whole_log(store: Store) -> list[Event]:
    return list((await store.log(limit=100_000)).events)


async def life(case: Case, at: int | None, *, after: bool) -> tuple[Outcome, int]:
    """One life: the runner is killed at decision `at`, and another controller finds what it left."""
    world = World(random.Random(1), spares={"west-2": "west"}, automation=QUIET)
    await world.start()
    await settled(world)
    await append(world.machines["east-1"].store, 20, "e")
    await settled(world)
    if case.prepare is not None:
        await case.prepare(world)
    process = Process("the operator")
    crashing: list[CrashingRegistry] = []

    def watched(registry: Registry) -> Registry:
        crashing.append(CrashingRegistry(registry, at, after=after))
        return crashing[0]

    fleet = world.fleet(process, registry=watched)
    playbook = load(case.playbook)
    if case.approved:
        planned = await plan(world.fleet(process), playbook, case.given)
        await world.registry().decide(approve_plan(planned.hash, "Ada", 3600), by="Ada")
    try:
        await execute(fleet, playbook, case.given, by="the operator")
    except Crash:
        process.up = False
        if (await world.topology()).run is not None:  # what an operator sees who gives the command again
            await plan(world.fleet(Process("another")), playbook, case.given)
        world.start_controller("two")
    if at == 1 and not after and case.playbook != "failover":
        await settled(world)  # nothing had been begun: there is nothing to carry on
        await execute(world.fleet(Process("another")), playbook, case.given, by="another operator")
    return await outcome(world), crashing[0].count


def test_every_playbook_that_ships_is_here() -> None:
    assert sorted(case.playbook for case in CASES) == list(playbook_names())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.playbook)
def test_a_run_whose_runner_dies_anywhere_comes_to_the_same_end(case: Case) -> None:
    expected, count = simulate(life(case, None, after=False))
    assert expected.runs[-1] == f"{case.playbook} done"
    assert count >= POINTS_AT_LEAST[case.playbook]
    for at in range(1, count + 1):
        for after in (False, True):
            found, _ = simulate(life(case, at, after=after))
            where = f"{case.playbook}, killed {'after' if after else 'before'} decision {at} of {count}"
            assert found == expected, where


POINTS_AT_LEAST: Final = {
    "switchover": 14,
    "failover": 13,
    "failover-middle": 6,
    "detach": 6,
    "bootstrap-tail": 10,
    "rejoin": 11,
    "rotate": 14,
    "failback": 14,
    "region-evacuation": 16,
}
"""Decisions that a run journals; each is a crash point before it and one after it."""


def test_there_are_enough_crash_points() -> None:
    assert 2 * sum(POINTS_AT_LEAST.values()) >= 120
