"""A whole chain in one process: the shipped daemons, controllers, runner and client on memory stores.

Only the ports are simulated: the network between processes, the stores, the clocks, the time.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Final
from uuid import UUID

from chain.client import Client
from chain.config import Config
from chain.errors import ChainError
from chain.event import LEDGER_STREAM, Event
from chain.lease import LeaseWatch, Terms
from chain.ledger import KEPT
from chain.memory import MemoryLeases
from chain.registry import Registry
from chain.tasks import end
from chain.topology import Topology
from failover.controller import Controller
from failover.fleet import Fleet
from replicator.daemon import NodeDaemon
from replicator.read_ahead import Pace
from replicator.server import report
from tests.simulation.invariants import Decided, Invariants
from tests.simulation.network import Network, Process
from tests.simulation.remote import Line, RemoteLeases, RemoteLocks, RemoteStore, Sessions
from tests.simulation.stores import SimStore, Snapshot

CHAIN: Final = "sim"
NODES: Final[Mapping[str, str]] = {"east-1": "east", "west-1": "west", "east-2": "east"}
_START: Final = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(slots=True)
class Clock:
    """A machine's own clock: it drifts, and it can be set."""

    rate: float = 1.0
    offset_s: float = 0.0
    _read: tuple[float, datetime] = 0.0, _START
    """Its seconds and its time when it was last read: it is read several times at once."""

    def now(self) -> datetime:
        shown_s = asyncio.get_running_loop().time() * self.rate + self.offset_s
        if shown_s != self._read[0]:
            self._read = shown_s, _START + timedelta(seconds=shown_s)
        return self._read[1]


@dataclass(slots=True)
class Machine:
    """A node: its store's server and its daemon, each a process of its own."""

    name: str
    region: str
    clock: Clock
    store: SimStore
    server: Process
    process: Process
    daemon: NodeDaemon | None = None
    running: asyncio.Task[None] | None = None


