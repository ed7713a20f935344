"""The registry: where the decisions of a chain are kept, and who may operate on it at a time.

History, audit and explanation are reads of one stream of a control event store; the state is its fold; the
expected revision is the lock. The lease (`chain.lease`) is the other half of the port.
"""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Protocol
from uuid import UUID

from chain.commands import Command
from chain.decisions import Decision, decode, encode, evolve
from chain.errors import NotHead, Refused, StaleLink, WrongRevision
from chain.event import Epoch, Event, Expect, NewEvent, Revision, new_id
from chain.lease import Lease, Leases
from chain.store import Identity, Store
from chain.topology import Topology

REGISTRY: Final = Identity("$registry", "registry")

log = logging.getLogger(__name__)
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


@dataclass(frozen=True, slots=True)
class Noted:
    """What a controller thought, and when, by the registry's clock."""

    at: datetime
    what: Mapping[str, Any]


class Registry:
    """The decisions of one chain, in the control store `store`."""

    def __init__(self, store: Store, locks: Locks, leases: Leases, chain: str) -> None:
        self.chain = chain
        self._store = store
        self._locks = locks
        self._leases = leases
        self._stream = f"$chain-{chain}"
        self._notes = f"$judgements-{chain}"
        self._known: tuple[Topology | None, UUID | None] = None, None
        """As last read, and the id of the last decision in it."""

    async def open(self) -> None:
        """Prepares the control store and makes it take writes; it is the only node of its own chain."""
        await self._store.prepare(REGISTRY)
        for _ in range(_TRIES):
            state = await self._store.state()
            if state.writable:
                return
            with suppress(StaleLink):  # another was first
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
        seen: Topology | None = None
        while True:
            tip = await self._store.tip()
            topology = await self._load()
            if topology is None and seen is not None:
                raise Refused(f"the registry does not know chain {self.chain!r} any more")
            if topology is not None and topology is not seen:
                seen = topology
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

    async def note(self, what: Mapping[str, Any]) -> None:
        """Records what a controller thinks, beside the decisions; nothing follows from it."""
        event = NewEvent("Judged", json.dumps(what).encode())
        try:
            await self._store.append_system(self._notes, Expect.ANY, [event])
        except NotHead:
            await self.open()
            await self._store.append_system(self._notes, Expect.ANY, [event])

    async def notes(self) -> tuple[Noted, ...]:
        """What controllers have thought, from the first."""
        noted: list[Noted] = []
        revision = Revision(0)
        while True:
            page = await self._store.get(self._notes, revision)
            noted += (Noted(event.recorded_at, json.loads(event.data)) for event in page.events)
            revision = Revision(page.next)
            if page.at_tip:
                return tuple(noted)

    def hold(self, *, urgent: bool = False) -> AbstractAsyncContextManager[None]:
        """Keeps other operators off this chain while the block runs. Raises Busy at once.

        What is urgent waits for nothing but what is urgent: a live bootstrap keeps no failover away. What
        that one does then is refused, since its run has ended.
        """
        return self._locks.hold(f"chain {self.chain}" + (", urgently" if urgent else ""))

    def hold_for_drills(self) -> AbstractAsyncContextManager[None]:
        """Keeps other drills off this chain while the block runs, and no operator. Raises Busy at once."""
        return self._locks.hold(f"chain {self.chain}, for drills")

    async def lease(self) -> Lease | None:
        """The lease record as it is; None if the chain never had one."""
        return await self._leases.read(self.chain)

    async def renew_lease(self, epoch: Epoch, holder: str, duration_s: float | None) -> Lease:
        """Raises LeaseLost unless the lease is `holder`'s in `epoch`."""
        return await self._leases.renew(self.chain, epoch, holder, duration_s)

    async def take_lease(
        self, epoch: Epoch, holder: str, duration_s: float | None, seen: Lease | None
    ) -> Lease:
        """Raises LeaseLost unless the record still is what was `seen`."""
        return await self._leases.take(self.chain, epoch, holder, duration_s, seen)

    async def clock(self) -> datetime:
        """The registry's clock, by which decisions are dated."""
        return (await self._store.state()).clock

    async def close(self) -> None:
        await self._store.close()

    async def _load(self) -> Topology | None:
        """The topology up to now: from the one read before, if its last decision still stands."""
        while True:
            topology, last = self._known
            page = await self._store.get(self._stream, topology.version if topology else Revision(0))
            events = page.events
            if topology is not None:
                if not events or events[0].id != last:
                    log.warning("the registry of chain %s went back, or is another: read anew", self.chain)
                    self._known = None, None
                    continue
                events = events[1:]
            for event in events:
                topology, last = evolve(topology, decode(event), event.revision, event.recorded_at), event.id
            before, _ = self._known
            if before is None or (topology is not None and topology.version > before.version):
                self._known = topology, last
            if page.at_tip:
                return topology


def _recorded(event: Event) -> Recorded:
    metadata = json.loads(event.metadata)
    return Recorded(event.revision, decode(event), metadata["by"], metadata["why"], event.recorded_at)


def _next(epoch: int) -> Epoch:
    return Epoch(epoch + 1)
