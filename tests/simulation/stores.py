"""The stores of a simulation: the shipped store in memory, watched, and able to lose what it held.

Nothing that a store decides is changed here. `Watch` is told of what it did, when it has done it.

Durability is as in the Postgres store. An append has its place at once, and becomes durable a little later;
only then is it acknowledged. A batch that others follow is not flushed. Every other transaction, and every
reader, flushes what came before it, since the write-ahead log is sequential. A server that crashes may lose
whatever was not flushed.
"""

from __future__ import annotations

import asyncio
import random
from asyncio import Future
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from chain.errors import ChainError
from chain.event import Appended, Epoch, Event, Expected, NewEvent, Position, Revision, Tip
from chain.history import History
from chain.memory import MemoryStore
from chain.memory.log import EventLog
from chain.memory.store import PAGE_EVENTS
from chain.store import Batch, DeadEvent, Ground, Page, Role


class Watch:
    """Is told of everything that changes a store. What it raises would be taken for the store's word."""

    def wrote(self, node: str, before: Tip, events: Sequence[Event]) -> None: ...
    def flushed(self, node: str, events: Sequence[Event]) -> None: ...
    def lost(self, node: str, events: Sequence[Event]) -> None: ...
    def applied(self, node: str, before: Tip, events: Sequence[Event], upstream: str) -> None: ...
    def refused(self, node: str, verb: str, error: ChainError) -> None: ...
    def gave_up(self, node: str, gone: Sequence[Event]) -> None: ...
    def promoted(self, node: str, epoch: Epoch, promotion: UUID) -> None: ...
    def fenced(self, node: str, epoch: Epoch) -> None: ...
    def changed(self, node: str, what: str) -> None: ...
    def told(self, node: str, progress: Mapping[str, Tip]) -> None: ...
    def released(self, node: str, dead: Sequence[DeadEvent]) -> None: ...


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What is on a store's disk at a moment."""

    events: tuple[Event, ...]
    rest: tuple[Any, ...]


