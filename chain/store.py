"""The store: one node's log, and the verbs by which the chain governs it.

`Log` is what applications use, in the words of the article that geochain follows: `get` by stream, `add`,
and the `log` by position. `Replica` is what a link uses. `Governed` is what the control plane uses. A store
keeps the invariants of the log (ARCHITECTURE.md, L1 to L7) by itself, in its own transactions, whatever
daemons, links and operators do to it at the same time.
"""

from __future__ import annotations

from asyncio import Future
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from math import inf
from typing import Final, Protocol
from uuid import UUID

from chain.event import Appended, Epoch, Event, Expected, NewEvent, Position, Revision, Tip
from chain.history import History


class Role(Enum):
    """What a node is in its chain. Each role is a guarantee."""

    HEAD = "head"
    """Takes writes, as long as its reign is the newest epoch that it knows."""
    MIDDLE = "middle"
    """Follows its upstream and is followed; refuses writes."""
    TAIL = "tail"
    """Follows its upstream; the last of the chain: what it holds, every node holds. Refuses writes."""
    DETACHED = "detached"
    """Outside the chain; follows nobody; refuses writes and batches."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Which node of which chain a store is. Given once; a store never changes it."""

    chain: str
    node: str

    def __str__(self) -> str:
        return f"{self.chain}/{self.node}"


@dataclass(frozen=True, slots=True)
class Ground:
    """What an epoch is granted on: the final tip of the node's log, and its clock when that was read.

    The promotion stands right behind `tip`, dated `clock`, however often it is done; at another tip it is
    refused. So a store that goes back and is promoted again writes the very same event, or none.
    """

    tip: Tip
    clock: datetime


@dataclass(frozen=True, slots=True)
class NodeState:
    """A node's own word about itself, read in one statement."""

    identity: Identity | None
    role: Role
    epoch: Epoch
    """The newest epoch that the node knows: it refuses everything older. A fence raises it."""
    reign: Epoch
    """The epoch of the node's own latest promotion, 0 if it never was head."""
    promotion: UUID | None
    upstream: str | None
    tip: Tip
    clock: datetime
    """The store's clock at the reading."""
    restarted: bool
    """The server restarted, crashed or was restored since the promotion: no writes until the next."""
    clock_is_back: bool = False
    """The clock stepped back within the reign: no writes until the next promotion."""
    lease_left_s: float = inf
    """As head: seconds for which it takes writes, negative if the lease has run out, infinite without one."""
    promised: bool = False
    """As follower: it has promised its head not to be promoted now."""
    loading: bool = False
    """As follower: it is being filled, without what lookups need. It can't be promoted yet."""

    @property
    def reigning(self) -> bool:
        """It is head of its own newest epoch; for taking writes it needs its lease besides."""
        sound = not (self.restarted or self.clock_is_back)
        return self.role is Role.HEAD and self.reign == self.epoch and sound

    @property
    def ground(self) -> Ground:
        """On what an epoch may be granted to it, if it takes nothing more until then."""
        return Ground(self.tip, self.clock)

    @property
    def writable(self) -> bool:
        return self.reigning and self.lease_left_s > 0

    @property
    def fenced(self) -> bool:
        return self.role is Role.HEAD and self.reign < self.epoch


@dataclass(frozen=True, slots=True)
class Page:
    """Events in order, where to read on, and whether this reached the end as it was at the reading."""

    events: tuple[Event, ...]
    next: int
    """For `log` the position to read after; for `get` the revision to read from."""
    at_tip: bool


@dataclass(frozen=True, slots=True)
class Batch:
    """A run of the log on its way from a source to its target: `count` events from `after` + 1 on."""

    after: Position
    after_epoch: Epoch
    """The epoch of the source's event at `after`, 0 before the first: the two logs join there, or not."""
    count: int
    chunks: tuple[bytes, ...]
    """The events in `chain.encoding`'s rows."""
    at_tip: bool

    @property
    def last(self) -> Position:
        """Where to read on. Positions are dense, so it follows from the count."""
        return Position(self.after + self.count)

    @property
    def size_bytes(self) -> int:
        return sum(map(len, self.chunks))


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a node has the log, as told to its upstream. Never ahead of what the node has durable."""

    tip: Tip
    told_at: datetime
    """By the clock of the store that keeps the record."""


@dataclass(frozen=True, slots=True)
class Digest:
    """The content of the positions `first` to `last` of a log, in 64 bytes.

    Equal digests over the same range mean equal events, in every column, at every position.
    """

    first: Position
    last: Position
    count: int
    value: bytes


SEGMENT: Final = 16_384
"""Positions in a segment: segment n is (n - 1) * SEGMENT + 1 to n * SEGMENT."""


@dataclass(frozen=True, slots=True)
class Seal:
    """What a node has noted of a segment: the digest up to `last`, which it agreed on with a neighbour.

    It proves what was verified, and when; of the rows as they are now it says nothing: they are read again.
    """

    number: int
    last: Position
    value: bytes
    checked_at: datetime
    """When the rows last gave that digest, by the node's clock."""


