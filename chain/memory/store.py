"""The event store in memory: what the Postgres store promises, without a server, thread or random number.

Every verb is one step of the event loop, so it is a transaction by itself. A MemoryStore is as durable as its
object. With a clock of the caller's it is deterministic. It is stricter than Postgres in one thing: within a
batch, too, revisions have no holes and epochs don't fall.
"""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from math import inf
from typing import TYPE_CHECKING, Final
from uuid import UUID

from chain.encoding import ENCODING, decode, encode
from chain.errors import (
    Corrupt,
    Fenced,
    LeaseExpired,
    NotHead,
    NotPrepared,
    Promised,
    Restarted,
    StaleLink,
    WrongIdentity,
    WrongRevision,
)
from chain.event import (
    EMPTY,
    EPOCH_STREAM,
    Appended,
    Epoch,
    Event,
    Expected,
    NewEvent,
    Position,
    Revision,
    Tip,
    check_append,
)
from chain.history import History, read_history, reign_event
from chain.lease import CLOCK_TOLERANCE_S
from chain.memory.log import Conflict, EventLog, Repeated, decide
from chain.memory.verifying import Verifying
from chain.store import Batch, DeadEvent, Ground, Identity, NodeState, Page, Progress, Role, Seal, Store

PAGE_EVENTS: Final = 1000
IDLE_S: Final = 1.0

_DAWN: Final = datetime.min.replace(tzinfo=UTC)
_TOLERANCE: Final = timedelta(seconds=CLOCK_TOLERANCE_S)


