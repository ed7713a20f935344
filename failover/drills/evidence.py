"""A history and what finally is, indexed for the checks. A value; nothing here judges."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import NamedTuple
from uuid import UUID

from chain.acks import Ack
from failover.drills.history import Content, Final, Followed, History, Read, Result, Seen, Write


class Place(NamedTuple):
    """Where an event is. Two branches may have a position, but not a place, in common."""

    position: int
    epoch: int


class Promise(NamedTuple):
    """That an event is at a place, told to its writer."""

    content: Content
    place: Place
    revision: int
    ack: Ack
    """As far as it was told: an answer that the wanted level was not reached in time promises the head's."""
    write: Write


@dataclass(frozen=True)
class Evidence:
    """What is known of a drill's events."""

    history: History
    final: Final

    def ours(self, stream: str) -> bool:
        """Whether only this workload writes to the stream."""
        return stream.startswith(self.history.prefix)

    @cached_property
    def attempts(self) -> Mapping[UUID, tuple[Write, ...]]:
        """Of each event that was ever sent, the writes, in the order of their answers."""
        found: dict[UUID, list[Write]] = defaultdict(list)
        for write in self.history.writes:
            for content in write.contents:
                found[content.id].append(write)
        return {id_: tuple(writes) for id_, writes in found.items()}

    @cached_property
    def sent(self) -> Mapping[UUID, bytes]:
        """The digest of each event that was ever sent."""
        return {content.id: content.digest for write in self.history.writes for content in write.contents}

    @cached_property
    def by_digest(self) -> Mapping[bytes, UUID]:
        return {digest: id_ for id_, digest in self.sent.items()}

    @cached_property
    def promises(self) -> tuple[Promise, ...]:
        return tuple(promise for write in self.history.writes for promise in _promises(write))

    @cached_property
    def live(self) -> Mapping[UUID, tuple[Seen, ...]]:
        """By id, the events of the head's log."""
        return _by_id(self.final.log)

    @cached_property
    def at(self) -> Mapping[Place, Seen]:
        """By place, the events of the head's log."""
        return {place(event): event for event in self.final.log}

    @cached_property
    def ledger(self) -> Mapping[UUID, tuple[Seen, ...]]:
        """By id, the dead events in the ledger."""
        return _by_id(self.final.ledger)

    @cached_property
    def stranded(self) -> Mapping[UUID, tuple[Seen, ...]]:
        """By id, dead events that are on their way to the ledger, or on a node outside the chain."""
        outside = (
            event
            for node, log in self.final.logs.items()
            if node not in self.final.order
            for event in log
            if self.at.get(place(event)) != event
        )
        return _by_id((*self.final.kept, *outside))

    @cached_property
    def streams(self) -> Mapping[str, tuple[Seen, ...]]:
        """Our streams as the head's log has them, by position."""
        found: dict[str, list[Seen]] = defaultdict(list)
        for event in self.final.log:
            if self.ours(event.stream):
                found[event.stream].append(event)
        return {stream: tuple(events) for stream, events in found.items()}

    @cached_property
    def known_at_s(self) -> Mapping[Place, float]:
        """When it was first told to somebody that an event is at a place."""
        found: dict[Place, float] = {}
        for promise in self.promises:
            at_s = promise.write.completed_s
            if at_s is not None:
                found[promise.place] = min(at_s, found.get(promise.place, at_s))
        return found

    @cached_property
    def answered(self) -> Mapping[str, tuple[tuple[float, ...], tuple[int, ...]]]:
        """Of each of our streams: times, and the last revision that had been answered for until then."""
        known: dict[str, list[tuple[float, int]]] = defaultdict(list)
        for where, at_s in self.known_at_s.items():
            if (event := self.at.get(where)) is not None:
                known[event.stream].append((at_s, event.revision))
        return {
            stream: (tuple(at for at, _ in pairs), tuple(accumulate((r for _, r in pairs), max)))
            for stream, pairs in ((stream, sorted(pairs)) for stream, pairs in known.items())
        }

    def answered_before(self, stream: str, at_s: float) -> int:
        """The last revision of the stream that was answered for before a time; -1 if none."""
        times, revisions = self.answered.get(stream, ((), ()))
        count = bisect_left(times, at_s)
        return revisions[count - 1] if count else -1

    @property
    def all_read(self) -> bool:
        """Whether what is found nowhere is nowhere."""
        return not self.final.unread

    def is_dead_at(self, id_: UUID, where: Place) -> bool:
        """Whether the event was given up at that place, and is kept."""
        return any(place(event) == where for event in self.dead(id_))

    def dead(self, id_: UUID) -> tuple[Seen, ...]:
        return (*self.ledger.get(id_, ()), *self.stranded.get(id_, ()))

    def observed(self) -> Iterator[tuple[Read | Followed, Seen]]:
        """Every event of ours that a reader or follower was given."""
        calls: tuple[Read | Followed, ...] = (*self.history.reads, *self.history.followed)
        for call in calls:
            for event in call.seen:
                if self.ours(event.stream):
                    yield call, event


def place(event: Seen) -> Place:
    return Place(event.position, event.epoch)


def _promises(write: Write) -> Iterator[Promise]:
    told = write.appended
    if told is None:
        return
    ack = write.ack if write.result is Result.OK else Ack.HEAD
    first_revision = told.last_revision - len(write.contents) + 1
    for index, content in enumerate(write.contents):
        where = Place(told.first_position + index, told.epoch)
        yield Promise(content, where, first_revision + index, ack, write)


def _by_id(events: Iterable[Seen]) -> Mapping[UUID, tuple[Seen, ...]]:
    found: dict[UUID, list[Seen]] = defaultdict(list)
    for event in events:
        found[event.content.id].append(event)
    return {id_: tuple(same) for id_, same in found.items()}
