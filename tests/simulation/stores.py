"""The stores of a simulation: the shipped store in memory, watched, and able to lose what it held.

Nothing that a store decides is changed here. `Watch` is told of what it did, when it has done it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from chain.errors import ChainError
from chain.event import Appended, Epoch, Event, Expected, NewEvent, Position, Revision, Tip
from chain.memory import MemoryStore
from chain.memory.log import EventLog
from chain.store import Batch, DeadEvent, Role


class Watch:
    """Is told of everything that changes a store. What it raises would be taken for the store's word."""

    def wrote(self, node: str, before: Tip, events: Sequence[Event]) -> None: ...
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

    def __init__(self, name: str, *, clock: Callable[[], datetime], watch: Watch | None = None) -> None:
        super().__init__(name, clock=clock)
        self.watch = watch or Watch()
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
    def promised(self) -> bool:
        return self._clock() < self._promised

    def has(self, ident: UUID) -> bool:
        return self._log.find(ident) is not None

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
        return Snapshot(tuple(self._log.events), rest)

    def go_back(self, to: Snapshot) -> list[Event]:
        """Its server restarts with what was on the disk then. Returns the events that it has no more."""
        kept = {e.id for e in to.events} | {d.event.id for d in to.rest[1].values()}
        lost = [e for e in (*self._log.events, *(d.event for d in self._dead.values())) if e.id not in kept]
        log = EventLog()
        log.extend(to.events)
        self._log = log
        (self._node, self._dead, self._progress, self._seen, self._lease_until, self._promised) = to.rest
        self._dead, self._progress = dict(self._dead), dict(self._progress)
        self.restart()
        return lost

    @property
    def seen(self) -> datetime | None:
        """The latest reading of its clock as head: what a clock that is set back is found out by."""
        return self._seen if self._seen.year > 1 else None

    # What it does, told.

    async def apply(self, batch: Batch, epoch: Epoch, upstream: str) -> Tip:
        before = self._log.tip
        try:
            tip = await super().apply(batch, epoch, upstream)
        except ChainError as error:
            self.watch.refused(self.name, "apply", error)
            raise
        if tip != before:
            self.watch.applied(self.name, before, self._log.events[before.position :], upstream)
        return tip

    async def give_up(self, fork: Position, tip: Tip, epoch: Epoch, upstream: str) -> int:
        gone = self._log.events[fork:]
        count = await super().give_up(fork, tip, epoch, upstream)
        self.watch.gave_up(self.name, gone)
        return count

    async def release(self, dead: Sequence[DeadEvent]) -> None:
        await super().release(dead)
        self.watch.released(self.name, dead)

    async def promote(self, epoch: Epoch, promotion: UUID, lease_until: datetime | None = None) -> Tip:
        before = self._node
        try:
            tip = await super().promote(epoch, promotion, lease_until)
        except ChainError as error:
            self.watch.refused(self.name, "promote", error)
            raise
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
        self.watch.fenced(self.name, epoch)
        return tip

    async def promise(self, epoch: Epoch, duration: timedelta) -> None:
        await super().promise(epoch, duration)
        self.watch.changed(self.name, "promised")

    async def follow_upstream(self, epoch: Epoch, upstream: str, role: Role) -> None:
        await super().follow_upstream(epoch, upstream, role)
        self.watch.changed(self.name, f"follows {upstream} in epoch {epoch}")

    async def detach(self, epoch: Epoch) -> None:
        await super().detach(epoch)
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
        self, stream: str, last: Revision, epoch: Epoch, events: Sequence[NewEvent]
    ) -> Sequence[Event]:
        before = self._log.tip
        written = super()._write(stream, last, epoch, events)
        self.watch.wrote(self.name, before, written)
        return written

    def _wake(self) -> None:
        # Nobody here waits on the shipped event; whoever is remote is told over the network.
        waiting, self.waiting = self.waiting, []
        for tell in waiting:
            tell()
