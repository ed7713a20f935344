"""Broken variants: each takes away one thing that protects the chain, and the invariants must find it out.

They patch the shipped code for the time of a block. Some undo the mending of what a seed once found.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Final
from unittest import mock
from uuid import UUID
from weakref import WeakKeyDictionary

import replicator.keeper
import replicator.link
from chain.acks import Ack
from chain.client import Client, _Call
from chain.commands import Command, begin_reign
from chain.decisions import JoinFinished
from chain.event import EMPTY, Appended, Epoch, Event, Expect, Expected, NewEvent, Position, Tip, new_id
from chain.history import History
from chain.lease import Lease
from chain.memory import MemoryLeases, MemoryStore
from chain.registry import Registry
from chain.store import Batch, NodeState, Store
from chain.topology import Topology
from failover.fleet import Fleet
from failover.steps import STEPS, Context
from replicator.keeper import Keeper
from replicator.link import Link
from tests.simulation.invariants import Violation
from tests.simulation.life import live
from tests.simulation.scenarios import SCENARIOS
from tests.simulation.stores import SimStore
from tests.simulation.world import World


@dataclass(frozen=True, slots=True)
class Variant:
    """What is broken, where it is looked for, and within how many seeds it must be found."""

    name: str
    broken: Callable[[], AbstractContextManager[None]]
    scenario: str
    seeds: int
    caught: tuple[str, ...]
    """One of these is in what is found."""
    first: int = 1
    """The seed that caught it when all were last gone through: looked at before the others."""


def find(variant: Variant) -> tuple[int, str]:
    """A seed that catches it, and the violation. Raises AssertionError if none does in time."""
    with variant.broken():
        for seed in dict.fromkeys((variant.first, *range(1, variant.seeds + 1))):
            try:
                live(SCENARIOS[variant.scenario], seed)
            except Violation as violation:
                found = str(violation).splitlines()[0]
                if any(words in found for words in variant.caught):
                    return seed, found
    raise AssertionError(f"{variant.name} was not caught within {variant.seeds} seeds")


@contextmanager
def no_guard() -> Iterator[None]:
    """Only the store's own clock ends a right to write."""

    async def guard(self: Keeper) -> None:
        await asyncio.Event().wait()

    with mock.patch.object(Keeper, "guard", guard):
        yield


@contextmanager
def no_margin() -> Iterator[None]:
    """Head and observers count the same time, each by its own clock; the daemon's would hide it."""
    with no_guard(), mock.patch.object(World, "margin_s", 0.0):
        yield


@contextmanager
def join_unheard() -> Iterator[None]:
    """A node becomes a member, whatever the head knows of it."""

    def finish(node: str, *, run: UUID) -> Command:
        return lambda topology: (
            () if topology is None or node not in topology.joining else (JoinFinished(node),)
        )

    async def no_wait(context: Context) -> None:
        return None

    with (
        mock.patch("failover.steps.members.finish_join", finish),
        mock.patch("failover.steps.members._wait_head_heard", no_wait),
    ):
        yield


@contextmanager
def stale_record() -> Iterator[None]:
    """A node takes up its epoch again though it is on record that it has begun, wherever its log ends."""

    async def take(
        registry: Registry, store: Store, node: str, epoch: Epoch, promotion: UUID, terms: Any, **_: str
    ) -> Tip:
        read_at = (await store.state()).clock
        await replicator.keeper._claim(registry, node, epoch, terms, granted=True)
        tip = await store.promote(epoch, promotion, read_at)
        await registry.decide(begin_reign(epoch, promotion, tip.position), by="a variant")
        await store.renew(epoch, read_at, None if terms is None else timedelta(seconds=terms.right_s))
        return tip

    with mock.patch("replicator.daemon.take_up", take):
        yield


@contextmanager
def wall_clock() -> Iterator[None]:
    """Whether the lease has run out is judged by a clock that is set now and then."""
    original = Fleet.read_lease
    hours: dict[int, int] = {}

    async def read(self: Fleet) -> Lease | None:
        lease = await original(self)
        hour = int(asyncio.get_running_loop().time() / 3)
        if hours.setdefault(id(self), hour) != hour:
            hours[id(self)] = hour
            self.lease_watch._since -= 60.0
        return lease

    with mock.patch.object(Fleet, "read_lease", read):
        yield


@contextmanager
def promote_first() -> Iterator[None]:
    """A failover does not wait until the lease has run out, and fences nobody before it promotes."""

    async def nothing(context: Context) -> dict[str, Any]:
        return {"lease": "taken", "fenced": False}

    broken = {name: replace(STEPS[name], do=nothing) for name in ("end-lease", "fence-head-if-reachable")}
    with mock.patch.dict(STEPS, broken):
        yield


