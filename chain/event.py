"""The event and the numbers that place it: position, epoch, revision.

A log holds events by position 1, 2, 3, … without holes; a stream holds its own events by revision
0, 1, 2, … without holes. An event keeps its position for life, on every node. Data and metadata are
bytes that geochain never looks into.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Final, NamedTuple, NewType
from uuid import UUID

from chain.errors import BadEvent

Position = NewType("Position", int)
"""Place in the log, from 1. 0 stands before the first event."""

Epoch = NewType("Epoch", int)
"""One head's reign, from 1. 0 stands before the first promotion."""

Revision = NewType("Revision", int)
"""Place in a stream, from 0. -1 stands before the first event."""

MAX_EVENT_BYTES: Final = 16 * 1024 * 1024
MAX_NAME_BYTES: Final = 512
MAX_APPEND_EVENTS: Final = 4096

EPOCH_STREAM: Final = "$epoch"
LEDGER_STREAM: Final = "$ledger"


class Expect(Enum):
    """What an append expects of its stream, when that is not an exact revision."""

    NO_STREAM = -1
    """The stream has no events yet."""
    ANY = -2
    """Wherever the stream is; the append goes to its end."""


Expected = Revision | Expect


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event to be appended. Its id makes a retry safe: the same id is stored once, ever."""

    type: str
    data: bytes = b""
    metadata: bytes = b""
    id: UUID = field(default_factory=lambda: new_id())


class Event(NamedTuple):
    """One immutable record of the log. A tuple, since logs are read by the million and it is made fastest."""

    position: Position
    epoch: Epoch
    stream: str
    revision: Revision
    id: UUID
    type: str
    data: bytes
    metadata: bytes
    recorded_at: datetime
    """By the clock of the head that took the event; UTC, microseconds."""


@dataclass(frozen=True, slots=True, order=True)
class Tip:
    """A log's last position and the epoch of the event there.

    Two logs that hold the same (position, epoch) are identical up to it (L4).
    """

    position: Position
    epoch: Epoch

    def __str__(self) -> str:
        return f"{self.position}@{self.epoch}"


EMPTY: Final = Tip(Position(0), Epoch(0))


@dataclass(frozen=True, slots=True)
class Appended:
    """Where an append went. (`epoch`, `last_position`) is the token for reads that must see it."""

    first_position: Position
    last_position: Position
    last_revision: Revision
    epoch: Epoch
    repeated: bool
    """True if these very events were there already, from an earlier try."""

    @property
    def token(self) -> Tip:
        return Tip(self.last_position, self.epoch)


def new_id() -> UUID:
    """A new event id: UUID version 7 (RFC 9562), time-ordered so that an index on ids stays local."""
    milliseconds = time.time_ns() // 1_000_000
    value = (milliseconds & (1 << 48) - 1) << 80 | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return UUID(int=value)


def is_system(stream: str) -> bool:
    """System streams begin with `$`; only geochain appends to them."""
    return stream.startswith("$")


def check_append(stream: str, events: Sequence[NewEvent], *, system: bool = False) -> None:
    """Holds an append against the rules of the log. Raises BadEvent; says which event and rule.

    A system event may be larger than a user's: a ledger entry carries a whole user event.
    """
    _check_name("stream name", stream)
    if is_system(stream) and not system:
        raise BadEvent(
            f"stream {stream!r} is a system stream",
            hint="names that begin with $ are kept for geochain: choose another",
        )
    if not events:
        raise BadEvent("an append needs at least one event")
    if len(events) > MAX_APPEND_EVENTS:
        raise BadEvent(
            f"{len(events):,} events in one append; the most is {MAX_APPEND_EVENTS:,}",
            hint="append in several batches",
        )
    limit = MAX_EVENT_BYTES * 2 if system else MAX_EVENT_BYTES
    for index, event in enumerate(events):
        _check_name(f"type of event {index}", event.type)
        size = len(event.data) + len(event.metadata)
        if size > limit:
            raise BadEvent(
                f"event {index} has {size:,} bytes of data and metadata; the most is {limit:,}",
                hint="keep large objects outside and put their address into the event",
            )
    if len({event.id for event in events}) < len(events):
        raise BadEvent("an event id appears twice in one append", hint="give each event its own")


def _check_name(what: str, name: str) -> None:
    if not name:
        raise BadEvent(f"the {what} is empty")
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise BadEvent(f"the {what} is not valid UTF-8: {name!r}") from None
    if size > MAX_NAME_BYTES:
        raise BadEvent(f"the {what} has {size} bytes; the most is {MAX_NAME_BYTES}")
    if "\x00" in name:
        raise BadEvent(f"the {what} holds a NUL character: {name!r}")
