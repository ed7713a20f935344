"""What readers and followers were given: new enough, in order, without holes, and there to stay?"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby, islice, pairwise, takewhile
from uuid import UUID

from failover.drills.evidence import Evidence, Place, place
from failover.drills.findings import Finding, Kind
from failover.drills.history import Followed, Read, Result, Seen


def new_enough(evidence: Evidence) -> Iterator[Finding]:
    """A read sees its stream up to its token; a read of the latest, up to what was answered before it began.

    Only what the log finally holds is asked for, so a token on a dead branch asks for nothing.
    """
    for read in evidence.history.reads:
        if read.result is not Result.OK:
            continue
        token = read.at_least
        if token is not None and Place(token.position, token.epoch) in evidence.at:
            missing = _missing(evidence, read, _up_to_position(token.position))
            if (event := next(missing, None)) is not None:
                text = f"{read.process} asked for {token} and was not given {event}"
                yield Finding(Kind.STALE_TOKEN, text, (read, event))
        if read.latest:
            last = evidence.answered_before(read.stream, read.invoked_s)
            missing = _missing(evidence, read, _up_to_revision(last))
            if (event := next(missing, None)) is not None:
                text = f"{read.process} read the latest and was not given {event}"
                yield Finding(Kind.STALE_LATEST, text, (*evidence.attempts[event.content.id], read, event))


def _up_to_position(last: int) -> Callable[[Seen], bool]:
    return lambda event: event.position <= last


def _up_to_revision(last: int) -> Callable[[Seen], bool]:
    return lambda event: event.revision <= last


def _missing(evidence: Evidence, read: Read, wanted: Callable[[Seen], bool]) -> Iterator[Seen]:
    """Events of the stream as it finally is that are wanted, and that the answer leaves out."""
    given = {place(event) for event in read.seen}
    stream = evidence.streams.get(read.stream, ())
    first = bisect_left(stream, read.revision, key=lambda event: event.revision)
    for event in takewhile(wanted, islice(stream, first, None)):
        if read.covers(event.revision) and place(event) not in given:
            yield event


def reads_in_order(evidence: Evidence) -> Iterator[Finding]:
    """A read gives revisions one by one, from where it was to begin, at growing positions."""
    for read in evidence.history.reads:
        if not read.seen:
            continue
        first = read.seen[0].revision
        if first != read.revision:
            kind = Kind.SKIPPED if first > read.revision else Kind.WENT_BACK
            yield Finding(kind, f"{read.process} read from {read.revision} and was given {first}", (read,))
        for before, event in pairwise(read.seen):
            if event.revision <= before.revision or event.position <= before.position:
                yield Finding(Kind.WENT_BACK, f"{read.process}: {event} behind {before}", (read, event))
            elif event.revision > before.revision + 1:
                yield Finding(Kind.SKIPPED, f"{read.process}: {event} behind {before}", (read, event))


def followed_in_order(evidence: Evidence) -> Iterator[Finding]:
    """A follower is given every position, one by one, from the workload's first event on."""
    sessions = sorted(evidence.history.followed, key=lambda page: (page.process, page.session))
    for (process, _), pages in groupby(sessions, key=lambda page: (page.process, page.session)):
        last: int = evidence.history.start.position
        for page in pages:
            for event in page.seen:
                if event.position != last + 1:
                    kind = Kind.SKIPPED if event.position > last + 1 else Kind.WENT_BACK
                    yield Finding(kind, f"{process}: {event} behind position {last}", (page, event))
                last = event.position


def there_to_stay(evidence: Evidence) -> Iterator[Finding]:
    """What the tail showed is in the log, at its place; what else was read is there, or in the ledger.

    What was acknowledged is judged as that, and not again here.
    """
    if not evidence.final.log:
        return
    promised = {promise.content.id for promise in evidence.promises}
    accused: set[UUID] = set()
    for call, event in evidence.observed():
        id_ = event.content.id
        if id_ in accused or id_ not in evidence.sent:
            continue
        if isinstance(call, Followed) and call.tail:
            there = evidence.at.get(place(event))
            if there is None or there.content.id != id_:
                accused.add(id_)
                yield Finding(Kind.TAKEN_AWAY, f"{event} was shown at the tail", (call, *_now(there)))
        elif evidence.all_read and id_ not in promised and not _is_somewhere(evidence, id_):
            accused.add(id_)
            yield Finding(Kind.VANISHED, f"{event} was read", (*evidence.attempts[id_], call, event))


def one_event_a_place(evidence: Evidence) -> Iterator[Finding]:
    """All who were given what is at a place were given the same event."""
    owners: dict[Place, tuple[Read | Followed, Seen]] = {}
    accused: set[Place] = set()
    for call, event in evidence.observed():
        where = place(event)
        first = owners.setdefault(where, (call, event))
        if first[1].content.id != event.content.id and where not in accused:
            accused.add(where)
            text = f"at {where.position}@{where.epoch} some read {first[1]}, others {event}"
            yield Finding(Kind.SAME_PLACE, text, (first[0], first[1], call, event))


def _is_somewhere(evidence: Evidence, id_: UUID) -> bool:
    return id_ in evidence.live or bool(evidence.dead(id_))


def _now(there: Seen | None) -> Sequence[Seen]:
    return () if there is None else (there,)
