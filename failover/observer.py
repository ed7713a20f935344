"""Looks at the chain all the time: each node, the lease and the registry by a task of its own.

What is seen is a board of last known words with their ages. A probe that fails, or takes long, makes a word
old; it never wipes out what was known, and never keeps the other words from being fresh.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from chain.errors import ChainError
from chain.lease import LeaseWatch
from chain.store import NodeState
from chain.tasks import end
from chain.topology import Topology
from failover.fleet import Fleet

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Sight:
    """What is known of a node. Times are of the observer's monotonic clock, in seconds."""

    node: str
    region: str
    state: NodeState | None = None
    """Its store's last word; None if it never answered."""
    state_at: float = 0.0
    lost_since: float | None = None
    """Since when its store has not answered; None if it answered the last time."""
    trouble: str = ""
    daemon: Mapping[str, Any] | None = None
    """Its daemon's last word, as on /v1/status; None if it never answered."""
    daemon_lost_since: float | None = None

    @property
    def reachable(self) -> bool:
        return self.state is not None and self.lost_since is None

    @property
    def link_state(self) -> str | None:
        """The state of its link, by its daemon's last word."""
        link = (self.daemon or {}).get("link")
        return str(link["state"]) if link else None

    @property
    def lag_events(self) -> int | None:
        """Events behind its source, as its daemon last knew."""
        link = (self.daemon or {}).get("link")
        return link["lag_events"] if link else None


@dataclass(frozen=True, slots=True)
class Picture:
    """Everything that is known at one moment."""

    at: float
    topology: Topology | None
    """As last read; None if the registry was never read."""
    registry_lost_since: float | None
    """Since when the registry has not answered."""
    registry_clock_s: float
    """The registry's clock, as seconds since 1970, carried on by the observer's own."""
    lease_left_s: float | None
    """Until the lease has certainly run out, 0 if it has; None if nothing can be said."""
    unrenewed_s: float
    """For how long the lease is known not to have been renewed."""
    leased: bool
    """There is a lease that can run out."""
    sights: Mapping[str, Sight]


@dataclass(slots=True)
class Observer:
    """Observes while `run` runs. `fleet` is used by nobody else for reading the lease."""

    fleet: Fleet
    every_s: float = 0.25
    _topology: Topology | None = None
    _registry_lost_since: float | None = None
    _clock_offset_s: float = 0.0
    _sights: dict[str, Sight] = field(default_factory=dict)
    _probes: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def lease_watch(self) -> LeaseWatch:
        return self.fleet.lease_watch

    def picture(self) -> Picture:
        now = _now()
        lease = self.lease_watch.lease
        return Picture(
            now,
            self._topology,
            self._registry_lost_since,
            now + self._clock_offset_s,
            self.lease_watch.left_s(now),
            self.lease_watch.unchanged_s(now) or 0.0,
            lease is not None and lease.duration_s is not None,
            dict(self._sights),
        )

    async def wait_news(self, wait_s: float) -> None:
        """Returns when something new was seen, or after `wait_s`."""
        try:
            async with asyncio.timeout(wait_s):
                await self._news.wait()
        except TimeoutError:
            return

    async def run(self) -> None:
        """Observes for ever; ends by cancellation."""
        try:
            while True:
                await self._look_at_registry()
                if self._topology is not None:
                    await self._keep_probes(self._topology)
                await asyncio.sleep(self.every_s)
        finally:
            for probe in self._probes.values():
                await end(probe)

    async def _look_at_registry(self) -> None:
        registry = self.fleet.registry
        try:
            topology = await registry.topology()
            await self.fleet.read_lease()
            self._clock_offset_s = (await registry.clock()).timestamp() - _now()
            self._topology, self._registry_lost_since = topology, None
        except ChainError as error:
            self.lease_watch.failed()
            if self._registry_lost_since is None:
                self._registry_lost_since = _now()
                log.warning("the registry can't be read: %s", error.message)
        self._tell()

    async def _keep_probes(self, topology: Topology) -> None:
        names = set(self.fleet.names(topology))
        for node in sorted(names - self._probes.keys()):
            self._probes[node] = asyncio.create_task(self._probe(node), name=f"probe {node}")
        for node in sorted(self._probes.keys() - names):
            await end(self._probes.pop(node))
            self._sights.pop(node, None)

    async def _probe(self, node: str) -> None:
        while True:
            assert self._topology is not None
            seen = await self.fleet.see(node, self._topology)
            before = self._sights.get(node) or Sight(node, seen.region)
            now = _now()
            answered, told = seen.state is not None, seen.daemon is not None
            self._sights[node] = Sight(
                node,
                seen.region,
                state=seen.state if answered else before.state,
                state_at=now if answered else before.state_at,
                lost_since=None if answered else before.lost_since or now,
                trouble=seen.trouble,
                daemon=seen.daemon if told else before.daemon,
                daemon_lost_since=None if told else before.daemon_lost_since or now,
            )
            self._tell()
            await asyncio.sleep(self.every_s)

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()


def _now() -> float:
    return asyncio.get_running_loop().time()