@dataclass(slots=True)
class World:
    """`nodes` make up the chain at its creation; `spares` are configured besides."""

    margin_s: ClassVar[float | None] = None
    """Another margin of the lease than chain.yaml allows, for broken variants."""

    rng: random.Random
    nodes: Mapping[str, str] = field(default_factory=lambda: dict(NODES))
    spares: Mapping[str, str] = field(default_factory=dict)
    lease: Mapping[str, Any] = field(default_factory=dict)
    automation: Mapping[str, Any] = field(default_factory=dict)
    drift: float = 0.0
    """By how much a clock may be slow or fast."""
    pace: Pace = field(default_factory=lambda: Pace(idle_s=1.0, backoff_s=0.5))
    tick_s: float = 0.5
    network: Network = field(init=False)
    config: Config = field(init=False)
    machines: dict[str, Machine] = field(default_factory=dict)
    site: Process = field(init=False)
    """The registry's server."""
    sessions: Sessions = field(default_factory=Sessions)
    invariants: Invariants = field(init=False)
    decided: Decided = field(init=False)
    at_grant: dict[str, Snapshot] = field(default_factory=dict)
    """What was on the disk of each node when it was last granted an epoch."""
    doomed: set[str] = field(default_factory=set)
    """Servers that crash with their next append, or batch, perhaps before it is flushed."""
    falling: list[asyncio.TimerHandle] = field(default_factory=list)
    """The crashes of those that have written it."""
    disks_lied: bool = False
    """A disk has gone back: who counts on it can't keep every word."""
    _registry_store: SimStore = field(init=False)
    _leases: MemoryLeases = field(default_factory=MemoryLeases)
    _controllers: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    controllers: dict[str, Process] = field(default_factory=dict)
    minds: dict[str, Controller] = field(default_factory=dict)
    crashes: list[str] = field(default_factory=list)
    """What ended that should not have ended."""
    trace: list[tuple[Any, ...]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.network = Network(self.rng)
        self.site = Process("registry")
        self.invariants = Invariants(self)
        self.decided = Decided(self, f"$chain-{CHAIN}")
        self._registry_store = SimStore("registry", clock=Clock().now, watch=self.decided)
        everyone = {**self.nodes, **self.spares}
        self.config = Config.model_validate(
            {
                "chain": CHAIN,
                "registry": {"dsn": "postgresql://u@registry/registry"},
                "nodes": [
                    {"name": n, "region": r, "dsn": f"postgresql://u@{n}/chain", "http": f"{n}:80"}
                    for n, r in everyone.items()
                ],
                "lease": dict(self.lease),
                "automation": {"policy": "automatic", **self.automation},
            }
        )
        for name, region in everyone.items():
            drift = self.rng.choice((-1.0, -0.3, 0.3, 1.0)) * self.drift
            clock = Clock(1.0 + drift, self.rng.uniform(-3600, 3600))
            store = SimStore(
                name, clock=clock.now, watch=self.invariants, rng=random.Random(self.rng.random())
            )
            self.machines[name] = Machine(
                name, region, clock, store, Process(name), Process(f"daemon of {name}")
            )

    def say(self, *what: Any) -> None:
        """A line of the trace."""
        self.trace.append((asyncio.get_running_loop().time(), *what))

    # Seen from outside of the simulation: the truth.

    def registry(self) -> Registry:
        """The registry itself, without a network in between."""
        return self._registry(None)

    async def topology(self) -> Topology:
        """The chain as decided; Refused before there is one."""
        return await self.registry().topology()

    def writable(self) -> list[str]:
        """The nodes that would take a write at this instant."""
        return [n for n, m in self.machines.items() if m.server.up and m.store.writable_now()]

    def in_ledger(self, ident: UUID) -> bool:
        """Whether some node's log has this event as an entry of its ledger."""
        return any(ident in ledger_ids(m.store.events) for m in self.machines.values())

    # Starting, losing and regaining parts of it.

    async def start(self) -> None:
        """Starts every daemon, and waits until the chain was created."""
        for name in self.machines:
            self.start_daemon(name)
        while True:
            try:
                await self.topology()
                return
            except ChainError:
                await asyncio.sleep(0.05)

    def start_daemon(self, name: str) -> None:
        machine = self.machines[name]
        if machine.process.up and machine.running is not None and not machine.running.done():
            return
        machine.process = Process(machine.process.name)
        process = machine.process
        machine.daemon = NodeDaemon(
            chain=CHAIN,
            name=name,
            store=self.store(process, name, near=True),
            peers=lambda peer: self.store(process, peer),
            registry=self._registry(process),
            regions=self.nodes,
            terms=self._terms(),
            pace=self.pace,
            tick_s=self.tick_s,
            now=machine.clock.now,
        )
        machine.running = self._begin(machine.daemon.run(), process.name)

    def crash_daemon(self, name: str) -> None:
        """It says nothing from now on, whatever its tasks still do until they have ended."""
        machine = self.machines[name]
        machine.process.kill()
        if machine.running is not None:
            machine.running.cancel()

    async def kill_daemon(self, name: str) -> None:
        self.crash_daemon(name)
        running = self.machines[name].running
        if running is not None:
            await end(running)

    def crash(self, *names: str) -> None:
        """Servers and daemons at once; what a store had acknowledged it still has."""
        for name in names:
            self.machines[name].server.kill()
        for name in names:
            self.crash_daemon(name)

    async def kill(self, *names: str) -> None:
        self.crash(*names)
        for name in names:
            await self.kill_daemon(name)

    def doom(self, name: str) -> None:
        if name in self.doomed:
            self.doomed.discard(name)
            kill = self.machines[name].server.kill
            later = asyncio.get_running_loop().call_later(self.rng.uniform(0.0, 0.008), kill)
            self.falling.append(later)

    def spare_all(self) -> None:
        """Whoever is doomed lives on."""
        self.doomed.clear()
        while self.falling:
            self.falling.pop().cancel()

    def start_server(self, name: str) -> None:
        machine = self.machines[name]
        if not machine.server.up:
            machine.store.restart()
            machine.server.up = True
        machine.server.wake()

    def revive(self, *names: str) -> None:
        """Starts servers and daemons again."""
        for name in names:
            self.start_server(name)
            self.machines[name].process.wake()
            self.start_daemon(name)

    def restart_server(self, name: str) -> None:
        self.machines[name].store.restart()

    def lose_disk(self, name: str, to: Snapshot) -> None:
        """The server is down, and what comes up again is what was on its disk then."""
        self.machines[name].server.kill()
        lost = self.machines[name].store.go_back(to)
        self.disks_lied = True
        self.say("went back", name, to.events[-1].position if to.events else 0, len(lost))
        self.invariants.went_back(name, lost)

    def set_clock(self, name: str, step_s: float) -> None:
        self.machines[name].clock.offset_s += step_s
        self.invariants.clocks_changed()

    def start_controller(self, name: str) -> Controller:
        process = self.controllers[name] = Process(f"controller {name}")
        controller = self.minds[name] = Controller(self.fleet(process), self.config.automation, name)
        self._controllers[name] = self._begin(controller.run(), process.name)
        return controller

    def crash_controller(self, name: str) -> None:
        self.controllers[name].kill()
        task = self._controllers.pop(name, None)
        if task is not None:
            task.cancel()

    async def kill_controller(self, name: str) -> None:
        self.controllers[name].kill()
        await end(self._controllers.pop(name))

    def crash_registry(self) -> None:
        self.site.kill()
        self.sessions.end_all()

    def revive_registry(self) -> None:
        if not self.site.up:
            self._registry_store.restart()
            self.site.up = True
        self.site.wake()

    # What a process of the simulation works with.

    def store(self, process: Process, name: str, *, near: bool = False) -> RemoteStore:
        machine = self.machines[name]
        return RemoteStore(Line(self.network, process, machine.server, near=near), machine.store)

    def client(self, process: Process, **options: Any) -> Client:
        return Client(
            {n: m.region for n, m in self.machines.items()},
            lambda name: self.store(process, name),
            topology=self._registry(process).topology,
            **options,
        )

    def fleet(self, process: Process, *, registry: Callable[[Registry], Registry] = lambda r: r) -> Fleet:
        async def ask(name: str) -> Mapping[str, Any] | None:
            machine = self.machines[name]

            async def answer() -> Mapping[str, Any] | None:
                daemon = machine.daemon
                return report(daemon.status(), daemon.now()) if daemon is not None else None

            try:
                return await self.network.call(process, machine.process, answer, timeout_s=1.0)
            except ChainError:
                return None

        return Fleet(
            self.config,
            registry(self._registry(process)),
            lambda name: self.store(process, name),
            ask,
            LeaseWatch(self.config.lease.margin if self.margin_s is None else self.margin_s),
        )

    def _terms(self) -> Terms | None:
        terms = self.config.lease.terms
        return terms if self.margin_s is None or terms is None else replace(terms, margin_s=self.margin_s)

    def _registry(self, process: Process | None) -> Registry:
        site = self.site
        line = Line(self.network, process or site, site, near=process is None)
        locks = RemoteLocks(line, self.sessions)
        if process is None:
            return Registry(self._registry_store, locks, self._leases, CHAIN)
        return Registry(
            RemoteStore(line, self._registry_store), locks, RemoteLeases(line, self._leases), CHAIN
        )

    def _begin(self, work: Any, name: str) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.create_task(work, name=name)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            self.crashes.append(f"{task.get_name()}: {task.exception()!r}")


def ledger_ids(log: Sequence[Event]) -> set[UUID]:
    """The ids of the events that the ledger in this log keeps."""
    entries = (e for e in log if e.stream == LEDGER_STREAM and e.type == KEPT)
    return {UUID(json.loads(e.metadata)["id"]) for e in entries}