@contextmanager
def no_compare() -> Iterator[None]:
    """Decisions are appended wherever the registry's stream is."""
    original = SimStore.commit

    async def commit(
        self: SimStore, stream: str, expected: Expected, events: Sequence[NewEvent], *, system: bool = False
    ) -> Appended:
        anywhere = Expect.ANY if system else expected
        return await original(self, stream, anywhere, events, system=system)

    with mock.patch.object(SimStore, "commit", commit):
        yield


@contextmanager
def fork_by_position() -> Iterator[None]:
    """Two logs are taken for equal as far as the shorter one goes."""

    def fork(source: History, target: History) -> Position:
        return min(source.tip.position, target.tip.position)

    with mock.patch.object(replicator.link, "fork", fork):
        yield


@contextmanager
def truncate() -> Iterator[None]:
    """A dead branch is cut off and not kept."""
    original = MemoryStore.give_up

    async def give_up(self: MemoryStore, fork: Position, tip: Tip, epoch: Epoch, upstream: str) -> int:
        kept = dict(self._dead)
        count = await original(self, fork, tip, epoch, upstream)
        self._dead = kept
        return count

    with mock.patch.object(MemoryStore, "give_up", give_up):
        yield


@contextmanager
def no_new_epoch() -> Iterator[None]:
    """A head goes on in its epoch when its server has restarted."""
    with mock.patch.object(MemoryStore, "restart"):
        yield


@contextmanager
def told_too_early() -> Iterator[None]:
    """A link tells its source that a batch is there, and then puts it there."""
    original = Link._apply

    async def apply(self: Link, batch: Batch, behind: asyncio.Task[Tip] | None) -> Tip:
        tell: Any = self.source
        last = await tell.store.at(batch.last)
        if last is not None:
            await tell.tell({self.target_name: Tip(last.position, last.epoch)})
        return await original(self, batch, behind)

    with mock.patch.object(Link, "_apply", apply):
        yield


@contextmanager
def own_checkpoint() -> Iterator[None]:
    """A link goes on from its own note of how far it came, which is kept apart from the data."""
    noted: WeakKeyDictionary[Any, dict[tuple[str, Epoch], Tip]] = WeakKeyDictionary()
    apply, probe = Link._apply, Link._probe

    async def note(self: Link, batch: Batch, behind: asyncio.Task[Tip] | None) -> Tip:
        tip = await apply(self, batch, behind)
        link = self.source_name, self.assignment.epoch
        noted.setdefault(_of(self.target), {})[link] = self.status.target_tip
        return tip

    async def go_on(self: Link) -> None:
        await probe(self)
        link = self.source_name, self.assignment.epoch
        tip = noted.get(_of(self.target), {}).get(link, EMPTY)
        self.status = replace(self.status, target_tip=max(tip, self.status.target_tip))

    def _of(store: Any) -> Any:
        return store.store

    with mock.patch.object(Link, "_apply", note), mock.patch.object(Link, "_probe", go_on):
        yield


@contextmanager
def new_ids() -> Iterator[None]:
    """A client that tries again makes its events anew."""
    original = Client._add

    async def add(
        self: Client, call: _Call, stream: str, expected: Expected, events: Sequence[NewEvent], ack: Ack
    ) -> Appended:
        fresh = events if call.seen is None else [replace(e, id=new_id()) for e in events]
        return await original(self, call, stream, expected, fresh, ack)

    with mock.patch.object(Client, "_add", add):
        yield


@contextmanager
def take_unseen() -> Iterator[None]:
    """A lease is taken whatever has become of it since it was looked at."""
    original = MemoryLeases.take

    async def take(
        self: MemoryLeases,
        chain: str,
        epoch: Epoch,
        holder: str,
        duration_s: float | None,
        seen: Lease | None,
    ) -> Lease:
        record = self._records.get(chain)
        newest = epoch if record is None else max(epoch, record.epoch)
        return await original(self, chain, newest, holder, duration_s, record)

    with mock.patch.object(MemoryLeases, "take", take):
        yield


@contextmanager
def any_predecessor() -> Iterator[None]:
    """A batch is put behind the tip if the position is right, whatever stands there."""
    original = SimStore.apply

    async def apply(
        self: SimStore,
        batch: Batch,
        epoch: Epoch,
        upstream: str,
        *,
        behind: asyncio.Future[Tip] | None = None,
    ) -> Tip:
        if batch.after == self.last.position:
            batch = replace(batch, after_epoch=self.last.epoch)
        return await original(self, batch, epoch, upstream, behind=behind)

    with mock.patch.object(SimStore, "apply", apply):
        yield


