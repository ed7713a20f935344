"""What is in the log and was read: did somebody write it, once, whole, and just so?"""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID

from chain.event import Expect
from failover.drills.evidence import Evidence, Place, place
from failover.drills.findings import Finding, Kind, Proof
from failover.drills.history import Result, Seen, Write


def stored_once(evidence: Evidence) -> Iterator[Finding]:
    """No event of ours is in the log twice, by its id; none is at one place in the log and in the ledger."""
    for id_, events in evidence.live.items():
        if id_ not in evidence.sent:
            continue
        proof: tuple[Proof, ...] = (*evidence.attempts[id_][:1], *events)
        if len(events) > 1:
            yield Finding(Kind.DUPLICATED, f"{events[0]} is there again: {events[1]}", proof)
        elif any(place(dead) == place(events[0]) for dead in evidence.ledger.get(id_, ())):
            yield Finding(Kind.DUPLICATED, f"{events[0]} is in the log and in the ledger", proof)


def written_by_somebody(evidence: Evidence) -> Iterator[Finding]:
    """Every event in our streams was sent, and is as it was sent: in the log, in the ledger, and as read."""
    accused: set[tuple[UUID, bytes]] = set()
    in_log = (((event,), event) for event in (*evidence.final.log, *evidence.final.ledger))
    as_read = (((call, event), event) for call, event in evidence.observed())
    proof: tuple[Proof, ...]
    for proof, event in (*in_log, *as_read):
        key = (event.content.id, event.content.digest)
        kind = _stranger(evidence, event)
        if kind is not None and key not in accused:
            accused.add(key)
            sent = evidence.attempts.get(event.content.id, ())
            yield Finding(kind, f"{event}: {_WHY[kind]}", (*sent[:1], *proof))


_WHY = {
    Kind.ALTERED: "it is not what its writer sent",
    Kind.DUPLICATED: "the same content was sent once, under another id",
    Kind.NEVER_WRITTEN: "nobody sent it",
}


def _stranger(evidence: Evidence, event: Seen) -> Kind | None:
    sent = evidence.sent.get(event.content.id)
    if sent is not None:
        return None if sent == event.content.digest else Kind.ALTERED
    if not evidence.ours(event.stream):
        return None
    return Kind.DUPLICATED if event.content.digest in evidence.by_digest else Kind.NEVER_WRITTEN


def refused_stays_out(evidence: Evidence) -> Iterator[Finding]:
    """What was refused, each time that it was sent, is not in the log.

    A call may have been tried on a head that was lost, and refused by the next one: that leaves a dead event,
    which an operator may put back.
    """
    for id_, writes in evidence.attempts.items():
        live = evidence.live.get(id_, ())
        refused = all(write.result is Result.FAILED for write in writes)
        if refused and live and id_ not in evidence.final.requeued:
            yield Finding(Kind.APPEARED, f"{live[0]} was refused", (*writes, *live))


def whole(evidence: Evidence) -> Iterator[Finding]:
    """Of an append without an answer there is all or nothing, in one piece.

    The loss of a head may split one: then the other part is dead, and kept.
    """
    for write in _first_of_each(evidence):
        ids = [content.id for content in write.contents]
        if any(w.appended is not None for w in evidence.attempts[ids[0]]):
            continue  # promised event by event
        if not evidence.final.requeued.isdisjoint(ids):
            continue
        live = [evidence.live[id_][0] for id_ in ids if id_ in evidence.live]
        gone = [id_ for id_ in ids if id_ not in evidence.live and not evidence.dead(id_)]
        if live and gone and evidence.all_read:
            text = f"of an append of {len(ids)} to {write.stream} there are {len(live)}"
            yield Finding(Kind.TORN, text, (write, *live))
        elif [place(event) for event in live] != _run(live):
            text = f"an append of {len(ids)} to {write.stream} is not in one piece"
            yield Finding(Kind.TORN, text, (write, *live))


def at_expected_revision(evidence: Evidence) -> Iterator[Finding]:
    """What was appended at a revision is right behind it."""
    for write in _first_of_each(evidence):
        if write.expected is Expect.ANY:
            continue
        wanted = 0 if isinstance(write.expected, Expect) else write.expected + 1
        for index, content in enumerate(write.contents):
            for event in evidence.live.get(content.id, ()):
                if event.revision != wanted + index and content.id not in evidence.final.requeued:
                    text = f"{event}, and was to be revision {wanted + index} or nowhere"
                    yield Finding(Kind.WRONG_REVISION, text, (write, event))


def _run(events: list[Seen]) -> list[Place]:
    return [Place(events[0].position + n, events[0].epoch) for n in range(len(events))] if events else []


def _first_of_each(evidence: Evidence) -> Iterator[Write]:
    """The first write of each append: those with the same ids are the same append, sent again."""
    known: set[UUID] = set()
    for write in evidence.history.writes:
        if write.contents[0].id not in known:
            known.add(write.contents[0].id)
            yield write
