"""Events in memory, by position, by stream and by id, and what may be appended to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from chain.errors import Corrupt
from chain.event import EMPTY, Event, Expect, Expected, NewEvent, Position, Revision, Tip


class EventLog:
    """A log that holds L1 by itself: what does not go right behind the tip does not go in."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.tip = EMPTY
        self._streams: dict[str, list[Event]] = {}
        self._ids: dict[UUID, Event] = {}

    def stream(self, name: str) -> Sequence[Event]:
        return self._streams.get(name, ())

    def find(self, ident: UUID) -> Event | None:
        return self._ids.get(ident)

    def extend(self, events: Sequence[Event]) -> None:
        """Puts all of the events behind the tip, or none. Raises Corrupt if they don't belong there."""
        fork = self.tip.position
        try:
            for event in events:
                self._append(event)
        except Corrupt:
            self.truncate(fork)
            raise

    def truncate(self, fork: Position) -> list[Event]:
        """Takes what lies behind `fork` out of the log."""
        gone = self.events[fork:]
        del self.events[fork:]
        for event in reversed(gone):
            self._streams[event.stream].pop()
            if not self._streams[event.stream]:
                del self._streams[event.stream]
            del self._ids[event.id]
        self.tip = Tip(self.events[-1].position, self.events[-1].epoch) if self.events else EMPTY
        return gone

    def _append(self, event: Event) -> None:
        tip = self.tip
        if event.position != tip.position + 1:
            raise Corrupt(f"position {event.position} can't follow position {tip.position}")
        if event.epoch < max(1, tip.epoch):
            raise Corrupt(f"epoch {event.epoch} at position {event.position} follows epoch {tip.epoch}")
        if event.id in self._ids:
            raise Corrupt(f"the event id {event.id} at position {event.position} is in the log already")
        if event.revision != len(self.stream(event.stream)):
            raise Corrupt(f"revision {event.revision} at position {event.position} is not its stream's next")
        self.events.append(event)
        self._streams.setdefault(event.stream, []).append(event)
        self._ids[event.id] = event
        self.tip = Tip(event.position, event.epoch)


@dataclass(frozen=True, slots=True)
class Fresh:
    """The events are new and go behind revision `last`."""

    last: Revision


@dataclass(frozen=True, slots=True)
class Repeated:
    """This very append was done before: here is where it went."""

    first: Event
    last: Event


@dataclass(frozen=True, slots=True)
class Conflict:
    """The stream is at revision `current`, and that is not what the append expects."""

    current: Revision


def decide(
    log: EventLog, stream: str, expected: Expected, events: Sequence[NewEvent]
) -> Fresh | Repeated | Conflict:
    """What becomes of an append."""
    number = expected.value if isinstance(expected, Expect) else expected
    current = Revision(len(log.stream(stream)) - 1)
    known = [found for event in events if (found := log.find(event.id))]
    if not known:
        fits = number in (Expect.ANY.value, current)
        return Fresh(current) if fits else Conflict(current)
    first, last = known[0], known[-1]
    if (
        len(known) == len(events)
        and number in (Expect.ANY.value, first.revision - 1)
        and all(
            (found.stream, found.revision, found.position)
            == (stream, first.revision + index, first.position + index)
            for index, found in enumerate(known)
        )
    ):
        return Repeated(first, last)
    return Conflict(current)
