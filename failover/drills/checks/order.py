"""The order of the log, against real time and against itself."""

from __future__ import annotations

from collections.abc import Iterator

from failover.drills.evidence import Evidence, Promise, place
from failover.drills.findings import Finding, Kind
from failover.drills.history import Seen


def in_real_time(evidence: Evidence) -> Iterator[Finding]:
    """If an append was answered before another was first sent, it comes first in the log.

    This holds over all streams and writers, so it holds for a stream and in the order of a program.
    """
    answered = _answered(evidence)
    earliest: Promise | None = None  # of those behind the event, the one that was answered first
    for event in reversed(evidence.final.log):
        writes = evidence.attempts.get(event.content.id)
        if writes is not None and event.content.id not in evidence.final.requeued:
            first = min(writes, key=lambda write: write.invoked_s)
            if earliest is not None and _end(earliest) < first.invoked_s:
                later = evidence.at[earliest.place]
                text = f"{event} was first sent after {later} was answered, and comes before it"
                yield Finding(Kind.REORDERED, text, (earliest.write, first, event, later))
        promise = answered.get(event)
        if promise is not None and (earliest is None or _end(promise) < _end(earliest)):
            earliest = promise


def _answered(evidence: Evidence) -> dict[Seen, Promise]:
    """The events that are where it was promised, each with the first promise of it."""
    found: dict[Seen, Promise] = {}
    for promise in evidence.promises:
        event = evidence.at.get(promise.place)
        if event is None or event.content.id != promise.content.id:
            continue
        if event not in found or _end(promise) < _end(found[event]):
            found[event] = promise
    return found


def _end(promise: Promise) -> float:
    ended = promise.write.completed_s
    return float("inf") if ended is None else ended


def unbroken_logs(evidence: Evidence) -> Iterator[Finding]:
    """Each node's log is dense, and its epochs never fall. The first break of each is told."""
    for node, log in evidence.final.logs.items():
        revisions: dict[str, int] = {}
        before: Seen | None = None
        for event in log:
            # What other streams held before the workload began is not known; ours begin with it.
            revision = revisions.get(event.stream, -1 if evidence.ours(event.stream) else event.revision - 1)
            if reason := _break(evidence, before, event, revision):
                proof = (event,) if before is None else (before, event)
                yield Finding(Kind.BROKEN_LOG, f"{node}: {event} {reason}", proof)
                break
            revisions[event.stream] = event.revision
            before = event


def _break(evidence: Evidence, before: Seen | None, event: Seen, revision: int) -> str:
    start = evidence.history.start
    position, epoch = (start.position - 1, start.epoch) if before is None else place(before)
    if event.position != position + 1:
        return f"follows position {position}"
    if event.epoch < epoch:
        return f"follows epoch {epoch}"
    if event.revision != revision + 1:
        return f"follows revision {revision}"
    return ""


def equal_logs(evidence: Evidence) -> Iterator[Finding]:
    """Each member's log is the head's, as far as both go. The first difference of each is told."""
    log = evidence.final.log
    for node in evidence.final.order[1:]:
        theirs = evidence.final.logs.get(node, ())
        pair = next(((a, b) for a, b in zip(log, theirs, strict=False) if a != b), None)
        if pair is not None:
            text = f"{node} has {pair[1]} where the head has {pair[0]}"
            if place(pair[0]) == place(pair[1]) and pair[0].content.id == pair[1].content.id:
                text = f"{node} has {pair[1]} with another content than the head"
            yield Finding(Kind.DIFFERENT_LOGS, text, pair)
        elif len(theirs) > len(log):
            text = f"{node} has {theirs[len(log)]}, behind the end of the head's log"
            yield Finding(Kind.DIFFERENT_LOGS, text, (theirs[len(log)],))
