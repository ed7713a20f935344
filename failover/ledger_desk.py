"""What an operator can do with the ledger: see it, put an event back, or let it go with a reason."""

from __future__ import annotations

from dataclasses import replace

from chain.client import Client
from chain.errors import Refused, WrongRevision
from chain.event import LEDGER_STREAM, Appended, Event, Expect, Expected, NewEvent, Revision
from chain.ledger import Entry, EntryState, discarded_event, fold, requeued_event
from chain.store import Log, Store


async def entries(log: Log) -> list[Entry]:
    """The ledger as a node has it, in the order in which it was written."""
    events: list[Event] = []
    revision = Revision(0)
    while True:
        page = await log.get(LEDGER_STREAM, revision)
        events += page.events
        revision = Revision(page.next)
        if page.at_tip:
            return list(fold(events).values())


async def requeue(
    client: Client, head: Store, entry: Entry, *, by: str, at_end: bool = False
) -> tuple[Entry, Appended]:
    """Appends the dead event again, under its own id, so it can be done any number of times.

    If its stream has moved on meanwhile, raises Refused, or with `at_end` appends it to the stream's end.
    An event that its writer has sent again already is only noted as such.
    """
    _check_open(entry)
    event = entry.event
    if entry.is_system:
        raise Refused(
            f"{event.type} on {event.stream} is an event of geochain's own, of use to nobody now",
            hint="discard it: chainctl ledger discard",
        )
    again = NewEvent(event.type, event.data, event.metadata, event.id)
    expected: Expected = Revision(event.revision - 1) if event.revision else Expect.NO_STREAM
    if await head.holds([event.id]):
        expected = Expect.ANY
    try:
        done = await client.add(event.stream, expected, [again])
    except WrongRevision as error:
        if not at_end:
            raise Refused(
                f"stream {event.stream} has moved on to revision {error.current} since",
                hint="append it to the end with --at-end, or discard it",
            ) from error
        done = await client.add(event.stream, Expect.ANY, [again])
    await head.append_system(LEDGER_STREAM, Expect.ANY, [requeued_event(entry, done.first_position, by)])
    return replace(entry, state=EntryState.REQUEUED, position=done.first_position), done


async def discard(head: Store, entry: Entry, *, by: str, reason: str) -> Entry:
    """Lets a dead event go, and records who did and why. Raises Refused if it was decided already."""
    _check_open(entry)
    await head.append_system(LEDGER_STREAM, Expect.ANY, [discarded_event(entry, reason, by)])
    return replace(entry, state=EntryState.DISCARDED, reason=reason)


def _check_open(entry: Entry) -> None:
    if entry.state is not EntryState.OPEN:
        raise Refused(f"entry {entry.id} is {entry.state.value} already")