@contextmanager
def fence_forgotten() -> Iterator[None]:
    """A head that is fenced says so and does not note it. (Of a candidate, the grant would find it out.)"""
    original = SimStore.fence

    async def fence(self: SimStore, epoch: Epoch) -> Tip:
        return self.last if self.leads else await original(self, epoch)

    with mock.patch.object(SimStore, "fence", fence):
        yield


@contextmanager
def deadline_from_now() -> Iterator[None]:
    """The lease runs from when the store hears of the renewal, however long that was on its way."""
    original = MemoryStore.renew

    async def renew(self: MemoryStore, epoch: Epoch, read_at: Any, duration: timedelta | None) -> None:
        await original(self, epoch, self._clock(), duration)

    with mock.patch.object(MemoryStore, "renew", renew):
        yield


@contextmanager
def promises_forgotten() -> Iterator[None]:
    """A follower gives its promise, and is promoted all the same."""

    async def promise(self: MemoryStore, epoch: Epoch, duration: timedelta) -> None:
        return None

    with mock.patch.object(MemoryStore, "promise", promise):
        yield


@contextmanager
def reign_not_on_record() -> Iterator[None]:
    """A head writes although the registry may not know that its reign began."""

    def nothing(epoch: Epoch, promotion: UUID, position: Position) -> Command:
        return lambda topology: ()

    with mock.patch("replicator.keeper.begin_reign", nothing):
        yield


@contextmanager
def read_past_durable() -> Iterator[None]:
    """Whoever reads a log is handed what is not flushed yet."""
    with mock.patch.object(SimStore, "settle"):
        yield


@contextmanager
def empty_leads() -> Iterator[None]:
    """A node without events may take over."""

    def everyone(states: Mapping[str, NodeState], topology: Topology) -> dict[str, Tip]:
        return {node: state.tip for node, state in states.items()}

    with (
        mock.patch("failover.steps.head.may_lead", everyone),
        mock.patch("failover.diagnosis.may_lead", everyone),
    ):
        yield


BEGUN_TWICE: Final = (
    "make no sense",
    "was granted after",
    "was begun while",
    "finished twice",
    "were both promoted",
)
TWO_WRITERS: Final = ("both take writes",)
OTHER_CONTENT: Final = (" gave ", "L4")
_VARIANTS: Final = (
    Variant("no margin", no_margin, "slow-clocks", 20, TWO_WRITERS, 3),
    Variant("no guard", no_guard, "still-clocks", 20, TWO_WRITERS, 9),
    Variant("expiry by wall clock", wall_clock, "slow-clocks", 20, TWO_WRITERS, 2),
    Variant("promote before the lease has ended", promote_first, "two-of-each", 150, TWO_WRITERS, 70),
    Variant("grant without compare-and-set", no_compare, "two-of-each", 60, BEGUN_TWICE),
    Variant("fork by position", fork_by_position, "lonely-heads", 40, ("L3", "L4", "not whole"), 3),
    Variant("truncate without keeping", truncate, "lonely-heads", 60, ("L7",), 3),
    Variant("restart without a new epoch", no_new_epoch, "lost-flush", 30, OTHER_CONTENT),
    Variant("progress told before commit", told_too_early, "steady", 10, ("never was",)),
    Variant("checkpoint apart from data", own_checkpoint, "lost-flush", 300, ("not whole",), 222),
    Variant("retry with new ids", new_ids, "flapping", 20, ("in the log twice", "where it never was")),
    Variant("fence forgotten", fence_forgotten, "moves", 30, TWO_WRITERS, 2),
    Variant("deadline from now", deadline_from_now, "frozen-renewals", 60, TWO_WRITERS, 3),
    Variant("promises forgotten", promises_forgotten, "registry-outage", 150, TWO_WRITERS, 50),
    Variant("reign not on record", reign_not_on_record, "lost-flush", 100, OTHER_CONTENT, 23),
    Variant("a reign begun twice", stale_record, "old-backup", 600, OTHER_CONTENT, 76),
    Variant("read past the durable point", read_past_durable, "failover-storm", 60, ("had not flushed",), 36),
    Variant("an empty node takes over", empty_leads, "regions", 400, ("not whole",), 177),
)
VARIANTS: Final[Mapping[str, Variant]] = {v.name: v for v in _VARIANTS}

NOT_CAUGHT: Final = (
    Variant("lease taken without seen", take_unseen, "registry-outage", 400, TWO_WRITERS),
    Variant("apply without the previous entry", any_predecessor, "lonely-heads", 600, ("L4",)),
    Variant("a member of whom the head has not heard", join_unheard, "growing", 500, TWO_WRITERS),
)
"""What no scenario finds yet: nothing is claimed of these."""

__all__ = ["NOT_CAUGHT", "VARIANTS", "Event", "Variant", "find"]
