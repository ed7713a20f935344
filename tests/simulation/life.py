"""One life of a chain: a scenario and a seed, and everything that happens follows from these two.

First faults come and go while clients write and operators operate. Then the faults stop, everything is
revived, and the chain must become whole within a bounded time. The invariants are watched all the while.
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
import logging
import os
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from traceback import format_exception
from typing import Any, Final
from unittest import mock

from chain.acks import Ack, NotYetReplicated
from chain.commands import acknowledge_failover
from chain.errors import ChainError
from chain.event import Expect, NewEvent
from failover.playbook import Playbook, load_playbook
from failover.runner import execute
from replicator.read_ahead import Pace
from tests.simulation.invariants import Acked, Violation
from tests.simulation.loop import simulate
from tests.simulation.network import Process
from tests.simulation.world import World, ledger_ids

HEALS_WITHIN_S: Final = 180.0
"""Virtual seconds; a controller rests for 15 of them after a run that failed."""
REGIONS: Final = ("east", "west", "east", "north", "west")

MOST_LINES: Final = 100
"""Of a trace that are shown."""

ASKED: Final = {"head-unproven", "head-lost-over-budget", "head-lost-again"}
"""Where a person is to give the word, and does."""

Fault = Callable[["Life"], Awaitable[None]]
Operation = tuple[str, Callable[["Life"], Mapping[str, Any]]]


@dataclass(frozen=True, slots=True)
class Scenario:
    """What may happen in a life; how much of it does, each seed draws for itself."""

    name: str
    title: str
    faults: tuple[Fault, ...]
    meets: tuple[str, ...]
    """What at least one of its seeds must have met, or the scenario is not about what it says."""
    nodes: tuple[int, int] = (2, 3)
    spares: tuple[int, int] = (0, 0)
    pause_s: tuple[float, float] = (0.3, 2.0)
    """Between the beginnings of two faults."""
    life_s: tuple[float, float] = (4.0, 9.0)
    controllers: int = 1
    operators: int = 0
    operations: tuple[Operation, ...] = ()
    rough: bool = True
    """The network loses, doubles and delays messages."""
    drift: float = 0.05
    failsafe: float = 0.7
    """How many of the seeds have a head that goes on by promises."""
    leases_s: tuple[float, ...] = (2.0, 2.0, 3.0)
    share: float = 1.0
    """How many lives it gets, against the others."""
    all_faults: bool = False
    """Every seed has all of the faults, not a part of them."""


@dataclass(slots=True)
class Life:
    """A scenario, lived with a seed."""

    scenario: Scenario
    seed: int
    without: frozenset[int] = frozenset()
    """Which of its faults are left out, by their number: for finding a shorter history."""
    rng: random.Random = field(init=False)
    world: World = field(init=False)
    faults: list[Fault] = field(init=False)
    healed_s: float = 0.0
    """How long it took until the chain was whole, when the faults had ended."""
    controllers: tuple[str, ...] = ()
    operators: dict[str, tuple[Process, asyncio.Task[None]]] = field(default_factory=dict)
    begun: int = 0
    """Faults that came, those left out among them."""
    _quiet: bool = False
    steps: int = 0

    def __post_init__(self) -> None:
        self.rng = random.Random(f"{self.scenario.name}/{self.seed}")

    @property
    def met(self) -> Counter[str]:
        return self.world.invariants.met + self.world.network.met

    # The whole of it.

    async def live(self) -> None:
        """Raises Violation."""
        self._make_world()
        ended = asyncio.create_task(self.world.invariants.ended.wait(), name="watch the invariants")
        living = asyncio.create_task(self._live(), name="the life")
        await asyncio.wait({ended, living}, return_when=asyncio.FIRST_COMPLETED)
        self.steps = getattr(asyncio.get_running_loop(), "steps", 0)
        if self.world.invariants.broken:
            raise Violation(self.world.invariants.broken)
        await living

    async def _live(self) -> None:
        await self.world.start()
        for name in self.controllers:
            self.world.start_controller(name)
        for name in [f"operator {n}" for n in range(self.scenario.operators)]:
            self.start_operator(name)
        writers = [
            asyncio.create_task(self._write(f"w{n}"), name=f"client {n}")
            for n in range(self.rng.randint(1, 2))
        ]
        await self._trouble(self.rng.uniform(*self.scenario.life_s))
        self._quiet = True
        self._calm()
        began = asyncio.get_running_loop().time()
        await self._wait_whole()
        for writer in writers:  # the last ones have been answered, or given up
            await writer
        await self._wait_whole()
        self.healed_s = asyncio.get_running_loop().time() - began
        self._check_end()

    def _make_world(self) -> None:
        scenario, rng = self.scenario, self.rng
        count, spares = rng.randint(*scenario.nodes), rng.randint(*scenario.spares)
        names = [(f"{region}-{n}", region) for n, region in enumerate(REGIONS, 1)]
        duration = rng.choice(scenario.leases_s)
        self.world = World(
            random.Random(rng.random()),
            nodes=dict(names[:count]),
            spares=dict(names[count : count + spares]),
            lease={
                "duration": f"{duration:g}s",
                "margin": f"{duration / 4:g}s",
                "failsafe": rng.random() < scenario.failsafe,
            },
            automation={
                "cool_down": "500ms",
                "loss_seconds": "1h",
                "lost_after": "4s",
                "every": f"{rng.choice((200, 300, 500))}ms",
                "come_home": rng.random() < 0.3,
            },
            drift=scenario.drift * rng.choice((0.2, 1.0)),
            pace=Pace(
                batch_events=rng.choice((2, 50_000)),
                idle_s=(idle_s := rng.choice((0.6, 1.2))),
                backoff_s=0.5,
                load_events=5,
                load_cut_off_s=2.0 if idle_s == 0.6 else 10.0,
            ),
            tick_s=rng.choice((0.4, 0.8)),
        )
        if scenario.rough:
            network = self.world.network
            network.loss = rng.choice((0.0, 0.0, 0.01, 0.05))
            network.late = rng.choice((0.0, 0.005, 0.02))
            network.repeat = rng.choice((0.0, 0.02, 0.1))
        self.world.network.slow_flush = rng.choice((0.0, 0.02, 0.3))
        menu = list(scenario.faults)
        if not scenario.all_faults and len(menu) > 1:
            menu = rng.sample(menu, rng.randint(max(1, len(menu) // 3), len(menu)))
        self.faults = menu
        self.controllers = tuple(f"c{n}" for n in range(scenario.controllers))

    async def _trouble(self, for_s: float) -> None:
        """Faults begin, last and end, several at the same time."""
        await asyncio.sleep(self.rng.uniform(0.5, 2.0))
        async with asyncio.TaskGroup() as group:
            until = asyncio.get_running_loop().time() + for_s
            while asyncio.get_running_loop().time() < until:
                if self.faults:
                    fault = self.rng.choice(self.faults)
                    if self.begun not in self.without:
                        self.world.say("fault", self.begun, getattr(fault, "__name__", "?"))
                        group.create_task(self._fault(fault))
                    self.begun += 1
                await asyncio.sleep(self.rng.uniform(*self.scenario.pause_s))

    async def _fault(self, fault: Fault) -> None:
        await fault(self)

    def _calm(self) -> None:
        """The faults end, and everything is revived."""
        world = self.world
        world.say("calm")
        world.network.cuts.clear()
        world.network.loss = world.network.late = world.network.repeat = 0.0
        world.network.slow_flush = 0.0
        world.spare_all()
        world.revive_registry()
        world.revive(*world.machines)
        for process, task in self.operators.values():
            process.kill()
            task.cancel()
        for name, process in list(world.controllers.items()):
            process.wake()
            if not process.up:
                world.start_controller(name)
        if not world.controllers:
            world.start_controller("at last")

    # Who uses the chain.

    async def _write(self, name: str) -> None:
        rng, world = random.Random(self.rng.random()), self.world
        client = world.client(Process(f"client {name}"), deadline_s=rng.uniform(0.8, 3.0))
        acks = rng.choice(((Ack.HEAD,), (Ack.HEAD, Ack.REGION, Ack.CHAIN), (Ack.REGION, Ack.CHAIN)))
        number = 0
        while not self._quiet:
            number += 1
            events = [
                NewEvent("Tested", f"{name}-{number}-{n}".encode()) for n in range(rng.choice((1, 1, 1, 3)))
            ]
            ids, ack = tuple(e.id for e in events), rng.choice(acks)
            began = asyncio.get_running_loop().time()
            try:
                answer = await client.add(f"s-{rng.randrange(3)}", Expect.ANY, events, ack)
                world.invariants.acknowledged(Acked(ids, answer, ack), began)
            except NotYetReplicated as error:
                world.invariants.met["acknowledged less than asked"] += 1
                world.invariants.acknowledged(Acked(ids, error.appended, error.reached), began)
            except ChainError as error:
                world.say(name, "failed", type(error).__name__)
            await asyncio.sleep(rng.uniform(0.05, 0.5))
        await client.close()

    def start_operator(self, name: str) -> None:
        process = Process(name)
        self.operators[name] = process, asyncio.create_task(self._operate(process), name=name)

    async def _operate(self, process: Process) -> None:
        """Gives commands, one after the other, some of them not for the first time."""
        rng = random.Random(self.rng.random())
        fleet = self.world.fleet(process)
        while not self._quiet:
            await asyncio.sleep(rng.uniform(0.3, 2.5))
            playbook, given = rng.choice(self.scenario.operations)
            try:
                await execute(fleet, load(playbook), given(self), by=process.name)
            except ChainError as error:
                self.world.say(process.name, playbook, type(error).__name__, error.message)

    # The end of it.

    async def _wait_whole(self) -> None:
        """Raises Violation if the chain is not whole within its time."""
        loop = asyncio.get_running_loop()
        until = loop.time() + HEALS_WITHIN_S
        while why := self._lacks():
            if loop.time() > until:
                thought = [m.judgement.rule.name for m in self.world.minds.values() if m.judgement]
                raise Violation(f"not whole within {HEALS_WITHIN_S:g} s: {why}; thought is {thought}")
            await self._lend_a_hand()
            await asyncio.sleep(0.25)

    async def _lend_a_hand(self) -> None:
        """What only a person does: acknowledge a failover, bring in whom one took out, do what is asked."""
        topology, by = self.world.decided.topology, "the person on call"
        if topology is None:
            return
        if topology.failed_over_at is not None:
            await self.world.registry().decide(acknowledge_failover(), by=by)
        asks = {mind.judgement.rule.name for mind in self.world.minds.values() if mind.judgement}
        if asks & ASKED:
            self.world.invariants.met["a person was asked"] += 1
            await self._command("failover", {})
        elif topology.kept_out and topology.run is None and not topology.joining:
            await self._command("rejoin", {"node": sorted(topology.kept_out)[0]})

    async def _command(self, playbook: str, given: Mapping[str, Any]) -> None:
        by = "the person on call"
        try:
            await execute(self.world.fleet(Process(by)), load(playbook), given, by=by)
        except ChainError as error:
            self.world.say(by, playbook, error.message)

    def _lacks(self) -> str:
        """Why the chain is not whole; empty if it is."""
        world, topology = self.world, self.world.decided.topology
        if topology is None:
            return "there is no chain"
        if topology.run is not None:
            return f"{topology.run.playbook} is unfinished, at {topology.run.steps[-1:]}"
        if set(topology.order) != set(world.machines):
            return f"the chain is {topology.order}, joining {topology.joining}"
        if world.writable() != [topology.head]:
            return f"writable are {world.writable()}, not {topology.head}"
        tips = {n: m.store.last for n, m in world.machines.items()}
        if len(set(tips.values())) > 1 or tips[topology.head].epoch != topology.epoch:
            return f"the nodes are at {tips} in epoch {topology.epoch}"
        kept = [n for n, m in world.machines.items() if m.store.dead]
        return f"{kept} still keep dead branches" if kept else ""

    def _check_end(self) -> None:
        world = self.world
        head = world.machines[world.decided.topology.head].store if world.decided.topology else None
        assert head is not None
        for name, machine in world.machines.items():
            if list(machine.store.events) != list(head.events):
                raise Violation(f"L3: {name} has another log than the head")
        positions = [e.position for e in head.events]
        if positions != list(range(1, len(positions) + 1)):
            raise Violation("L1: the log has holes")
        world.invariants.final(head.events, ledger_ids(head.events))
        if world.crashes or world.network.faults:
            raise Violation(f"crashed: {world.crashes + [repr(f) for f in world.network.faults]}")
        if world.invariants.broken:
            raise Violation(world.invariants.broken)


_PLAYBOOKS: Final[dict[str, Playbook]] = {}


def load(name: str) -> Playbook:
    """A playbook is read once a process: reading YAML takes longer than a life."""
    if name not in _PLAYBOOKS:
        _PLAYBOOKS[name] = load_playbook(name)
    return _PLAYBOOKS[name]


def live(scenario: Scenario, seed: int, without: frozenset[int] = frozenset()) -> Life:
    """Lives it. Raises Violation, with what is needed to see it again."""
    life = Life(scenario, seed, without)
    if broken := _try(life):
        raise Violation(broken)
    return life


def shortest(scenario: Scenario, seed: int) -> str:
    """The shortest history found in which this seed ends badly; empty if it does not.

    Its faults are left out, one after the other, where it ends badly without them, too (the greedy part of
    delta debugging: Zeller and Hildebrandt, 2002).
    """
    life = Life(scenario, seed)
    told, number = _try(life), 0
    while told and number < life.begun:
        other = Life(scenario, seed, life.without | {number})
        if shorter := _try(other):
            life, told = other, shorter
        number += 1
    return told


def _try(life: Life) -> str:
    """What was broken, with what is needed to see it again; empty if nothing was."""
    with _determined(life):
        try:
            simulate(life.live(), rng=random.Random(life.seed))
        except Violation as violation:
            return _report(life, str(violation))
        except Exception as error:
            return _report(life, repr(error), *format_exception(error))
    return ""


@contextmanager
def _determined(life: Life) -> Iterator[None]:
    """Ids, randomness and dates come from the seed; nothing is logged; playbooks are read once."""
    source = random.Random(life.seed)
    state = random.getstate()
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    random.seed(life.seed)
    collecting = gc.isenabled()
    _set_aside()
    gc.disable()
    try:
        with (
            mock.patch.object(os, "urandom", source.randbytes),
            mock.patch.object(time, "time_ns", partial(int, life.seed)),
            mock.patch("failover.controller.load_playbook", load),
        ):
            yield
    finally:
        random.setstate(state)
        logging.disable(disabled)
        if collecting:
            gc.enable()


@cache
def _set_aside() -> None:
    """Whatever is there before the first life is gone through by no collection after it."""
    gc.collect()
    gc.freeze()


def _report(life: Life, what: str, *more: str) -> str:
    name, seed = life.scenario.name, life.seed
    lines = [line for line in trace(life) if not line.endswith(" renewed")][-MOST_LINES:]
    left_out = f" --without {','.join(map(str, sorted(life.without)))}" if life.without else ""
    again = f"python -m tests.simulation {name} {seed}{left_out}"
    return "\n".join([what, *more, *lines, what, f"seed {seed} of {name}; again: {again}"])


def trace(life: Life) -> list[str]:
    """What happened, a line each."""
    if not hasattr(life, "world"):
        return []
    return [f"{at:9.4f}  {' '.join(map(str, what))}" for at, *what in life.world.trace]


def fingerprint(life: Life) -> str:
    """Equal for two lives in which the same things happened, in the same order, at the same times."""
    whole = hashlib.sha256("\n".join(trace(life)).encode())
    whole.update(f"{life.steps} {life.rng.random()} {life.world.rng.random()}".encode())
    return whole.hexdigest()


def total(lives: Sequence[Life]) -> Counter[str]:
    met: Counter[str] = Counter()
    for life in lives:
        met += life.met
    return met
