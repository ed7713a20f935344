"""All parties of a chain, opened for the time of an operation, and one immutable look at them.

Unknown stays unknown: a node that does not answer is in the observation as what it is, with the reason.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from chain.config import Config
from chain.connect import open_registry, open_store
from chain.errors import BadInput, ChainError
from chain.event import Position, Tip
from chain.registry import Registry
from chain.store import NodeState, Store
from chain.topology import Topology


@dataclass(frozen=True, slots=True)
class Seen:
    """A node as it was seen: its store's word, its daemon's word, and what did not answer."""

    node: str
    region: str
    state: NodeState | None = None
    trouble: str = ""
    daemon: Mapping[str, Any] | None = None
    """As on /v1/status; None if the daemon did not answer."""
    lag_events: int | None = None
    lag_seconds: float | None = None
    """Age, by the head's clock, of the oldest event that the node does not have; 0 if it has all."""


@dataclass(frozen=True, slots=True)
class Observation:
    """The chain at one moment: what is decided and what was seen."""

    topology: Topology
    nodes: Mapping[str, Seen]

    @property
    def head(self) -> Seen:
        return self.nodes[self.topology.head]


@dataclass(slots=True)
class Fleet:
    """The stores and the registry of a chain."""

    config: Config
    registry: Registry
    timeout_s: float
    _stores: dict[str, Store] = field(default_factory=dict)

    def store(self, node: str) -> Store:
        """Raises BadInput for a node that is not in chain.yaml."""
        if node not in self._stores:
            self._stores[node] = open_store(self.config, node, timeout_s=self.timeout_s)
        return self._stores[node]

    async def observe(self) -> Observation:
        """Looks at every node that is configured or decided. Raises only if the registry can't be read."""
        topology = await self.registry.topology()
        configured = {n.name: n.region for n in self.config.nodes}
        names = [*topology.order, *topology.joining, *topology.detached]
        names += [n for n in configured if n not in names]
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=self.timeout_s)) as http:
            seen = await asyncio.gather(
                *(self._see(n, topology.regions.get(n) or configured[n], http) for n in names)
            )
        nodes = {s.node: s for s in seen}
        head = nodes[topology.head]
        return Observation(topology, {n: await self._with_lag(s, head) for n, s in nodes.items()})

    async def _see(self, node: str, region: str, http: aiohttp.ClientSession) -> Seen:
        try:
            address = self.config.node(node).http
            store = self.store(node)
        except BadInput as error:
            return Seen(node, region, trouble=error.message)
        daemon = asyncio.create_task(_ask_daemon(http, f"http://{address}/v1/status"))
        try:
            state, trouble = await store.state(), ""
        except ChainError as error:
            state, trouble = None, error.message
        return Seen(node, region, state, trouble, await daemon)

    async def _with_lag(self, seen: Seen, head: Seen) -> Seen:
        if seen.state is None or head.state is None:
            return seen
        if seen.state.tip.position >= head.state.tip.position:
            return _lagging(seen, 0, 0.0)
        events = head.state.tip.position - seen.state.tip.position
        try:
            oldest = await self.store(head.node).at(Position(seen.state.tip.position + 1))
        except ChainError:
            return _lagging(seen, events, None)
        seconds = (head.state.clock - oldest.recorded_at).total_seconds() if oldest else None
        return _lagging(seen, events, None if seconds is None else max(0.0, seconds))

    async def close(self) -> None:
        await self.registry.close()
        for store in self._stores.values():
            await store.close()


def _lagging(seen: Seen, events: int, seconds: float | None) -> Seen:
    return Seen(seen.node, seen.region, seen.state, seen.trouble, seen.daemon, events, seconds)


@asynccontextmanager
async def open_fleet(config: Config, *, timeout_s: float | None = None) -> AsyncIterator[Fleet]:
    """Every party of the chain for the time of the block; nothing is connected before it is used."""
    limit = min(config.links.timeout, 3.0) if timeout_s is None else timeout_s
    fleet = Fleet(config, open_registry(config, timeout_s=min(limit, 3.0)), limit)
    try:
        yield fleet
    finally:
        await fleet.close()


def most_advanced(tips: Mapping[str, Tip], order: tuple[str, ...]) -> str | None:
    """The best candidate: the longest log of the newest epoch; among equals the first in the chain."""
    if not tips:
        return None
    return max(tips, key=lambda n: (tips[n].epoch, tips[n].position, -order.index(n)))


async def _ask_daemon(http: aiohttp.ClientSession, url: str) -> Mapping[str, Any] | None:
    try:
        async with http.get(url) as response:
            answer: Mapping[str, Any] = await response.json()
            return answer
    except (aiohttp.ClientError, TimeoutError, ValueError, OSError):
        return None
