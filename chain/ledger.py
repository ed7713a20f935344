"""The ledger: the record of every event of a dead branch, kept as the stream `$ledger` of the chain itself.

An entry carries the dead event whole: its data byte for byte as the entry's data, everything else
in the entry's metadata. What an operator decides about an entry is appended behind it. So the ledger is
replicated, verified and failed over like every other stream.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum
from typing import Final
from uuid import UUID, uuid5

from chain.errors import BadInput, Corrupt
from chain.event import LEDGER_STREAM, Epoch, Event, NewEvent, Position, Revision, is_system
from chain.store import DeadEvent

KEPT: Final = "LedgerKept"
REQUEUED: Final = "LedgerRequeued"
DISCARDED: Final = "LedgerDiscarded"

_NAMESPACE: Final = UUID("6f1c3a52-1f0b-5f0e-9a55-9d4b2f6d7c11")


class EntryState(Enum):
    """What became of an entry."""

    OPEN = "open"
    """Nobody has decided yet."""
    REQUEUED = "requeued"
    """The event is in the log again, at a new position, under its own id."""
    DISCARDED = "discarded"
    """An operator let it go, and said why."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A dead event in the ledger."""

    id: UUID
    event: Event
    """As it was on the dead branch: its position and epoch are of that branch."""
    node: str
    """The node that gave it up."""
    fork: Position
    kept_at: datetime
    state: EntryState = EntryState.OPEN
    position: Position | None = None
    """Where it is now, if it was requeued."""
    reason: str = ""
    """Why it was discarded."""

    @property
    def is_system(self) -> bool:
        """An event of geochain's own, of use to nobody now; it can only be discarded."""
        return is_system(self.event.stream)


def entry_event(dead: DeadEvent) -> tuple[NewEvent, UUID]:
    """The event that puts a dead event into the ledger, and its id. Always the same for the same one.

    A dead event of the ledger itself goes in as what it was.
    """
    event = dead.event
    if event.stream == LEDGER_STREAM:
        return NewEvent(event.type, event.data, event.metadata, event.id), event.id
    entry = uuid5(_NAMESPACE, f"{event.id}/{event.epoch}/{event.position}")
    header = {
        "node": dead.node,
        "fork": dead.fork,
        "position": event.position,
        "epoch": event.epoch,
        "stream": event.stream,
        "revision": event.revision,
        "id": str(event.id),
        "type": event.type,
        "metadata": b64encode(event.metadata).decode(),
        "recorded_at": event.recorded_at.isoformat(),
    }
    return NewEvent(KEPT, event.data, json.dumps(header).encode(), entry), entry


def requeued_event(entry: Entry, position: Position, by: str) -> NewEvent:
    data = {"entry": str(entry.id), "position": position, "by": by}
    return NewEvent(REQUEUED, json.dumps(data).encode(), b"", uuid5(entry.id, REQUEUED))


def discarded_event(entry: Entry, reason: str, by: str) -> NewEvent:
    data = {"entry": str(entry.id), "reason": reason, "by": by}
    return NewEvent(DISCARDED, json.dumps(data).encode(), b"", uuid5(entry.id, DISCARDED))


def fold(events: Iterable[Event]) -> dict[UUID, Entry]:
    """The entries of the ledger, in the order in which they were kept. Raises Corrupt."""
    entries: dict[UUID, Entry] = {}
    for event in events:
        try:
            if event.type == KEPT:
                entries[event.id] = _kept(event)
            elif event.type in (REQUEUED, DISCARDED):
                data = json.loads(event.data)
                before = entries[UUID(str(data["entry"]))]
                entries[before.id] = _decided(before, event.type, data)
        except (ValueError, KeyError, TypeError) as error:
            raise Corrupt(f"{LEDGER_STREAM} can't be read at revision {event.revision}: {error}") from error
    return entries


def find(entries: Iterable[Entry], text: str) -> Entry:
    """The one entry whose id, or event id, begins with `text`. Raises BadInput."""
    matches = [e for e in entries if str(e.id).startswith(text) or str(e.event.id).startswith(text)]
    if len(matches) == 1:
        return matches[0]
    if not matches:
        raise BadInput(f"the ledger has no entry {text!r}", hint="see them: chainctl ledger list")
    raise BadInput(f"{len(matches)} entries begin with {text!r}", hint="give more of the id")


def _kept(event: Event) -> Entry:
    header = json.loads(event.metadata)
    dead = Event(
        Position(header["position"]),
        Epoch(header["epoch"]),
        header["stream"],
        Revision(header["revision"]),
        UUID(header["id"]),
        header["type"],
        event.data,
        b64decode(header["metadata"]),
        datetime.fromisoformat(header["recorded_at"]),
    )
    return Entry(event.id, dead, header["node"], Position(header["fork"]), event.recorded_at)


def _decided(before: Entry, type_: str, data: dict[str, object]) -> Entry:
    if type_ == REQUEUED:
        position = Position(int(str(data["position"])))
        return replace(before, state=EntryState.REQUEUED, position=position, reason="")
    if before.state is EntryState.REQUEUED:
        return before
    return replace(before, state=EntryState.DISCARDED, reason=str(data["reason"]))
