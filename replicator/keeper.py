"""Keeps the lease of a head: takes it up, renews it, and while the registry is away, asks for promises.

The order is the whole of it: read the store's clock, then renew (or collect the promises), then set the
store's deadline from that reading. Whatever is late or lost on the way only makes the deadline earlier. And a
head gets time to write only when the registry has on record that its reign began: a store that knows nothing
of it afterwards has gone back, and may not begin it a second time. What goes back before that is on record is
at another tip than it was granted the epoch at, or writes the very promotion again that it has lost.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from math import inf
from typing import Final
from uuid import UUID

from chain.commands import begin_reign
from chain.errors import ChainError, LeaseLost, Refused, StaleLink, Unavailable
from chain.event import Epoch, Tip
from chain.lease import CLOCK_TOLERANCE_S, Lease, Terms
from chain.registry import Registry
from chain.store import NodeState, Role, Store
from chain.tasks import end
from replicator.peers import Peers

log = logging.getLogger(__name__)

_TRIES: Final = 5
_LATE_S: Final = CLOCK_TOLERANCE_S / 2
"""So long after its end a right is taken away: well within every margin."""
_ROUNDING: Final = timedelta(milliseconds=1)
"""By so much a deadline may come out wrong that is reckoned from the seconds that are left."""


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
    lease; Refused if the store has gone back behind its promotion; StaleLink if it is not at the tip that it
    was granted the epoch at, or the chain is in another epoch; Promised.
    """
    topology = await registry.topology()
    if (topology.epoch, topology.promotion) != (epoch, promotion):
        raise StaleLink(f"{node} was granted epoch {epoch}; the chain is in epoch {topology.epoch} now")
    state = await store.state()  # read after the record: whatever is on record, a sound store has
    begun = topology.began is not None
    if begun and (state.role, state.reign, state.promotion) != (Role.HEAD, epoch, promotion):
        raise Refused(
            f"the reign of {node} in epoch {epoch} has begun, and its store knows nothing of it",
            hint="its store went back; its daemon asks for a new epoch by itself",
        )
    read_at = state.clock
    await _claim(registry, node, epoch, terms, granted=True)
    # Promoted without any time to write; the renewal gives it, and finds out a clock that stepped back.
    tip = await store.promote(epoch, promotion, read_at, ground=topology.ground)
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


