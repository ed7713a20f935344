"""The history of a workload: every call, and every answer, as those who called saw them.

A value. Times are seconds of one process's monotonic clock, so of two calls it is known for certain whether
the first had ended when the second began. What an event held is kept as a digest, so that a history of a long
drill stays small.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from hashlib import blake2b
from uuid import UUID

from chain.acks import Ack
from chain.event import Appended, Event, Expect, Expected, NewEvent, Tip


class Result(Enum):
    """What a call came to, as far as its caller can know."""

    OK = "ok"
    """Answered: it is so."""
    FAILED = "failed"
    """Refused: it is not so, and never will be."""
    UNKNOWN = "unknown"
    """No answer that says which. An append may be there, or come later, or not at all."""


@dataclass(frozen=True, slots=True)
class Content:
    """What an event is, apart from its place."""

    id: UUID
    digest: bytes
    """Of stream, type, data and metadata: equal digests are the same event but for its id."""


@dataclass(frozen=True, slots=True)
class Seen:
    """An event at its place, as somebody read it."""

    position: int
    epoch: int
    stream: str
    revision: int
    content: Content

    @property
    def place(self) -> Tip:
        return Tip(self.position, self.epoch)  # type: ignore[arg-type]

    def __str__(self) -> str:
        return f"{self.stream}/{self.revision} at {self.position}@{self.epoch}"


@dataclass(frozen=True, slots=True)
class Call:
    """What all calls have."""

    process: str
    """Who called. A process has one call under way at a time."""
    invoked_s: float
    completed_s: float | None
    """None if it was broken off."""
    result: Result
    error: str


@dataclass(frozen=True, slots=True)
class Write(Call):
    """An append. The same event ids in a later write are a retry of it."""

    stream: str
    expected: Expected
    contents: tuple[Content, ...]
    ack: Ack
    appended: Appended | None
    """Where it went, if that was told: also by an answer that the ack level was not reached in time."""

    @property
    def acknowledged(self) -> bool:
        return self.result is Result.OK

    def __str__(self) -> str:
        expected = self.expected.name if isinstance(self.expected, Expect) else f"revision {self.expected}"
        what = f"{self.process} adds {len(self.contents)} to {self.stream} ({expected}, ack {self.ack.value})"
        answer = self.error or "no answer"
        if self.appended is not None:
            a = self.appended
            place = f"positions {a.first_position}–{a.last_position}@{a.epoch}, revision {a.last_revision}"
            answer = place if self.acknowledged else f"{place}; {self.error}"
        return _line(self, what, answer)


@dataclass(frozen=True, slots=True)
class Read(Call):
    """A read of a stream."""

    stream: str
    revision: int
    """From which on."""
    at_least: Tip | None
    latest: bool
    """It was to see every append that was answered before."""
    node: str | None
    seen: tuple[Seen, ...] = ()
    next: int = 0
    """The revision to read on from."""
    at_tip: bool = False

    def covers(self, revision: int) -> bool:
        """Whether the answer would hold this revision, if it was there."""
        return self.revision <= revision and (self.at_tip or revision < self.next)

    def __str__(self) -> str:
        wanted = f"at least {self.at_least}" if self.at_least else "the latest" if self.latest else "any"
        where = f" on {self.node}" if self.node else ""
        what = f"{self.process} gets {self.stream} from revision {self.revision}{where}, {wanted}"
        last = f"{len(self.seen)} events" + (f", the last {self.seen[-1]}" if self.seen else "")
        return _line(self, what, last if self.result is Result.OK else self.error or "no answer")


@dataclass(frozen=True, slots=True)
class Followed:
    """A page that a follower of the log was given."""

    process: str
    session: int
    """Within a session every page goes on where the one before it ended."""
    at_s: float
    node: str | None
    tail: bool
    """It came from the tail of a chain of two nodes or more: what was the tail before and after it came."""
    seen: tuple[Seen, ...]

    def __str__(self) -> str:
        where = f" on {self.node}" if self.node else ""
        role = ", the tail" if self.tail else ""
        first, last = self.seen[0], self.seen[-1]
        return (
            f"{self.at_s:.3f} s: {self.process}.{self.session}{where}{role} is given"
            f" {len(self.seen)} events, {first.place} to {last.place}"
        )


@dataclass(frozen=True, slots=True)
class History:
    """All of it, in the order in which the answers came."""

    prefix: str
    """Of the names of the streams that this workload, and nobody else, writes to."""
    start: Tip
    """The event that the workload began with: on every member, so no failover takes it away."""
    writes: tuple[Write, ...] = ()
    reads: tuple[Read, ...] = ()
    followed: tuple[Followed, ...] = ()
    full_at_s: float | None = None
    """When it held as much as it may, and the workload went to rest before its time."""


def seen(event: Event) -> Seen:
    content = Content(event.id, digest(event.stream, event.type, event.data, event.metadata))
    return Seen(event.position, event.epoch, event.stream, event.revision, content)


def content(stream: str, event: NewEvent) -> Content:
    return Content(event.id, digest(stream, event.type, event.data, event.metadata))


def digest(stream: str, type_: str, data: bytes, metadata: bytes) -> bytes:
    """16 bytes; each part goes in with its length, so that no two events give the same text."""
    value = blake2b(digest_size=16)
    for part in (stream.encode(), type_.encode(), data, metadata):
        value.update(len(part).to_bytes(4, "big") + part)
    return value.digest()


@dataclass(frozen=True, slots=True)
class Final:
    """What all nodes hold when everything has come to rest, from the workload's first event on."""

    order: tuple[str, ...]
    """The members, head first."""
    regions: Mapping[str, str]
    logs: Mapping[str, tuple[Seen, ...]]
    """Of every node that could be read, member or not, by position."""
    ledger: tuple[Seen, ...] = ()
    """The dead events in the ledger, at the places that they had."""
    requeued: frozenset[UUID] = frozenset()
    """Those of them that an operator put back: they have another place now, rightly."""
    kept: tuple[Seen, ...] = ()
    """What nodes have taken out of their logs and not yet brought into the ledger."""
    unread: Mapping[str, str] | None = None
    """Nodes that could not be read, and why: what is found nowhere else may be there."""

    @property
    def log(self) -> tuple[Seen, ...]:
        """The head's: what the chain's log is. Empty if the head could not be read."""
        return self.logs.get(self.order[0], ())


def _line(call: Call, what: str, answer: str) -> str:
    end = f"{call.completed_s:.3f} s" if call.completed_s is not None else "never"
    return f"{call.invoked_s:.3f} s: {what}; {end}: {call.result.value}: {answer}"
