"""What was acknowledged: is it where that was promised?"""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID

from chain.acks import Ack
from failover.drills.evidence import Evidence, Place, Promise, place
from failover.drills.findings import Finding, Kind
from failover.drills.history import Seen


def kept_promises(evidence: Evidence) -> Iterator[Finding]:
    """Every acknowledged event is at its place in the log, or rightly in the ledger; each looked at once."""
    judged: set[tuple[UUID, Place, Ack]] = set()
    for promise in evidence.promises:
        key = (promise.content.id, promise.place, promise.ack)
        if key not in judged:
            judged.add(key)
            yield from _judge(evidence, promise)


def places_given_twice(evidence: Evidence) -> Iterator[Finding]:
    """No place was acknowledged for two events."""
    owners: dict[Place, Promise] = {}
    for promise in evidence.promises:
        first = owners.setdefault(promise.place, promise)
        if first.content.id != promise.content.id:
            text = f"{_said(promise.place)} was acknowledged for {first.content.id} and {promise.content.id}"
            yield Finding(Kind.SAME_PLACE, text, (first.write, promise.write))


def answers_that_fit(evidence: Evidence) -> Iterator[Finding]:
    """An answer names as many positions as events were sent."""
    for write in evidence.history.writes:
        told = write.appended
        if told is not None and told.last_position - told.first_position + 1 != len(write.contents):
            yield Finding(Kind.MOVED, f"{len(write.contents)} events, and not as many positions", (write,))


def dead_rightly(evidence: Evidence, promise: Promise) -> bool:
    """Whether a failover may have taken the event out of the log: only the head had promised it."""
    return promise.ack is Ack.HEAD and evidence.is_dead_at(promise.content.id, promise.place)


def _judge(evidence: Evidence, promise: Promise) -> Iterator[Finding]:
    id_ = promise.content.id
    homes = evidence.live.get(id_, ())
    said = (
        f"{promise.write.stream}/{promise.revision}, acknowledged by {_by(promise)} at {_said(promise.place)}"
    )
    if any(place(event) == promise.place and event.revision == promise.revision for event in homes):
        yield from _on_nodes(evidence, promise, said)
    elif dead_rightly(evidence, promise):
        return
    elif homes:
        if evidence.all_read or promise.ack is not Ack.HEAD or homes[0].epoch <= promise.place.epoch:
            yield Finding(Kind.MOVED, f"{said}, is {homes[0]}", (promise.write, *homes))
    elif dead := evidence.dead(id_):
        if promise.ack is Ack.HEAD:
            yield Finding(Kind.MOVED, f"{said}, was given up as {dead[0]}", (promise.write, *dead))
        else:
            yield Finding(Kind.ONLY_IN_LEDGER, f"{said}, is not in the log", (promise.write, *dead))
    elif evidence.all_read or promise.ack is not Ack.HEAD:
        yield Finding(Kind.LOST, f"{said}, is nowhere", (promise.write, *_instead(evidence, promise)))


def _on_nodes(evidence: Evidence, promise: Promise, said: str) -> Iterator[Finding]:
    """That it is on the nodes that were promised. Those that could not be read are not accused."""
    final = evidence.final
    lengths = {node: log[-1].position if log else 0 for node, log in final.logs.items()}
    having = {node for node, length in lengths.items() if length >= promise.place.position}
    if promise.ack is Ack.CHAIN:
        for node in final.order:
            if node in lengths and node not in having:
                text = f"{said}, is not on {node}, whose log ends at {lengths[node]:,}"
                yield Finding(Kind.NOT_ON_NODE, text, (promise.write,))
    elif promise.ack is Ack.REGION and evidence.all_read:
        regions = {final.regions.get(node, "?") for node in having}
        if len(regions) < 2:
            text = f"{said}, is only in region {', '.join(sorted(regions))}"
            yield Finding(Kind.NOT_ON_NODE, text, (promise.write,))


def _instead(evidence: Evidence, promise: Promise) -> tuple[Seen, ...]:
    """What is there now, as far as the log goes."""
    return tuple(event for event in evidence.final.log if event.position == promise.place.position)[:1]


def _by(promise: Promise) -> str:
    return {Ack.HEAD: "the head", Ack.REGION: "another region", Ack.CHAIN: "the chain"}[promise.ack]


def _said(where: Place) -> str:
    return f"{where.position}@{where.epoch}"