@dataclass(frozen=True, slots=True)
class Checked:
    """A segment, read anew."""

    digest: Digest
    intact: bool
    """False if the rows no longer give what was agreed on."""


@dataclass(frozen=True, slots=True)
class Knowledge:
    """How far a node's log is verified without a hole."""

    position: Position
    oldest_check_s: float | None
    """How long ago the part was read that was read longest ago; None if there is none."""


@dataclass(frozen=True, slots=True)
class Glance:
    """One look for who measures how late a node is."""

    tip: Tip
    clock: datetime
    next_recorded_at: datetime | None
    """Of the first event behind the position that was asked about, if the node has it."""


class Log(Protocol):
    """What applications use."""

    async def get(self, stream: str, revision: Revision = ..., limit: int = ...) -> Page:
        """Events of `stream` from `revision` on, at most `limit`; none if there is no such stream."""

    async def add(self, stream: str, expected: Expected, events: Sequence[NewEvent]) -> Appended:
        """Appends all of `events` to `stream`, or nothing. Durable when it returns.

        The same event ids again give the first result. Raises BadEvent, WrongRevision, NotHead (Fenced,
        LeaseExpired, Restarted), Unavailable, OutcomeUnknown.
        """

    async def log(self, after: Position = ..., limit: int = ...) -> Page:
        """Events behind position `after`, at most `limit`."""

    def follow(self, after: Position = ...) -> AsyncIterator[Page]:
        """Events behind `after`, and then, for ever, what comes. A page is never empty."""

    async def tip(self) -> Tip: ...

    async def at(self, position: Position) -> Event | None:
        """The event at a position, if the log is that long."""


class Replica(Protocol):
    """What a link uses: `read` on its source, the rest on its target."""

    @property
    def encoding(self) -> str:
        """The name of the batch encoding. A link needs the same on both sides."""

    async def history(self) -> History: ...

    async def read(self, after: Position, limit: int, max_bytes: int) -> Batch:
        """The next batch behind `after`: at most `limit` events, and fewer if `max_bytes` are exceeded.

        At least one event if there is one. Never more than is durable. Raises StaleLink if the log does
        not come up to `after`.
        """

    async def apply(
        self, batch: Batch, epoch: Epoch, upstream: str, *, behind: Future[Tip] | None = None
    ) -> Tip:
        """Puts the batch behind the tip, batch and tip in one transaction. Returns the new tip.

        `behind` is the applying of the batch before, if that is still under way: its end is waited for, and
        only what can be done beside it is begun.

        A batch that reached the tip (`at_tip`) is durable then; one that others may follow at the latest when
        anyone reads it, or `tip`. A crash may take it back until then.

        Raises StaleLink unless the node's epoch is `epoch`, its upstream `upstream`, and its tip the place
        where the batch begins, by position and by epoch (Raft's check of the previous entry, so that a
        source which has meanwhile been cut back and refilled is found out); Corrupt if the batch is not
        what it says.
        """

    async def begin_load(self, epoch: Epoch, upstream: str) -> None:
        """Makes an empty follower ready for very many events; batches are applied as ever.

        What only lookups need is left out until `end_load`, and the node can't be promoted. Raises StaleLink
        unless epoch and upstream are as told and the log is empty.
        """

    async def end_load(self) -> None:
        """Makes what `begin_load` left out; may take minutes. Raises Corrupt if an event is there twice."""

    async def give_up(self, fork: Position, tip: Tip, epoch: Epoch, upstream: str) -> int:
        """Gives up the dead branch behind `fork`: moves it out of the log and keeps it, in one transaction.

        Returns how many events that were. Raises StaleLink unless epoch, upstream and tip are as told.
        """

    async def dead_branch(self, after: Tip = ..., limit: int = ...) -> tuple[DeadEvent, ...]:
        """Events that `give_up` keeps, in the order of (epoch, position), behind `after`.

        They are kept until `release`. An empty answer means that there are no more.
        """

    async def holds(self, ids: Sequence[UUID]) -> frozenset[UUID]:
        """Which of these event ids the log holds."""

    async def release(self, dead: Sequence[DeadEvent]) -> None:
        """Forgets kept events, once this node's own log holds their ledger entries."""

    async def wait(self, after: Position, timeout_s: float) -> None:
        """Returns when the log may have grown past `after`, or when the time is over. Only a hint."""

    async def tell(self, progress: Mapping[str, Tip]) -> None:
        """Records on this node how far its followers are."""

    async def progress(self) -> Mapping[str, Progress]:
        """How far the nodes downstream are, as they told."""


