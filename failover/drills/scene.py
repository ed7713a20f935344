"""A drill under way: the ground, the workload, and what has been measured up to now."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from chain.errors import ChainError
from chain.topology import Topology
from failover.drills.ground import Ground
from failover.drills.record import CheckResult, Entry, Loss, Moment, Recovery, Sample, VerifierResult
from failover.drills.workload import Workload


@dataclass(slots=True)
class Findings:
    """What is known once the workload has ended."""

    check: CheckResult | None = None
    loss: Loss | None = None
    recovery: Recovery | None = None
    verifier: VerifierResult | None = None


@dataclass(slots=True)
class Scene:
    """What probes and steps look at, and where they note what happened."""

    ground: Ground
    folder: Path
    began: float = field(default_factory=time.monotonic)
    workload: Workload | None = None
    samples: list[Sample] = field(default_factory=list)
    timeline: list[Entry] = field(default_factory=list)
    failed_writes: int = 0
    findings: Findings = field(default_factory=Findings)

    def now_s(self) -> float:
        return time.monotonic() - self.began

    def note(self, kind: Moment, text: str) -> None:
        self.timeline.append(Entry(self.now_s(), kind, text))

    async def topology(self) -> Topology:
        return await self.ground.topology()

    async def sample(self, every_s: float = 0.5) -> None:
        """Measures until cancelled."""
        while True:
            await asyncio.sleep(every_s)
            await self.measure()

    async def measure(self) -> None:
        """One sample of what has happened since the last."""
        if self.workload is None:
            return
        interval = self.workload.take()
        self.failed_writes += interval.failed
        self.samples.append(
            Sample(
                self.now_s(),
                interval.acknowledged_per_s,
                interval.failed_per_s,
                await self._lags(),
                interval.latency_p50_s,
                interval.latency_p99_s,
            )
        )

    async def _lags(self) -> dict[str, int | None]:
        nodes = {n.name for n in self.ground.config.nodes}
        try:
            topology = await self.topology()
            answers = await asyncio.gather(*(self._tip(node) for node in nodes))
        except ChainError:
            return dict.fromkeys(nodes)
        tips = dict(zip(nodes, answers, strict=True))
        head = tips.get(topology.head)
        return {
            node: None if head is None or tip is None else max(0, head - tip)
            for node, tip in tips.items()
            if node != topology.head
        }

    async def _tip(self, node: str) -> int | None:
        return await within(0.4, lambda: self._position(node))

    async def _position(self, node: str) -> int:
        return (await self.ground.fleet.store(node).tip()).position


async def within(limit_s: float, ask: Callable[[], Awaitable[int]]) -> int | None:
    """The answer, or None if it does not come in time."""
    try:
        async with asyncio.timeout(limit_s):
            return await ask()
    except (ChainError, TimeoutError):
        return None