class SimStore(MemoryStore):
    """A node's store. `watch` is told what it does."""

    def __init__(
        self,
        name: str,
        *,
        clock: Callable[[], datetime],
        watch: Watch | None = None,
        rng: random.Random | None = None,
    ) -> None:
        super().__init__(name, clock=clock)
        self.watch = watch or Watch()
        self.rng = rng or random.Random(name)
        self.durable = 0
        """So many events of its log are on the disk for certain."""
        self.stuns = False
        """Its daemon freezes when it is about to tell it of the next renewal."""
        self.begun_to_load = asyncio.Event()
        self.starts = 0
        """How often its server was started again."""
        self.waiting: list[Callable[[], None]] = []
        """Who wants to be told when the log grows."""

    @property
    def length(self) -> int:
        return len(self._log.events)

    @property
    def last(self) -> Tip:
        return self._log.tip

    @property
    def events(self) -> Sequence[Event]:
        return self._log.events

    @property
    def dead(self) -> Mapping[tuple[Epoch, Position, UUID], DeadEvent]:
        return self._dead

    @property
    def knows(self) -> Epoch:
        return self._node.epoch

    @property
    def leads(self) -> bool:
        return self._node.role is Role.HEAD

    @property
    def promised(self) -> bool:
        return self._clock() < self._promised

    def has(self, ident: UUID) -> bool:
        return self._log.find(ident) is not None

    # The disk.

    def flush(self) -> None:
        """Whatever was written is on the disk."""
        if self.durable < len(self._log.events):
            events, self.durable = self._log.events[self.durable :], len(self._log.events)
            self.watch.flushed(self.name, events)

    def settle(self) -> None:
        """What a reader does before it hands anything out."""
        self.flush()

    def restart(self) -> None:
        """Its server crashed, and with it some of what was not flushed, or all."""
        kept = self.rng.randint(self.durable, len(self._log.events))
        if kept < len(self._log.events):
            gone = self._log.truncate(Position(kept))
            self.watch.lost(self.name, gone)
        self.flush()
        self.starts += 1
        super().restart()

    # Losing what it held.

    def snapshot(self) -> Snapshot:
        rest = (
            self._node,
            dict(self._dead),
            dict(self._progress),
            self._seen,
            self._lease_until,
            self._promised,
        )
        return Snapshot(tuple(self._log.events[: self.durable]), rest)

    def blank(self) -> Snapshot:
        """What is on a new disk."""
        return SimStore(self.name, clock=self._clock).snapshot()

    def go_back(self, to: Snapshot) -> list[Event]:
        """Its server restarts with what was on the disk then. Returns the events that it has no more."""
        kept = {e.id for e in to.events} | {d.event.id for d in to.rest[1].values()}
        lost = [e for e in (*self._log.events, *(d.event for d in self._dead.values())) if e.id not in kept]
        log = EventLog()
        log.extend(to.events)
        self._log, self.durable = log, len(to.events)
        (self._node, self._dead, self._progress, self._seen, self._lease_until, self._promised) = to.rest
        self._dead, self._progress = dict(self._dead), dict(self._progress)
        self.restart()
        return lost

    @property
    def seen(self) -> datetime | None:
        """The latest reading of its clock as head: what a clock that is set back is found out by."""
        return self._seen if self._seen.year > 1 else None

    # What it hands out.

    async def get(self, stream: str, revision: Revision = Revision(0), limit: int = PAGE_EVENTS) -> Page:
        self.settle()
        return await super().get(stream, revision, limit)

    async def log(self, after: Position = Position(0), limit: int = PAGE_EVENTS) -> Page:
        self.settle()
        return await super().log(after, limit)

    async def tip(self) -> Tip:
        self.settle()
        return await super().tip()

    async def at(self, position: Position) -> Event | None:
        self.settle()
        return await super().at(position)

    async def history(self) -> History:
        self.settle()
        return await super().history()

    async def read(self, after: Position, limit: int, max_bytes: int) -> Batch:
        self.settle()
        return await super().read(after, limit, max_bytes)

    # What it does, told.

    async def add(self, stream: str, expected: Expected, events: Sequence[NewEvent]) -> Appended:
        appended = await self.commit(stream, expected, events)
        self.flush()
        return appended

    async def append_system(self, stream: str, expected: Expected, events: Sequence[NewEvent]) -> Appended:
        appended = await self.commit(stream, expected, events, system=True)
        self.flush()
        return appended

    async def commit(
        self, stream: str, expected: Expected, events: Sequence[NewEvent], *, system: bool = False
    ) -> Appended:
        """An append that is not flushed yet: nobody is to be told of it."""
        append = super().append_system if system else super().add
        return await append(stream, expected, events)

    async def apply(
        self, batch: Batch, epoch: Epoch, upstream: str, *, behind: Future[Tip] | None = None
    ) -> Tip:
        before = self._log.tip
        try:
            tip = await super().apply(batch, epoch, upstream, behind=behind)
        except ChainError as error:
            self.watch.refused(self.name, "apply", error)
            raise
        if tip != before:
            self.watch.applied(self.name, before, self._log.events[before.position :], upstream)
        if batch.at_tip:
            self.flush()
        else:
            self.watch.changed(self.name, "left a batch unflushed")
        return tip

    async def begin_load(self, epoch: Epoch, upstream: str) -> None:
        await super().begin_load(epoch, upstream)
        self.begun_to_load.set()
        self.watch.changed(self.name, "loading")

    async def end_load(self) -> None:
        if self._node.loading:
            await super().end_load()
            self.watch.changed(self.name, "loaded")

    async def give_up(self, fork: Position, tip: Tip, epoch: Epoch, upstream: str) -> int:
        gone = self._log.events[fork:]
        count = await super().give_up(fork, tip, epoch, upstream)
        self.durable = len(self._log.events)
        self.watch.gave_up(self.name, gone)
        return count

    async def release(self, dead: Sequence[DeadEvent]) -> None:
        await super().release(dead)
        self.flush()
        self.watch.released(self.name, dead)

    async def promote(
        self,
        epoch: Epoch,
        promotion: UUID,
        lease_until: datetime | None = None,
        *,
        ground: Ground | None = None,
    ) -> Tip:
        before = self._node
        try:
            tip = await super().promote(epoch, promotion, lease_until, ground=ground)
        except ChainError as error:
            self.watch.refused(self.name, "promote", error)
            raise
        self.flush()
        if self._node is not before:
            self.watch.promoted(self.name, epoch, promotion)
        return tip

    async def renew(self, epoch: Epoch, read_at: datetime, duration: timedelta | None) -> None:
        try:
            await super().renew(epoch, read_at, duration)
        except ChainError as error:
            self.watch.refused(self.name, "renew", error)
            raise
        self.watch.changed(self.name, "renewed")

    async def fence(self, epoch: Epoch) -> Tip:
        tip = await super().fence(epoch)
        self.flush()
        if self._node.loading:
            self.watch.changed(self.name, "fenced while loading")
        self.watch.fenced(self.name, epoch)
        return tip

    async def promise(self, epoch: Epoch, duration: timedelta) -> None:
        await super().promise(epoch, duration)
        self.flush()
        self.watch.changed(self.name, "promised")

    async def follow_upstream(self, epoch: Epoch, upstream: str, role: Role) -> None:
        await super().follow_upstream(epoch, upstream, role)
        self.flush()
        self.watch.changed(self.name, f"follows {upstream} in epoch {epoch}")

    async def detach(self, epoch: Epoch) -> None:
        await super().detach(epoch)
        self.flush()
        self.watch.changed(self.name, f"is detached in epoch {epoch}")

    async def tell(self, progress: Mapping[str, Tip]) -> None:
        await super().tell(progress)
        self.watch.told(self.name, progress)

    def _add(self, stream: str, expected: Expected, events: Sequence[NewEvent]) -> Appended:
        try:
            return super()._add(stream, expected, events)
        except ChainError as error:
            self.watch.refused(self.name, "append", error)
            raise

    def _write(
        self, stream: str, last: Revision, epoch: Epoch, events: Sequence[NewEvent], dated: datetime
    ) -> Sequence[Event]:
        before = self._log.tip
        written = super()._write(stream, last, epoch, events, dated)
        self.watch.wrote(self.name, before, written)
        return written

    def _wake(self) -> None:
        # Nobody here waits on the shipped event; whoever is remote is told over the network.
        waiting, self.waiting = self.waiting, []
        for tell in waiting:
            tell()