class Governed(Protocol):
    """What the control plane uses. Each verb is idempotent."""

    async def prepare(self, identity: Identity) -> None:
        """Brings an empty store to the current schema and names it. Raises WrongIdentity, BadConfig."""

    async def state(self) -> NodeState: ...

    async def fence(self, epoch: Epoch) -> Tip:
        """Promises to refuse everything older than `epoch`. Returns the tip, final for older epochs."""

    async def promote(
        self,
        epoch: Epoch,
        promotion: UUID,
        lease_until: datetime | None = None,
        *,
        ground: Ground | None = None,
    ) -> Tip:
        """Makes the node head for `epoch` and writes that into its log, behind the tip of its `ground`.

        It takes writes before `lease_until` by its own clock; None is for ever, for heads without a lease.
        Raises StaleLink if the node knows a newer epoch, or another promotion of this one, or if its log ends
        elsewhere than it was granted the epoch, or if its server started after `lease_until`: the word is
        late, and what it is for may have been lost. Promised. Only a node that no registry governs, as the
        registry's own is, has no ground.
        """

    async def renew(self, epoch: Epoch, read_at: datetime, duration: timedelta | None) -> None:
        """Lets the head of `epoch` take writes until `duration` after `read_at`; None is for ever.

        `read_at` is the clock of an earlier `state`. Never makes a running lease shorter. Raises NotHead.
        """

    async def lapse(self, epoch: Epoch, until: datetime) -> bool:
        """Ends the time to write of the head of `epoch`, unless it was made longer than `until` since.

        Answers whether any was left: then the server's clock is behind where it should be. A renewal gives
        time again. Does nothing to a node that is no head of `epoch`.
        """

    async def promise(self, epoch: Epoch, duration: timedelta) -> None:
        """Promises a head of `epoch` not to be promoted for `duration`. Raises StaleLink."""

    async def follow_upstream(self, epoch: Epoch, upstream: str, role: Role) -> None:
        """Makes the node a follower of `upstream`. Raises StaleLink if it knows a newer epoch."""

    async def detach(self, epoch: Epoch) -> None:
        """Puts the node outside the chain. Raises StaleLink if it knows a newer epoch."""


class Verifiable(Protocol):
    """What a verifier uses, besides reading. A role that may only read can do all of it."""

    async def digest(self, first: Position, last: Position) -> Digest:
        """The digest of the node's own rows in a range."""

    async def strays(self, limit: int) -> tuple[Position, ...]:
        """Positions of rows that are no part of the log: before its first, or beyond the tip."""

    async def seal(self, number: int, last: Position, agreed: bytes | None = None) -> Checked:
        """Reads a segment up to `last`, and notes that its rows still give what was noted of it.

        If nothing was, or less, and the rows give `agreed`, that is noted. `give_up` forgets what lies
        beyond the fork in its own transaction.
        """

    async def seals(self) -> tuple[Seal, ...]:
        """All that is noted, in order."""

    async def verified(self) -> Knowledge: ...

    async def glance(self, after: Position) -> Glance: ...


class Store(Log, Replica, Governed, Verifiable, Protocol):
    """One node's event store."""

    async def append_system(self, stream: str, expected: Expected, events: Sequence[NewEvent]) -> Appended:
        """`add` for geochain's own streams."""

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class DeadEvent:
    """An event of a dead branch, with the node that gave it up and the fork it lay behind."""

    event: Event
    node: str
    fork: Position
