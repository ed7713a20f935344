"""The verifier: a process of its own that shows, all the time, that each copy is complete, equal and in time.

It reads what is decided from the registry and everything else from the nodes, on connections of its own, with
a role that may only read. Whatever is lost, moved or restarted, it goes on from what the nodes have noted.
Any number of verifiers may run.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

from chain.errors import ChainError
from chain.event import Position
from chain.registry import Registry
from chain.store import Store
from chain.tasks import end
from chain.topology import Topology
from replicator.comparison import Comparison
from replicator.latency import Clock, LatencyMeter, Lateness, Window
from replicator.pairwatch import PairWatch, PairWord
from replicator.peers import Peers
from replicator.scan import NodeScan
from replicator.throttle import Throttle
from replicator.verify import Verdict

log = logging.getLogger(__name__)

_PASS_TRIES: Final = 20
NEW: Final = 5.0


@dataclass(frozen=True, slots=True)
class VerifyTerms:
    """How much, how often, and what is in time."""

    every_s: float = 1.0
    """Between two comparisons of a pair."""
    again_s: float = 60.0
    """No segment is read again sooner."""
    share: float = 0.1
    """Of the time of one connection to a node, for reading again; for what is new it is NEW times that."""
    stale_s: float = 86_400.0
    """A part that was not read for so long is not known to be well."""
    objective_s: float = 1.0
    """An event that is not on every node by then is late."""
    window_s: float = 60.0
    """Over which latencies are summed up."""
    settles_s: float = 1.0
    """For how long a difference has to stand before it is told."""


@dataclass(slots=True)
class Verifier:
    """Watches one chain. `run` ends by cancellation."""

    chain: str
    registry: Registry
    peers: Peers
    terms: VerifyTerms = field(default_factory=VerifyTerms)
    turned_at: float | None = None
    """When it last went round its loop, by its monotonic clock."""
    topology: Topology | None = None
    topology_at: float | None = None
    last_error: str = ""
    _stores: dict[str, Store] = field(default_factory=dict)
    _scans: dict[str, NodeScan] = field(default_factory=dict)
    _pairs: dict[tuple[str, str], PairWatch] = field(default_factory=dict)
    _meters: dict[str, LatencyMeter] = field(default_factory=dict)
    _clocks: dict[str, Clock] = field(default_factory=dict)
    _tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    _told: dict[tuple[str, str], str] = field(default_factory=dict)

    def words(self) -> tuple[PairWord, ...]:
        """What is known of each pair, head first."""
        return tuple(pair.word() for pair in self._pairs.values())

    def scans(self) -> Mapping[str, NodeScan]:
        return self._scans

    def meters(self) -> Mapping[str, LatencyMeter]:
        return self._meters

    def lateness(self) -> tuple[Lateness, ...]:
        return tuple(meter.lateness() for meter in self._meters.values())

    async def run(self) -> None:
        """Verifies for ever. What fails is in the words; nothing that a chain does ends it."""
        try:
            while True:
                self.turned_at = asyncio.get_running_loop().time()
                await self._look()
                await self._keep_tasks()
                self._say()
                await asyncio.sleep(self.terms.every_s)
        finally:
            for task in self._tasks.values():
                await end(task)
            await self.close()

    async def pass_once(self) -> tuple[PairWord, ...]:
        """One pass: what is new is compared, every segment is read again, what was found is settled.

        Not while `run` runs. Raises what the registry raises.
        """
        await self._look()
        if self.last_error:
            return self.words()
        for pair in self._pairs.values():
            await pair.advance()
        for scan in self._scans.values():
            await scan.go_round()
        for meter in self._meters.values():
            try:
                await meter.look()
            except ChainError:
                pass
        for _ in range(_PASS_TRIES):
            for pair in self._pairs.values():
                await pair.advance()
            if all(pair.settled for pair in self._pairs.values()):
                break
            await asyncio.sleep(self.terms.settles_s / 2)
        return self.words()

    async def close(self) -> None:
        for store in self._stores.values():
            await store.close()
        self._stores.clear()

    async def _look(self) -> None:
        """Reads what is decided; while the registry is away, the last word stands, with its age."""
        try:
            topology = await self.registry.topology()
        except ChainError as error:
            self._note(error)
            return
        self.topology_at, self.last_error = asyncio.get_running_loop().time(), ""
        if self.topology is None or self.topology.order != topology.order:
            self._arrange(topology.order)
        self.topology = topology

    def _arrange(self, order: tuple[str, ...]) -> None:
        """Whoever is a member now; what is known of those who stay, stays."""
        for name in order:
            self._stores.setdefault(name, self.peers(name))
        self._scans = {
            name: self._scans.get(name)
            or NodeScan(
                name, self._stores[name], Throttle(self.terms.share), self.terms.again_s, self._look_around
            )
            for name in order
        }
        self._pairs = {pair: self._pairs.get(pair) or self._pair(*pair) for pair in pairwise(order)}
        self._meters = {
            name: self._meters.get(name)
            or LatencyMeter(name, self._stores[name], self._head, self._clocks, Window(self.terms.window_s))
            for name in order[1:]
        }

    def _pair(self, source: str, target: str) -> PairWatch:
        return PairWatch(
            Comparison(source, self._stores[source], target, self._stores[target]),
            self._stores[source],
            self._stores[target],
            (self._scans[source], self._scans[target]),
            Throttle(min(1.0, NEW * self.terms.share)),
            self.terms.stale_s,
            self.terms.settles_s,
        )

    def _head(self) -> tuple[str, Store]:
        assert self.topology is not None
        return self.topology.head, self._stores[self.topology.head]

    async def _look_around(self, node: str, first: Position, last: Position) -> bool:
        """What a node no longer has as it was agreed on is looked for in its pairs."""
        found = [
            await pair.examine(first, last) for names, pair in list(self._pairs.items()) if node in names
        ]
        return any(found)

    async def _keep_tasks(self) -> None:
        """One task for each pair, each node's round and each meter, as long as it is in the chain."""
        wanted: dict[str, Coroutine[Any, Any, None]] = {}
        for (source, target), pair in self._pairs.items():
            wanted[f"compare {source} with {target}"] = self._compare(pair)
        wanted |= {f"read {name} again": scan.run() for name, scan in self._scans.items()}
        wanted |= {f"measure {name}": meter.run() for name, meter in self._meters.items()}
        for name in [n for n, task in self._tasks.items() if n not in wanted or task.done()]:
            task = self._tasks.pop(name)
            if task.done() and not task.cancelled() and task.exception() is not None:
                log.error("%s crashed", name, exc_info=task.exception())
                self.last_error = f"{name} crashed: {task.exception()!r}"
            await end(task)
        for name, work in wanted.items():
            if name in self._tasks:
                work.close()
            else:
                self._tasks[name] = asyncio.create_task(work, name=name)
        gone = [name for name in self._stores if name not in self._scans]
        for name in gone:
            await self._stores.pop(name).close()

    async def _compare(self, pair: PairWatch) -> None:
        while True:
            meter = self._meters.get(pair.comparison.target_name)
            if meter is not None:
                late = meter.lateness().late(self.terms.objective_s)
                pair.throttle.behind = pair.scans[1].throttle.behind = late
            await pair.advance()
            await asyncio.sleep(self.terms.every_s)

    def _note(self, error: ChainError) -> None:
        text = f"the registry can't be read: {error.message}"
        if text != self.last_error:
            log.warning("%s", text)
        self.last_error = text

    def _say(self) -> None:
        """One line for each change of a verdict."""
        self._told = {pair: told for pair, told in self._told.items() if pair in self._pairs}
        for word in self.words():
            pair = (word.source, word.target)
            if self._told.get(pair) == word.verdict.value:
                continue
            self._told[pair] = word.verdict.value
            what = "; ".join(map(str, word.findings)) or word.reason
            level = logging.ERROR if word.verdict is Verdict.DIFF else logging.INFO
            log.log(
                level,
                "%s and %s: %s, equal up to %d%s",
                *pair,
                word.verdict.value,
                word.verified,
                f" ({what})" if what else "",
            )
