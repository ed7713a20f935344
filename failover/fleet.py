"""All parties of a chain, opened for the time of an operation, and one immutable look at them.

Unknown stays unknown: a node that does not answer is in the observation as what it is, with the reason.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import aiohttp
from pydantic import BaseModel

from chain.config import Config
from chain.connect import open_registry, open_store
from chain.errors import BadInput, ChainError
from chain.event import EMPTY, Position, Tip
from chain.lease import Lease, LeaseWatch
from chain.registry import Registry
from chain.store import NodeState, Store
from chain.topology import Topology


class _LinkWord(BaseModel):
    source: str
    state: str
    cut_off_s: float
    position: int
    lag_events: int | None
    last_error: str


class _StoreWord(BaseModel):
    role: str
    epoch: int
    writable: bool
    lease: str


class _Word(BaseModel):
    """Of what a daemon says on /v1/status, all that somebody goes by."""

    node: str
    last_error: str
    store: _StoreWord | None
    link: _LinkWord | None


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
    lease: Lease | None
    nodes: Mapping[str, Seen]

    @property
    def head(self) -> Seen:
        return self.nodes[self.topology.head]


Daemons = Callable[[str], Awaitable[Mapping[str, Any] | None]]
"""Asks the daemon of a node for its word, as on /v1/status; None if it does not answer. A port."""


@dataclass(slots=True)
class Fleet:
    """The stores, the daemons and the registry of a chain."""

    config: Config
    registry: Registry
    open_store: Callable[[str], Store]
    ask_daemon: Daemons
    lease_watch: LeaseWatch
    """What is known of the lease's age, by this process's monotonic clock."""
    _stores: dict[str, Store] = field(default_factory=dict)

    def store(self, node: str) -> Store:
        """Raises BadInput for a node that is not in chain.yaml."""
        if node not in self._stores:
            self._stores[node] = self.open_store(node)
        return self._stores[node]

    async def read_lease(self) -> Lease | None:
        """The lease record, noted in `lease_watch`. Raises Unavailable."""
        try:
            lease = await self.registry.lease()
        except BaseException:
            self.lease_watch.failed()
            raise
        self.lease_watch.saw(lease, asyncio.get_running_loop().time())
        return lease

    async def observe(self) -> Observation:
        """Looks at every node that is configured or decided. Raises only if the registry can't be read."""
        topology = await self.registry.topology()
        lease = await self.read_lease()
        seen = await asyncio.gather(*(self.see(n, topology) for n in self.names(topology)))
        nodes = {s.node: s for s in seen}
        head = nodes[topology.head]
        return Observation(topology, lease, {n: await self._with_lag(s, head) for n, s in nodes.items()})

    def names(self, topology: Topology) -> list[str]:
        """Every node that is configured or decided, in the order of the chain."""
        names = [*topology.order, *topology.joining, *topology.detached]
        return names + [n.name for n in self.config.nodes if n.name not in names]

    async def see(self, node: str, topology: Topology) -> Seen:
        """Asks a node's store and its daemon, at the same time. Bounded by their timeouts."""
        try:
            configured = self.config.node(node)
            store = self.store(node)
        except BadInput as error:
            return Seen(node, topology.regions.get(node, "?"), trouble=error.message)
        region = topology.regions.get(node) or configured.region
        state, daemon = await asyncio.gather(_state(store), self.ask_daemon(node))
        if isinstance(state, ChainError):
            return Seen(node, region, None, state.message, daemon)
        return Seen(node, region, state, "", daemon)

    async def _with_lag(self, seen: Seen, head: Seen) -> Seen:
        if seen.state is None or head.state is None:
            return seen
        if seen.state.tip.position >= head.state.tip.position:
            return replace(seen, lag_events=0, lag_seconds=0.0)
        events = head.state.tip.position - seen.state.tip.position
        try:
            oldest = await self.store(head.node).at(Position(seen.state.tip.position + 1))
        except ChainError:
            return replace(seen, lag_events=events)
        seconds = (head.state.clock - oldest.recorded_at).total_seconds() if oldest else None
        return replace(seen, lag_events=events, lag_seconds=None if seconds is None else max(0.0, seconds))

    async def close(self) -> None:
        await self.registry.close()
        for store in self._stores.values():
            await store.close()


async def _state(store: Store) -> NodeState | ChainError:
    try:
        return await store.state()
    except ChainError as error:
        return error


@asynccontextmanager
async def open_fleet(config: Config, *, timeout_s: float | None = None) -> AsyncIterator[Fleet]:
    """Every party of the chain for the time of the block; nothing is connected before it is used."""
    limit_s = min(config.links.timeout, 3.0) if timeout_s is None else timeout_s
    timeout = aiohttp.ClientTimeout(total=limit_s)
    async with aiohttp.ClientSession(timeout=timeout) as http:

        async def ask(node: str) -> Mapping[str, Any] | None:
            try:
                async with http.get(f"http://{config.node(node).http}/v1/status") as response:
                    answer: Mapping[str, Any] = await response.json()
                    _Word.model_validate(answer)  # a ValueError if it is no daemon's of this version
                    return answer
            except (aiohttp.ClientError, TimeoutError, ValueError, OSError, BadInput):
                return None

        fleet = Fleet(
            config,
            open_registry(config, timeout_s=min(limit_s, 3.0)),
            lambda node: open_store(config, node, timeout_s=limit_s),
            ask,
            LeaseWatch(config.lease.margin),
        )
        try:
            yield fleet
        finally:
            await fleet.close()


def may_lead(states: Mapping[str, NodeState], topology: Topology) -> dict[str, Tip]:
    """The tips of those that may be made head.

    Not one that is being loaded: it can't be promoted. One without events only in a chain that never had any:
    as the head it would leave everybody else with a log that has nothing in common with its own.
    """
    never_began = topology.epoch == 1 and topology.began is None
    return {
        node: state.tip
        for node, state in states.items()
        if not state.loading and (never_began or state.tip != EMPTY)
    }


def most_advanced(tips: Mapping[str, Tip], order: tuple[str, ...]) -> str | None:
    """The best candidate: the longest log of the newest epoch; among equals the first in the chain."""
    if not tips:
        return None
    return max(tips, key=lambda n: (tips[n].epoch, tips[n].position, -order.index(n)))
