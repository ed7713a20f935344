"""How late events are: from their commit on the head until a node shows them, measured out of band.

A sample is the first event that comes after a moment chosen beforehand: when the node shows it by its own
clock, less when the head recorded it by its own. The two clocks are held against each other by way of the
verifier's, at the middle of a round trip; what that leaves uncertain is stated with every result.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from math import ceil
from typing import Final

from chain.errors import ChainError
from chain.event import Position
from chain.store import Glance, Store

PROBE_S: Final = 0.1
"""Between two samples of a node."""
WAIT_S: Final = 1.0
CLOCK_S: Final = 60.0
"""A reading of a clock is good for so long: clocks drift."""
BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)


@dataclass(frozen=True, slots=True)
class Offset:
    """How far a clock is ahead of the verifier's own, give or take."""

    ahead_s: float
    uncertain_s: float


@dataclass(slots=True)
class Clock:
    """A node's clock, as read in round trips; the shortest of the last minute tells most."""

    _readings: deque[tuple[float, Offset]] = field(default_factory=deque)

    def read(self, sent: float, got: float, said: float) -> None:
        """`sent` and `got` are by the reader's clock, `said` is the node's word in between; in seconds."""
        half_s = (got - sent) / 2
        self._readings.append((got, Offset(said - sent - half_s, half_s)))
        while self._readings[0][0] < got - CLOCK_S:
            self._readings.popleft()

    def offset(self) -> Offset | None:
        return min((o for _, o in self._readings), key=lambda o: o.uncertain_s, default=None)


@dataclass(frozen=True, slots=True)
class Summary:
    """The samples of a window, exactly: each percentile is one of them (nearest rank)."""

    count: int
    p50_s: float
    p95_s: float
    p99_s: float
    max_s: float


@dataclass(slots=True)
class Window:
    """Samples of the last `length_s`, and counts by bucket since the beginning."""

    length_s: float
    counts: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS_S) + 1))
    sum_s: float = 0.0
    _samples: deque[tuple[float, float]] = field(default_factory=deque)

    def add(self, now: float, latency_s: float) -> None:
        self._samples.append((now, latency_s))
        self.counts[bisect_left(BUCKETS_S, latency_s)] += 1
        self.sum_s += latency_s

    def summary(self, now: float) -> Summary | None:
        while self._samples and self._samples[0][0] < now - self.length_s:
            self._samples.popleft()
        if not self._samples:
            return None
        ordered = sorted(latency for _, latency in self._samples)

        def percentile(percent: int) -> float:
            return ordered[ceil(percent * len(ordered) / 100) - 1]

        return Summary(len(ordered), percentile(50), percentile(95), percentile(99), ordered[-1])


@dataclass(frozen=True, slots=True)
class Lateness:
    """What is known of how late a node is."""

    node: str
    summary: Summary | None
    """Of the window; None if nothing came."""
    missing: Position | None
    """The oldest event that the head has and the node does not; None if it has all."""
    missing_s: float
    """For how long the head has it, by the head's clock."""
    clock: Offset | None
    """The node's clock against the head's."""
    age_s: float | None
    """How old this word is; None if the node or the head never answered."""

    def late(self, objective_s: float) -> bool:
        slow = self.summary is not None and self.summary.p99_s > objective_s
        return slow or self.missing_s > objective_s


@dataclass(slots=True)
class LatencyMeter:
    """Measures one node against the head of the moment. `run` ends by cancellation."""

    name: str
    store: Store
    head: Callable[[], tuple[str, Store]]
    clocks: dict[str, Clock]
    """Of all nodes, shared by the meters."""
    window: Window
    _missing: Position | None = None
    _missing_s: float = 0.0
    _as_of: float | None = None

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._sample(), name=f"latency of {self.name}")
            tasks.create_task(self._look_for_missing(), name=f"missing on {self.name}")

    def lateness(self) -> Lateness:
        now = asyncio.get_running_loop().time()
        age_s = None if self._as_of is None else now - self._as_of
        summary = self.window.summary(now)
        return Lateness(self.name, summary, self._missing, self._missing_s, self._against_head(), age_s)

    async def look(self) -> None:
        """Looks once for what is missing. Raises what the stores raise."""
        name, head = self.head()
        now = asyncio.get_running_loop().time()
        tip = (await self._glance(self.name, self.store, Position(0))).tip.position
        seen = await self._glance(name, head, tip)
        self._missing, self._missing_s, self._as_of = None, 0.0, now
        if seen.tip.position > tip and seen.next_recorded_at is not None:
            self._missing = Position(tip + 1)
            self._missing_s = max(0.0, (seen.clock - seen.next_recorded_at).total_seconds())

    async def _look_for_missing(self) -> None:
        while True:
            try:
                await self.look()
            except ChainError:
                pass  # its age tells
            await asyncio.sleep(WAIT_S)

    async def _sample(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                before = await self._glance(self.name, self.store, Position(0))
                after = before.tip.position
                await self.store.wait(after, WAIT_S)
                seen = await self._glance(self.name, self.store, after)
                offset = self._against_head()
                same_reign = seen.tip.epoch == before.tip.epoch  # else recorded by another head's clock
                if seen.next_recorded_at is not None and offset is not None and same_reign:
                    latency_s = (seen.clock - seen.next_recorded_at).total_seconds() - offset.ahead_s
                    self.window.add(loop.time(), max(0.0, latency_s))
            except ChainError:
                pass
            await asyncio.sleep(PROBE_S)

    async def _glance(self, name: str, store: Store, after: Position) -> Glance:
        loop = asyncio.get_running_loop()
        sent = loop.time()
        glance = await store.glance(after)
        self.clocks.setdefault(name, Clock()).read(sent, loop.time(), glance.clock.timestamp())
        return glance

    def _against_head(self) -> Offset | None:
        name, _ = self.head()
        own, head = (self.clocks[n].offset() if n in self.clocks else None for n in (self.name, name))
        if own is None or head is None:
            return None
        return Offset(own.ahead_s - head.ahead_s, own.uncertain_s + head.uncertain_s)
