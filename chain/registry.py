"""The registry: where the decisions of a chain are kept, and who may operate on it at a time.

History, audit and explanation are reads of one stream of a control event store; the state is its fold; the
expected revision is the lock. The lease is the other half of the port (ARCHITECTURE.md, "Lease").
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

from chain.commands import Command
from chain.decisions import Decision, decode, encode, evolve
from chain.errors import NotHead, Refused, WrongRevision
from chain.event import Epoch, Event, Expect, Revision, new_id
from chain.store import Identity, Store
from chain.topology import Topology

REGISTRY: Final = Identity("$registry", "registry")
_TRIES: Final = 20
_IDLE_S: Final = 1.0


class Locks(Protocol):
    """Mutual exclusion among live processes. It ends with the process that holds it."""

    def hold(self, name: str) -> AbstractAsyncContextManager[None]:
        """Holds `name` for the time of the block. Raises Busy at once if another holds it."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """A decision as the registry keeps it."""

    revision: Revision
    decision: Decision
    by: str
    why: str
    at: datetime


class Registry:
    """The decisions of one chain, in the control store `store`."""

    def __init__(self, store: Store, locks: Locks, chain: str) -> None:
        self.chain = chain
        self._store = store
        self._locks = locks
        self._stream = f"$chain-{chain}"
        self._topology: Topology | None = None

    async def open(self) -> None:
        """Prepares the control store and makes it take writes; it is the only node of its own chain."""
        await self._store.prepare(REGISTRY)
        state = await self._store.state()
        if not state.writable:
            await self._store.promote(_next(state.epoch), new_id())

    async def topology(self) -> Topology:
        """The chain as decided up to now. Raises Refused if there is no such chain, Unavailable."""
        topology = await self._load()
        if topology is None:
            raise Refused(f"the registry does not know chain {self.chain!r}", hint="start it: chainctl up")
        return topology

    async def decide(self, command: Command, *, by: str, why: str = "") -> Topology:
        """Decides on the newest topology and records it, or raises what `command` raises.

        Appends at the revision that was decided on; if someone else was first, decides again.
        """
        metadata = json.dumps({"by": by, "why": why}).encode()
        for _ in range(_TRIES):
            topology = await self._load()
            decisions = command(topology)
            if decisions:
                expected = topology.version if topology else Expect.NO_STREAM
                events = [encode(decision, metadata) for decision in decisions]
                try:
                    await self._store.append_system(self._stream, expected, events)
                except WrongRevision:
                    continue
                except NotHead:  # the registry's server restarted, and nobody has written since
                    await self.open()
                    continue
            return await self.topology()
        raise Refused(f"chain {self.chain}: others kept deciding first", hint="try again")

    async def watch(self) -> AsyncIterator[Topology]:
        """The topology now, and again whenever it has changed. Raises Unavailable; watch again then."""
        seen: Revision | None = None
        while True:
            tip = await self._store.tip()
            topology = await self._load()
            if topology is not None and topology.version != seen:
                seen = topology.version
                yield topology
            await self._store.wait(tip.position, _IDLE_S)

    async def history(self) -> tuple[Recorded, ...]:
        """Every decision, from the first."""
        recorded: list[Recorded] = []
        revision = Revision(0)
        while True:
            page = await self._store.get(self._stream, revision)
            recorded += map(_recorded, page.events)
            revision = Revision(page.next)
            if page.at_tip:
                return tuple(recorded)

    def hold(self) -> AbstractAsyncContextManager[None]:
        """Keeps other operators off this chain while the block runs. Raises Busy at once."""
        return self._locks.hold(f"chain {self.chain}")

    async def close(self) -> None:
        await self._store.close()

    async def _load(self) -> Topology | None:
        while True:
            topology = self._topology
            page = await self._store.get(
                self._stream, Revision(topology.version + 1) if topology else Revision(0)
            )
            for event in page.events:
                topology = evolve(topology, decode(event), event.revision)
            if self._topology is None or (topology and topology.version > self._topology.version):
                self._topology = topology
            if page.at_tip:
                return topology


def _recorded(event: Event) -> Recorded:
    metadata = json.loads(event.metadata)
    return Recorded(event.revision, decode(event), metadata["by"], metadata["why"], event.recorded_at)


def _next(epoch: int) -> Epoch:
    return Epoch(epoch + 1)
