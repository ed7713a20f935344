"""Keeps the lease of a head: takes it up, renews it, and while the registry is away, asks for promises.

The order is the whole of it: read the store's clock, then renew (or collect the promises), then set the
store's deadline from that reading. Whatever is late or lost on the way only makes the deadline earlier. And a
head gets time to write only when the registry has on record that its reign began: a store that knows nothing
of it afterwards has gone back, and may not begin it a second time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from enum import Enum
from math import inf
from typing import Final
from uuid import UUID

from chain.commands import begin_reign
from chain.errors import ChainError, LeaseLost, Unavailable
from chain.event import Epoch, Tip
from chain.lease import Lease, Terms
from chain.registry import Registry
from chain.store import NodeState, Store
from chain.tasks import end
from replicator.peers import Peers

log = logging.getLogger(__name__)

_TRIES: Final = 5


class Keeping(Enum):
    """On what a head's right to take writes rests."""

    NOTHING = "none"
    """The node is no head, or its lease was not renewed when last tried: it ends by itself."""
    REGISTRY = "registry"
    """The registry renewed the lease."""
    PROMISES = "promises"
    """The registry is away; every other member promised to stay a follower."""
    OFF = "off"
    """The chain runs without leases."""


async def take_up(
    registry: Registry,
    store: Store,
    node: str,
    epoch: Epoch,
    promotion: UUID,
    terms: Terms | None,
    *,
    by: str = "",
    why: str = "",
) -> Tip:
    """Makes the node head of the epoch that it was granted: lease, promotion, the record of it, deadline.

    Whoever does it again, or at the same time, comes to the same. Raises LeaseLost if a newer epoch has the
    lease; StaleLink, Promised.
    """
    read_at = (await store.state()).clock
    await _claim(registry, node, epoch, terms, granted=True)
    # Promoted without any time to write; the renewal gives it, and finds out a clock that stepped back.
    tip = await store.promote(epoch, promotion, read_at)
    began = begin_reign(epoch, promotion, tip.position)
    await registry.decide(began, by=by or f"daemon of {node}", why=why)
    await store.renew(epoch, read_at, None if terms is None else timedelta(seconds=terms.right_s))
    return tip


async def _claim(
    registry: Registry, node: str, epoch: Epoch, terms: Terms | None, *, granted: bool = False
) -> None:
    """Renews the node's lease, or takes it from an older epoch.

    An epoch is granted once, so whoever was `granted` it may take the lease within it, too: from nobody. A
    head that had the lease of its epoch and lost it may not: whoever ended it has gone on from that.
    """
    duration_s = None if terms is None else terms.duration_s
    for _ in range(_TRIES):
        seen = await registry.lease()
        if seen is not None and not granted and _is_taken(seen, node, epoch):
            whose = f"{seen.holder or 'nobody'}'s in epoch {seen.epoch}"
            raise LeaseLost(f"{node} had the lease in epoch {epoch}; it is {whose}")
        if terms is None and (seen is None or seen.duration_s is None):
            return
        try:
            if seen is not None and (seen.epoch, seen.holder) == (epoch, node):
                await registry.renew_lease(epoch, node, duration_s)
            else:
                await registry.take_lease(epoch, node, duration_s, seen)
            return
        except LeaseLost:
            # A daemon and a runner may take it up for the same node: the second renews what the first took.
            if seen is not None and seen.epoch > epoch:
                raise
    raise Unavailable("the lease kept being changed by others", hint="try again")


def _is_taken(lease: Lease, node: str, epoch: Epoch) -> bool:
    """Has another the lease that was the node's in `epoch`?"""
    return lease.epoch >= epoch and (lease.epoch, lease.holder) != (epoch, node)


