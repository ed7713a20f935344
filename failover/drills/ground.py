"""The ground that faults and probes work on: a chain, who its parties are, and what can be done to them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from enum import Enum
from random import Random
from typing import Final

import asyncpg

from chain.config import Config
from chain.errors import BadInput, ChainError, Refused, Unavailable
from chain.topology import Topology
from failover.drills.network import CLIENT, OPERATOR, REGISTRY, Network
from failover.drills.record import Rollback
from failover.fleet import Fleet, open_fleet
from failover.local.chain import LocalChain

log = logging.getLogger(__name__)

BALLAST_STREAM: Final = "drill-ballast"
"""Of events that are there to be altered, whatever else is in the log."""
UNDO_S: Final = 40.0
"""How long taking back one thing may take."""


class Need(Enum):
    """What a fault needs of its ground."""

    LOCAL = "a local chain, whose processes and files are ours"
    """Else it could only be done on the machine itself."""
    NETWORK = "a local chain, whose parties reach each other through fault proxies"
    MOUNT = "the right to mount file systems (root)"
    FAKETIME = "libfaketime (Debian: apt install libfaketime)"


@dataclass(slots=True)
class Ground:
    """A chain under a drill."""

    config: Config
    """With the true addresses."""
    fleet: Fleet
    """Reaches everybody, whatever is cut: for looking, and for faults in the stores."""
    operator: Fleet
    """The chain as an operator reaches it."""
    local: LocalChain | None = None
    """None for a chain that is not of this machine."""
    network: Network | None = None
    controllers: tuple[str, ...] = ()
    chance: Random = field(default_factory=Random)
    first: Topology | None = None
    """The chain as it was when the method began."""
    _last: Topology | None = None

    async def topology(self) -> Topology:
        """As decided now; as last known while the registry can't be read."""
        try:
            async with asyncio.timeout(2.0):
                self._last = await self.fleet.registry.topology()
        except (ChainError, TimeoutError):
            if self._last is None:
                raise Unavailable("the registry can't be read") from None
        return self._last

    async def node(self, name: str) -> str:
        """A node by its name or its place: head, middle, tail, outside; as it is now or was at first."""
        topology = await self.topology()
        if name.startswith("first-") and self.first is not None:
            topology, name = self.first, name.removeprefix("first-")
        places = {"head": topology.order[0], "tail": topology.order[-1]}
        if len(topology.order) > 2:
            places["middle"] = topology.order[1]
        if topology.detached:
            places["outside"] = topology.detached[0]
        node = places.get(name, name)
        if node not in self.fleet.names(topology):
            raise BadInput(f"there is no node {name!r} now", hint=f"there are: {', '.join(topology.regions)}")
        return node

    async def parties(self, *names: str) -> frozenset[str]:
        """Those of the network by name: nodes, regions, registry, controllers, client, operator, everyone."""
        found: set[str] = set()
        topology = await self.topology()
        for name in names:
            if name in ("everyone", "controllers"):
                found |= set(self.controllers)
            if name == "everyone":
                found |= {*topology.regions, REGISTRY, CLIENT, OPERATOR}
            elif name in (REGISTRY, CLIENT, OPERATOR, *self.controllers):
                found.add(name)
            elif name != "controllers":
                found |= set(await self.region(name)) or {await self.node(name)}
        return frozenset(found)

    async def region(self, name: str) -> tuple[str, ...]:
        """The nodes of a region, by its name or as `home`, `head-region`; none if there is no such region."""
        topology = await self.topology()
        named = {"home": topology.home, "head-region": topology.regions[topology.head]}
        region = named.get(name, name)
        return tuple(n.name for n in self.config.nodes if n.region == region)

    @property
    def chain(self) -> LocalChain:
        if self.local is None:
            raise Refused("this fault needs a local chain")
        return self.local

    @property
    def wires(self) -> Network:
        if self.network is None:
            raise Refused("this fault needs a chain whose parties reach each other through fault proxies")
        return self.network

    @asynccontextmanager
    async def sql(self, node: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
        """A connection to a node's database, behind its daemon's back. Raises Unavailable."""
        connection = await self.connect(node)
        try:
            yield connection
        finally:
            connection.terminate()

    async def connect(self, node: str) -> asyncpg.Connection[asyncpg.Record]:
        dsn = self.config.registry.dsn if node == REGISTRY else self.config.node(node).dsn
        try:
            return await asyncpg.connect(dsn.reveal(), timeout=5.0, command_timeout=10.0)
        except (OSError, TimeoutError, asyncpg.PostgresError) as error:
            raise Unavailable(f"{node} can't be reached for a fault: {error}") from error


@dataclass(frozen=True, slots=True)
class _Undo:
    what: str
    do: Callable[[], Awaitable[object]]


@dataclass(slots=True)
class Undos:
    """How what was done is taken back. Each is told before it is needed, so an interrupt finds it.

    `run` may be called any number of times: what has been taken back is not taken back again, what has
    failed is tried again.
    """

    _left: list[_Undo] = field(default_factory=list)

    def add(self, what: str, do: Callable[[], Awaitable[object]]) -> None:
        self._left.append(_Undo(what, do))

    def done(self) -> bool:
        """Whether there is nothing to take back any more."""
        return not self._left

    async def run(self) -> tuple[Rollback, ...]:
        """Takes back, the latest first. One that fails never keeps the others from being run."""
        results: list[Rollback] = []
        for undo in reversed(list(self._left)):
            start, error = time.monotonic(), ""
            try:
                async with asyncio.timeout(UNDO_S):
                    await undo.do()
                self._left.remove(undo)
            except TimeoutError:
                error = f"not done within {UNDO_S:g} s"
            except Exception as failure:
                error = f"{type(failure).__name__}: {failure}"
                log.warning("%s failed", undo.what, exc_info=failure)
            results.append(Rollback(undo.what, not error, time.monotonic() - start, error))
        return tuple(results)


@asynccontextmanager
async def open_ground(
    config: Config,
    *,
    local: LocalChain | None = None,
    network: Network | None = None,
    controllers: tuple[str, ...] = (),
    seed: int = 0,
) -> AsyncIterator[Ground]:
    """The ground for the time of the block."""
    async with AsyncExitStack() as stack:
        fleet = await stack.enter_async_context(open_fleet(config, timeout_s=2.0))
        seen = config if network is None else network.config(OPERATOR)
        operator = await stack.enter_async_context(open_fleet(seen))
        yield Ground(config, fleet, operator, local, network, controllers, Random(f"{seed}/faults"))