class MemoryStore(Verifying):
    """One node's log in memory. `name` is what errors call it, `clock` what it dates events by."""

    encoding = ENCODING

    def __init__(self, name: str, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.name = name
        self._clock = clock
        self._log = EventLog()
        self._node = NodeState(
            None, Role.DETACHED, Epoch(0), Epoch(0), None, None, EMPTY, clock=_DAWN, restarted=False
        )
        """`clock` is the latest time that was given to an event; `tip` is the log's."""
        self._dead: dict[tuple[Epoch, Position, UUID], DeadEvent] = {}
        self._seals: dict[int, Seal] = {}
        self._progress: dict[str, Progress] = {}
        self._seen = _DAWN
        """The latest reading of the clock in this reign."""
        self._lease_until: datetime | None = None
        self._promised = _DAWN
        self._started = _DAWN
        self._grown = asyncio.Event()

    async def close(self) -> None:
        """Nothing to close: whoever has the object has the log."""

    # The log, for applications.

    async def get(self, stream: str, revision: Revision = Revision(0), limit: int = PAGE_EVENTS) -> Page:
        self._check_prepared()
        events = tuple(self._log.stream(stream)[max(0, revision) :][:limit])
        return Page(events, events[-1].revision + 1 if events else revision, at_tip=len(events) < limit)

    async def add(self, stream: str, expected: Expected, events: Sequence[NewEvent]) -> Appended:
        check_append(stream, events)
        return self._add(stream, expected, events)

    async def append_system(self, stream: str, expected: Expected, events: Sequence[NewEvent]) -> Appended:
        check_append(stream, events, system=True)
        return self._add(stream, expected, events)

    async def log(self, after: Position = Position(0), limit: int = PAGE_EVENTS) -> Page:
        self._check_prepared()
        events = tuple(self._log.events[max(0, after) :][:limit])
        return Page(events, events[-1].position if events else after, at_tip=len(events) < limit)

    async def follow(self, after: Position = Position(0)) -> AsyncIterator[Page]:
        while True:
            page = await self.log(after)
            if page.events:
                yield page
                after = Position(page.next)
            else:
                await self.wait(after, IDLE_S)

    async def tip(self) -> Tip:
        self._check_prepared()
        return self._log.tip

    async def at(self, position: Position) -> Event | None:
        self._check_prepared()
        return self._log.events[position - 1] if 0 < position <= len(self._log.events) else None

    # The log, for links.

    async def history(self) -> History:
        self._check_prepared()
        return read_history(self._log.stream(EPOCH_STREAM), self._log.tip)

    async def read(self, after: Position, limit: int, max_bytes: int) -> Batch:
        self._check_prepared()
        if after > self._log.tip.position:
            raise StaleLink(f"the log of {self.name} does not come up to position {after}")
        after_epoch = self._log.events[after - 1].epoch if after else Epoch(0)
        header, trailer = encode(())
        rows: list[bytes] = []
        size = len(header) + len(trailer)
        for event in self._log.events[after : after + limit]:
            _, row, _ = encode((event,))
            size += len(row)
            if rows and size > max_bytes:
                break
            rows.append(row)
        at_tip = after + len(rows) >= self._log.tip.position
        return Batch(after, after_epoch, len(rows), (header, *rows, trailer), at_tip)

    async def apply(
        self, batch: Batch, epoch: Epoch, upstream: str, *, behind: Future[Tip] | None = None
    ) -> Tip:
        if behind is not None:
            await asyncio.wait({behind})
        self._check_follower(epoch, upstream, Tip(batch.after, batch.after_epoch))
        events = decode(batch.chunks)
        if len(events) != batch.count:
            raise Corrupt(f"{self.name}: a batch of {batch.count} events held {len(events)}")
        if events and events[-1].epoch > self._node.epoch:
            raise StaleLink(
                f"the batch reaches epoch {events[-1].epoch}; {self.name} knows epoch {self._node.epoch}",
                hint="the link must compare the two logs again before it goes on",
            )
        self._log.extend(events)
        self._wake()
        return self._log.tip

    async def begin_load(self, epoch: Epoch, upstream: str) -> None:
        self._check_follower(epoch, upstream, EMPTY)
        self._node = replace(self._node, loading=True)

    async def end_load(self) -> None:
        self._check_prepared()
        self._node = replace(self._node, loading=False)

    async def give_up(self, fork: Position, tip: Tip, epoch: Epoch, upstream: str) -> int:
        self._check_follower(epoch, upstream, tip)
        if not 0 <= fork <= tip.position:
            raise StaleLink(f"node {self.name} ends at position {tip.position} and has no fork at {fork}")
        gone = self._log.truncate(fork)
        for event in gone:
            key = (event.epoch, event.position, event.id)
            self._dead.setdefault(key, DeadEvent(event, self._named().node, fork))
        self._forget_seals(fork)
        self._wake()
        return len(gone)

    async def dead_branch(self, after: Tip = EMPTY, limit: int = 100) -> tuple[DeadEvent, ...]:
        self._check_prepared()
        behind = (after.epoch, after.position)
        return tuple(self._dead[key] for key in sorted(self._dead) if key[:2] > behind)[:limit]

    async def holds(self, ids: Sequence[UUID]) -> frozenset[UUID]:
        self._check_prepared()
        return frozenset(ident for ident in ids if self._log.find(ident))

    async def release(self, dead: Sequence[DeadEvent]) -> None:
        self._check_prepared()
        for gone in dead:
            self._dead.pop((gone.event.epoch, gone.event.position, gone.event.id), None)

    async def wait(self, after: Position, timeout_s: float) -> None:
        if self._log.tip.position > after:
            return
        try:
            async with asyncio.timeout(timeout_s):
                await self._grown.wait()
        except TimeoutError:
            return

    async def tell(self, progress: Mapping[str, Tip]) -> None:
        self._check_prepared()
        now = self._clock()
        self._progress.update({node: Progress(tip, now) for node, tip in progress.items()})
        self._wake()

    async def progress(self) -> Mapping[str, Progress]:
        self._check_prepared()
        return dict(self._progress)

    # The node, for those who govern it.

    async def prepare(self, identity: Identity) -> None:
        if self._node.identity not in (None, identity):
            raise WrongIdentity(f"this store is node {self._node.identity}, not {identity}")
        self._node = replace(self._node, identity=identity)

    async def state(self) -> NodeState:
        self._check_prepared()
        node = self._node
        head, now = node.role is Role.HEAD, self._clock()
        return NodeState(
            identity=node.identity,
            role=node.role,
            epoch=node.epoch,
            reign=node.reign,
            promotion=node.promotion,
            upstream=node.upstream,
            tip=self._log.tip,
            clock=now,
            restarted=head and node.restarted,
            clock_is_back=head and self._clock_is_back(self._seen),
            lease_left_s=self._lease_left_s(),
            promised=now < self._promised,
            loading=node.loading,
        )

    async def fence(self, epoch: Epoch) -> Tip:
        self._check_prepared()
        self._node = replace(self._node, epoch=max(self._node.epoch, epoch))
        return self._log.tip

    async def promote(
        self,
        epoch: Epoch,
        promotion: UUID,
        lease_until: datetime | None = None,
        *,
        ground: Ground | None = None,
    ) -> Tip:
        self._check_prepared()
        node = self._node
        if node.role is Role.HEAD and (node.epoch, node.reign, node.promotion) == (epoch, epoch, promotion):
            return self._log.tip
        if epoch < node.epoch or epoch <= max(node.reign, self._log.tip.epoch):
            raise StaleLink(
                f"node {self.name} knows epoch {node.epoch} and can't be promoted in epoch {epoch}"
            )
        if ground is not None and ground.tip != self._log.tip:
            raise StaleLink(
                f"node {self.name} is at {self._log.tip} and was granted epoch {epoch} at {ground.tip}"
            )
        if lease_until is not None and lease_until < self._started:
            raise StaleLink(f"the server of node {self.name} restarted since that reading of its clock")
        if node.loading:
            raise StaleLink(f"node {self.name} is being loaded and can't be promoted yet")
        if self._clock() < self._promised:
            raise Promised(f"node {self.name} has promised its head not to be promoted now")
        last = Revision(len(self._log.stream(EPOCH_STREAM)) - 1)
        dated = max(self._clock(), self._node.clock) if ground is None else ground.clock
        self._write(EPOCH_STREAM, last, epoch, [reign_event(epoch, promotion, self.name)], dated)
        self._node = replace(
            self._node,
            role=Role.HEAD,
            epoch=epoch,
            reign=epoch,
            promotion=promotion,
            upstream=None,
            restarted=False,
        )
        self._seen, self._lease_until = self._clock(), lease_until
        self._progress.clear()
        return self._log.tip

    async def renew(self, epoch: Epoch, read_at: datetime, duration: timedelta | None) -> None:
        self._check_head()
        if self._node.epoch != epoch or self._clock_is_back(read_at):
            raise LeaseExpired(
                f"node {self.name} is in epoch {self._node.epoch}; the renewal is for epoch {epoch}"
            )
        self._seen = max(self._seen, self._clock())
        until = None if duration is None else read_at + duration
        running = self._lease_until
        self._lease_until = max(until, running) if until is not None and running is not None else until

    async def lapse(self, epoch: Epoch, until: datetime) -> bool:
        self._check_prepared()
        ends = self._lease_until
        if self._node.role is not Role.HEAD or self._node.reign != epoch or ends is None or ends > until:
            return False
        left = self._lease_left_s() > 0
        self._lease_until = _DAWN
        return left

    async def promise(self, epoch: Epoch, duration: timedelta) -> None:
        self._check_prepared()
        if self._node.epoch > epoch or self._node.upstream is None:
            raise StaleLink(
                f"node {self.name} is {self._node.role.value} in epoch {self._node.epoch} and promises"
                f" nothing to a head of epoch {epoch}"
            )
        self._promised = max(self._promised, self._clock() + duration)

    async def follow_upstream(self, epoch: Epoch, upstream: str, role: Role) -> None:
        self._check_not_older(epoch, f"follow {upstream}")
        self._node = replace(self._node, role=role, epoch=epoch, upstream=upstream)
        self._progress = {node: told for node, told in self._progress.items() if told.tip.epoch >= epoch}

    async def detach(self, epoch: Epoch) -> None:
        self._check_not_older(epoch, "be detached")
        self._node = replace(self._node, role=Role.DETACHED, epoch=epoch, upstream=None)
        self._progress.clear()

    # For simulations.

    def writable_now(self) -> bool:
        """Whether an append would be taken at this instant."""
        try:
            self._check_head()
        except (NotHead, NotPrepared):
            return False
        return self._lease_left_s() > 0

    def restart(self) -> None:
        """As if the server had restarted: a head takes no writes until its next promotion."""
        self._node = replace(self._node, restarted=True)
        self._started = self._clock()

    # Beside the verbs.

    def _add(self, stream: str, expected: Expected, events: Sequence[NewEvent]) -> Appended:
        self._check_head()
        if self._lease_left_s() <= 0:
            raise LeaseExpired(f"the lease of node {self.name} has run out")
        decision = decide(self._log, stream, expected, events)
        if isinstance(decision, Conflict):
            raise WrongRevision(
                f"stream {stream!r} is at revision {decision.current}, not at {expected} as expected,"
                " or an event id is taken",
                current=decision.current,
            )
        if isinstance(decision, Repeated):
            first, last = decision.first, decision.last
            return Appended(first.position, last.position, last.revision, first.epoch, repeated=True)
        now = max(self._clock(), self._node.clock)
        written = self._write(stream, decision.last, self._node.epoch, events, now)
        first, last = written[0], written[-1]
        return Appended(first.position, last.position, last.revision, first.epoch, repeated=False)

    def _write(
        self, stream: str, last: Revision, epoch: Epoch, events: Sequence[NewEvent], dated: datetime
    ) -> Sequence[Event]:
        """Puts new events behind revision `last`."""
        tip = self._log.tip.position
        written = [
            Event(
                Position(tip + index),
                epoch,
                stream,
                Revision(last + index),
                event.id,
                event.type,
                event.data,
                event.metadata,
                dated,
            )
            for index, event in enumerate(events, 1)
        ]
        self._log.extend(written)
        self._node = replace(self._node, clock=max(dated, self._node.clock))
        self._seen = max(self._seen, self._clock())
        self._wake()
        return written

    def _check_head(self) -> None:
        node = self._node
        self._check_prepared()
        if node.role is not Role.HEAD:
            raise NotHead(f"node {self.name} is {node.role.value} and takes no writes", head=node.upstream)
        if node.reign < node.epoch:
            raise Fenced(
                f"node {self.name} was head in epoch {node.reign} and is fenced by epoch {node.epoch}"
            )
        if node.restarted:
            raise Restarted(f"node {self.name} restarted since it became head in epoch {node.reign}")
        if self._clock_is_back(self._seen):
            raise LeaseExpired(f"the clock of node {self.name} runs behind what it was")

    def _lease_left_s(self) -> float:
        if self._node.role is not Role.HEAD:
            return -inf
        return inf if self._lease_until is None else (self._lease_until - self._clock()).total_seconds()

    def _clock_is_back(self, seen: datetime) -> bool:
        return self._clock() < seen - _TOLERANCE if seen > _DAWN else False

    def _check_follower(self, epoch: Epoch, upstream: str, tip: Tip) -> None:
        self._check_prepared()
        node, own = self._node, self._log.tip
        if (node.epoch, node.upstream, own) != (epoch, upstream, tip):
            raise StaleLink(
                f"node {self.name} is {node.role.value} of {node.upstream or 'nobody'} in epoch {node.epoch}"
                f" at {own}; the link is from {upstream} in epoch {epoch} at {tip}"
            )

    def _check_not_older(self, epoch: Epoch, what: str) -> None:
        self._check_prepared()
        node = self._node
        if epoch < node.epoch or (node.role is Role.HEAD and epoch == node.reign):
            raise StaleLink(
                f"node {self.name} is {node.role.value} in epoch {node.epoch} and can't {what}"
                f" in epoch {epoch}"
            )

    def _named(self) -> Identity:
        if self._node.identity is None:
            raise NotPrepared(f"{self.name} is not prepared", hint="prepare it first")
        return self._node.identity

    def _check_prepared(self) -> None:
        self._named()

    def _wake(self) -> None:
        self._grown.set()
        self._grown = asyncio.Event()


if TYPE_CHECKING:

    def _is_a_store(store: MemoryStore) -> Store:
        return store