@dataclass(slots=True)
class Keeper:
    """Keeps the lease for the store of `name`, under `terms`; None for a chain without leases."""

    name: str
    store: Store
    peers: Peers
    registry: Registry
    terms: Terms | None
    keeping: Keeping = Keeping.NOTHING
    lost_to: Epoch | None = None
    """The epoch in which the lease of this reign was taken away, if it was: its own, or a newer one."""
    _peers: dict[str, Store] = field(default_factory=dict)
    _begun: Epoch | None = None
    """The reign that is known to be on record."""

    async def renew(self, others: Iterable[str]) -> None:
        """Renews the lease of a head; does nothing for another node. `others` are all other members.

        Raises what kept it from doing so; the lease then ends by itself.
        """
        try:
            state = await self.store.state()
            if not state.reigning:
                await self._keep(Keeping.NOTHING)
                self.lost_to = None
                return
            try:
                await self._renew(state, tuple(others))
            except LeaseLost:
                await self._look_for_loss(state.reign)
                raise
            self.lost_to = None
        except ChainError:
            await self._keep(Keeping.NOTHING)
            await self._note_clock()
            raise

    async def close(self) -> None:
        while self._peers:
            _, store = self._peers.popitem()
            await store.close()

    async def _renew(self, state: NodeState, others: tuple[str, ...]) -> None:
        terms = self.terms
        if terms is None:
            if state.lease_left_s != inf:  # the chain had leases before, or the reign is not on record yet
                await _claim(self.registry, self.name, state.reign, None)
                await self._record(state)
                await self.store.renew(state.reign, state.clock, None)
            await self._keep(Keeping.OFF)
            return
        try:
            async with asyncio.timeout(terms.renew_s):
                if state.lease_left_s == inf:
                    # The chain had no leases before. The end comes first: a record that runs out must not
                    # stand beside a head that goes on for ever, if this daemon dies in between.
                    await self.registry.lease()
                    await self.store.renew(state.reign, state.clock, timedelta(seconds=terms.right_s))
                await _claim(self.registry, self.name, state.reign, terms)
                await self._record(state)
            keeping = Keeping.REGISTRY
        except (Unavailable, TimeoutError) as error:
            if not terms.failsafe:
                raise Unavailable(f"the lease can't be renewed: {_say(error)}") from error
            # The first reading may be old by now: a new one makes the lease longer, and as true.
            state = await self.store.state()
            if self._begun != state.reign and state.lease_left_s <= 0:
                raise Unavailable(
                    f"the registry is away ({_say(error)}), and may not know that epoch {state.reign} began"
                ) from error
            await self._collect_promises(state.reign, others, terms, error)
            keeping = Keeping.PROMISES
        await self.store.renew(state.reign, state.clock, timedelta(seconds=terms.right_s))
        await self._keep(keeping)

    async def _record(self, state: NodeState) -> None:
        """Sees to it that the registry knows of the reign: who took it up may have died before it said so."""
        if self._begun != state.reign and state.promotion is not None:
            start = (await self.store.history()).reigns[-1].start
            began = begin_reign(state.reign, state.promotion, start)
            await self.registry.decide(began, by=f"daemon of {self.name}")
            self._begun = state.reign

    async def _collect_promises(
        self, epoch: Epoch, others: tuple[str, ...], terms: Terms, why: BaseException
    ) -> None:
        """Raises Unavailable unless every other member promises; one that can't be reached does not."""
        duration = timedelta(seconds=terms.duration_s)
        asking = [
            asyncio.create_task(self._ask_promise(node, epoch, duration), name=f"ask {node} for a promise")
            for node in others
        ]
        try:
            async with asyncio.timeout(terms.renew_s):
                await asyncio.gather(*asking)
        except (ChainError, TimeoutError) as error:
            raise Unavailable(
                f"the registry is away ({_say(why)}), and not every member promises: {_say(error)}",
                hint="the lease runs out, and with it the writes, until one of them is back",
            ) from error
        finally:
            for task in asking:
                await end(task)

    async def _ask_promise(self, node: str, epoch: Epoch, duration: timedelta) -> None:
        await self._peer(node).promise(epoch, duration)

    async def _look_for_loss(self, reign: Epoch) -> None:
        """Who has the lease, if not this head. If that can't be read now, the next try finds it out."""
        try:
            async with asyncio.timeout(self.terms.renew_s if self.terms else None):
                lease = await self.registry.lease()
        except (ChainError, TimeoutError):
            return
        if lease is not None and _is_taken(lease, self.name, reign):
            self.lost_to = lease.epoch

    async def _note_clock(self) -> None:
        """Lets the store see its clock though nothing is renewed, so that a step back is found out."""
        with suppress(ChainError):
            state = await self.store.state()
            if state.reigning and state.lease_left_s != inf:
                await self.store.renew(state.reign, state.clock, timedelta(0))

    def _peer(self, node: str) -> Store:
        if node not in self._peers:
            self._peers[node] = self.peers(node)
        return self._peers[node]

    async def _keep(self, keeping: Keeping) -> None:
        if keeping is not self.keeping:
            log.info("%s: its lease rests on %s, was on %s", self.name, keeping.value, self.keeping.value)
        self.keeping = keeping
        if keeping is not Keeping.PROMISES:
            await self.close()


def _say(error: BaseException) -> str:
    return error.message if isinstance(error, ChainError) else "no answer in time"