@dataclass(frozen=True, slots=True)
class _Right:
    """A head's time to write, as its daemon knows it."""

    epoch: Epoch
    until: datetime
    """By the store's clock."""
    ends_at: float
    """By the monotonic clock of the daemon's process: where `until` is, if the store's clock runs true."""


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
    settled: bool = False
    """The lease was renewed, by whatever way, since the other members were last said."""
    _others: tuple[str, ...] | None = None
    """All other members, and who joins; None if not known: then no promises are asked for."""
    _peers: dict[str, Store] = field(default_factory=dict)
    _begun: Epoch | None = None
    """The reign that is known to be on record."""
    _renewing: asyncio.Lock = field(default_factory=asyncio.Lock)
    _right: _Right | None = None
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def know(self, others: Iterable[str]) -> None:
        """Says who the other members are, and who joins. No renewal goes on with fewer from then on."""
        others = tuple(others)
        if others != self._others:
            async with self._renewing:
                self._others, self.settled = others, False

    async def renew(self) -> None:
        """Renews the lease of a head; does nothing for another node.

        Raises what kept it from doing so; the lease then ends by itself.
        """
        async with self._renewing:
            try:
                before = _now()
                state = await self.store.state()
                if not state.reigning:
                    await self._keep(Keeping.NOTHING)
                    self.lost_to, self._right = None, None
                    return
                self._note_right(state, before)
                try:
                    await self._renew(state, before)
                except LeaseLost:
                    await self._look_for_loss(state.reign)
                    raise
                self.lost_to, self.settled = None, True
            except ChainError:
                await self._keep(Keeping.NOTHING)
                await self._note_clock()
                raise

    async def guard(self) -> None:
        """Ends the right to write when its time is over by the daemon's own monotonic clock, too.

        The store goes by its server's clock. One that is set back would make the right longer. Runs for
        ever; ends by cancellation.
        """
        while True:
            self._changed.clear()
            right = self._right
            if right is None or (left_s := right.ends_at + _LATE_S - _now()) > 0:
                try:
                    async with asyncio.timeout(None if right is None else left_s):
                        await self._changed.wait()
                except TimeoutError:
                    pass
                continue
            self._right = None
            try:
                if await self.store.lapse(right.epoch, right.until):
                    log.warning("%s: its lease was over, and its server's clock did not say so", self.name)
            except ChainError as error:
                log.warning("%s can't end its lease: %s", self.name, error.message)

    async def close(self) -> None:
        while self._peers:
            _, store = self._peers.popitem()
            await store.close()

    def _note_right(self, state: NodeState, read_at: float) -> None:
        """Notes how long the right runs that the store has, which another process may have given it."""
        if not 0 < state.lease_left_s < inf:
            return
        until = state.clock + timedelta(seconds=state.lease_left_s)
        known = self._right
        if known is None or known.epoch != state.reign or known.until + _ROUNDING < until:
            self._set_right(_Right(state.reign, until + _ROUNDING, read_at + state.lease_left_s))

    def _set_right(self, right: _Right | None) -> None:
        self._right = right
        self._changed.set()

    async def _give(self, state: NodeState, read_at: float, duration_s: float | None) -> None:
        """Sets the deadline from a reading of the store's clock, begun at `read_at`."""
        duration = None if duration_s is None else timedelta(seconds=duration_s)
        await self.store.renew(state.reign, state.clock, duration)
        if duration_s is None or duration is None:
            self._set_right(None)
            return
        until, ends_at, known = state.clock + duration, read_at + duration_s, self._right
        if known is not None and known.epoch == state.reign:  # as in the store, nothing makes it shorter
            until, ends_at = max(until, known.until), max(ends_at, known.ends_at)
        self._set_right(_Right(state.reign, until, ends_at))

    async def _renew(self, state: NodeState, before: float) -> None:
        terms = self.terms
        if terms is None:
            if state.lease_left_s != inf:  # the chain had leases before, or the reign is not on record yet
                await _claim(self.registry, self.name, state.reign, None)
                await self._record(state)
                await self._give(state, before, None)
            await self._keep(Keeping.OFF)
            return
        try:
            async with asyncio.timeout(terms.renew_s):
                if state.lease_left_s == inf:
                    # The chain had no leases before. The end comes first: a record that runs out must not
                    # stand beside a head that goes on for ever, if this daemon dies in between.
                    await self.registry.lease()
                    await self._give(state, before, terms.right_s)
                await _claim(self.registry, self.name, state.reign, terms)
                await self._record(state)
            keeping = Keeping.REGISTRY
        except (Unavailable, TimeoutError) as error:
            if not terms.failsafe:
                raise Unavailable(f"the lease can't be renewed: {_say(error)}") from error
            # The first reading may be old by now: a new one makes the lease longer, and as true.
            before = _now()
            state = await self.store.state()
            if self._begun != state.reign and state.lease_left_s <= 0:
                raise Unavailable(
                    f"the registry is away ({_say(error)}), and may not know that epoch {state.reign} began"
                ) from error
            if self._others is None:
                raise Unavailable(
                    f"the registry is away ({_say(error)}), and who the members are was not heard yet"
                ) from error
            await self._collect_promises(state.reign, self._others, terms, error)
            keeping = Keeping.PROMISES
        await self._give(state, before, terms.right_s)
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
                # A clock that steps back by less than the store notices must not make a right of it.
                await self.store.renew(state.reign, state.clock, timedelta(seconds=-CLOCK_TOLERANCE_S))

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


def _now() -> float:
    return asyncio.get_running_loop().time()


def _say(error: BaseException) -> str:
    return error.message if isinstance(error, ChainError) else "no answer in time"
