"""The checker: judges a workload's history by what the nodes finally hold. Pure.

It finds nothing in a correct history, however the calls overlap and whatever failed in between; and each kind
of anomaly (`failover.drills.findings`) where there is one, with the calls that prove it. What it could not
check it says, and then finding nothing means nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from chain.acks import Ack
from failover.drills.checks import acknowledged, content, order, reads
from failover.drills.evidence import Evidence, place
from failover.drills.findings import Finding, Kind
from failover.drills.history import Final as FinalState
from failover.drills.history import History, Result, Write
from failover.drills.record import CheckResult, FindingText, Loss
from failover.drills.recorder import quantile

MAX_LISTED: Final = 100
MAX_PROOF: Final = 8

CHECKS: Final[tuple[Callable[[Evidence], Iterable[Finding]], ...]] = (
    acknowledged.kept_promises,
    acknowledged.places_given_twice,
    acknowledged.answers_that_fit,
    content.stored_once,
    content.written_by_somebody,
    content.refused_stays_out,
    content.whole,
    content.at_expected_revision,
    order.in_real_time,
    order.unbroken_logs,
    order.equal_logs,
    reads.new_enough,
    reads.reads_in_order,
    reads.followed_in_order,
    reads.there_to_stay,
    reads.one_event_a_place,
)


@dataclass(frozen=True, slots=True)
class Checked:
    """What the checker says."""

    findings: tuple[Finding, ...]
    counts: Mapping[str, int]
    stable_s: Mapping[str, float]
    """Quantiles of the time from an event's acknowledgement until it was seen at the tail."""
    incomplete: str
    """Why not all could be checked; empty if it could."""

    def result(self) -> CheckResult:
        """For the record of the drill."""
        texts = tuple(
            FindingText(f.kind.value, f.text, tuple(str(proof) for proof in f.proof[:MAX_PROOF]))
            for f in self.findings[:MAX_LISTED]
        )
        left_out = max(0, len(self.findings) - MAX_LISTED)
        return CheckResult(texts, self.counts, self.stable_s, left_out, self.incomplete)

    def loss(self, *, target_lost: int | None = 0, target_in_ledger: int | None = None) -> Loss:
        """For the record of the drill."""
        lost = {ack.value: 0 for ack in Ack}
        for finding in self.findings:
            if finding.kind is Kind.LOST and isinstance(write := finding.proof[0], Write):
                lost[(write.ack if write.acknowledged else Ack.HEAD).value] += 1
        return Loss(
            target_lost,
            lost,
            self.counts["events_in_the_ledger"] + self.counts["events_on_a_dead_branch"],
            target_in_ledger,
            self._count(Kind.DUPLICATED),
            self._count(Kind.REORDERED),
        )

    def _count(self, kind: Kind) -> int:
        return sum(finding.kind is kind for finding in self.findings)


def check(history: History, final: FinalState) -> Checked:
    """Judges a history by what finally is, when the workload and the chain have come to rest."""
    evidence = Evidence(history, final)
    findings = tuple(finding for look in CHECKS for finding in look(evidence)) if final.log else ()
    return Checked(findings, _counts(evidence), _stable(evidence), _incomplete(evidence))


def _incomplete(evidence: Evidence) -> str:
    if not evidence.final.log:
        return f"the log of the head, {evidence.final.order[0]}, could not be read: nothing was checked"
    if not any(write.acknowledged for write in evidence.history.writes):
        return "no write was acknowledged: there is nothing that could have been lost"
    unread = [f"{node} ({why})" for node, why in (evidence.final.unread or {}).items()]
    if unread:
        return f"could not be read, and may hold what is found nowhere else: {', '.join(unread)}"
    return ""


def _counts(evidence: Evidence) -> dict[str, int]:
    """What was looked at. The names are words: the report shows them."""
    history, live = evidence.history, evidence.live
    results = [write.result for write in history.writes]
    promised = {promise.content.id: promise for promise in evidence.promises}
    unknown = [
        content.id
        for write in history.writes
        if write.result is Result.UNKNOWN
        for content in write.contents
        if content.id not in promised
    ]
    gone = [id_ for id_ in promised if id_ not in live]
    seen_at_tail = _first_seen_s(evidence)
    there = {promise.place for promise in evidence.promises if promise.place in evidence.at}
    return {
        "appends": len(results),
        "appends_acknowledged": results.count(Result.OK),
        "appends_refused": results.count(Result.FAILED),
        "appends_without_an_answer": results.count(Result.UNKNOWN),
        "events_sent": len(evidence.sent),
        **{
            f"events_acknowledged_by_{_WHO[ack]}": len(
                {p.content.id for p in evidence.promises if p.ack is ack}
            )
            for ack in Ack
        },
        "events_in_the_log": sum(id_ in live for id_ in evidence.sent),
        "events_without_an_answer_in_the_log": sum(id_ in live for id_ in set(unknown)),
        "events_in_the_ledger": sum(id_ in evidence.ledger for id_ in gone),
        "events_on_a_dead_branch": sum(
            id_ in evidence.stranded and id_ not in evidence.ledger for id_ in gone
        ),
        "reads": sum(read.result is Result.OK for read in history.reads),
        "reads_failed": sum(read.result is not Result.OK for read in history.reads),
        "pages_followed": len(history.followed),
        "events_not_timed_to_the_tail": sum(where not in seen_at_tail for where in there),
    }


_WHO: Final = {Ack.HEAD: "the_head", Ack.REGION: "another_region", Ack.CHAIN: "the_chain"}


def _first_seen_s(evidence: Evidence) -> dict[tuple[int, int], float]:
    """When each place was first shown at the tail."""
    first: dict[tuple[int, int], float] = {}
    for page in evidence.history.followed:
        if page.tail:
            for event in page.seen:
                first[place(event)] = min(page.at_s, first.get(place(event), page.at_s))
    return first


def _stable(evidence: Evidence) -> dict[str, float]:
    first_seen_s = _first_seen_s(evidence)
    took = sorted(
        max(0.0, first_seen_s[where] - known_at_s)
        for where, known_at_s in evidence.known_at_s.items()
        if where in first_seen_s
    )
    shares = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "max": 1.0}
    return {name: value for name, share in shares.items() if (value := quantile(took, share)) is not None}
