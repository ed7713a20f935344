"""The score of a drill: 0 to 100, in parts that say why.

A part that a drill does not ask for (no target, no probe) is left out of the reckoning; one that it asks for
and that could not be found out gives nothing. Only a drill that held can have 100.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from failover.drills.record import DrillRecord, Outcome, Phase, ProbeResult, Score, ScorePart

NOTHING_LOST: Final = 40.0
VERIFIED: Final = 15.0
AFTER: Final = 15.0
DURING: Final = 10.0
RECOVERY: Final = 15.0
LEFT_IN_ORDER: Final = 5.0


def scored(record: DrillRecord) -> Score | None:
    """The score of a drill; None if it was not run, since then nothing was shown."""
    if record.outcome is Outcome.NOT_RUN:
        return None
    candidates = (
        _nothing_lost(record),
        _verified(record),
        _hypothesis("hypothesis afterwards", AFTER, record.probes(Phase.AFTER)),
        _during(record),
        _recovery(record),
        _left_in_order(record),
    )
    parts = tuple(part for part in candidates if part is not None)
    share = sum(part.points for part in parts) / sum(part.of for part in parts)
    points = int(100 * share)
    return Score(points if record.outcome is Outcome.HELD else min(points, 99), parts)


def _nothing_lost(record: DrillRecord) -> ScorePart:
    name = "nothing lost, nothing wrong"
    checker, loss = record.checker, record.loss
    if checker is None or checker.ok is None:
        why = "not checked" if checker is None else checker.incomplete
        return ScorePart(name, 0.0, NOTHING_LOST, why)
    if not checker.ok:
        found = len(checker.findings) + checker.left_out
        return ScorePart(name, 0.0, NOTHING_LOST, f"the checker found {found:,}")
    if loss is not None and loss.met is False:
        return ScorePart(name, 0.0, NOTHING_LOST, "more was lost than the target allows")
    acknowledged = checker.counts.get("appends_acknowledged")
    what = "of all" if acknowledged is None else f"of {acknowledged:,} acknowledged appends"
    return ScorePart(name, NOTHING_LOST, NOTHING_LOST, f"the checker found nothing {what}")


def _verified(record: DrillRecord) -> ScorePart:
    verifier = record.verifier
    result = "not verified" if verifier is None else verifier.result
    points = VERIFIED if result == "OK" else 0.0
    return ScorePart("content verified", points, VERIFIED, result)


def _during(record: DrillRecord) -> ScorePart | None:
    """What can't be found out in the middle of a fault is not held against the chain."""
    known = [probe for probe in record.probes(Phase.DURING) if probe.ok is not None]
    return _hypothesis("hypothesis during", DURING, known) if known else None


def _hypothesis(name: str, of: float, probes: Sequence[ProbeResult]) -> ScorePart:
    if not probes:
        return ScorePart(name, 0.0, of, "not looked at")
    held = sum(probe.ok is True for probe in probes)
    return ScorePart(name, of * held / len(probes), of, f"{held} of {len(probes)} looks held")


def _recovery(record: DrillRecord) -> ScorePart | None:
    """In full within the target; down to nothing at twice the target."""
    recovery = record.recovery
    name = "recovery time"
    if recovery is None:
        return ScorePart(name, 0.0, RECOVERY, "not measured")
    judged = [
        (what, target_s, actual_s)
        for what, target_s, actual_s in (
            ("writes", recovery.target_s, recovery.actual_s),
            ("all well", recovery.healthy_target_s, recovery.healthy_actual_s),
        )
        if target_s is not None
    ]
    if not judged:
        return None
    shares, whys = [], []
    for what, target_s, actual_s in judged:
        shares.append(_within(target_s, actual_s))
        took = "never" if actual_s is None else f"after {actual_s:.2f} s"
        whys.append(f"{what} {took}, target {target_s:g} s")
    return ScorePart(name, RECOVERY * min(shares), RECOVERY, "; ".join(whys))


def _within(target_s: float, actual_s: float | None) -> float:
    if actual_s is None:
        return 0.0
    if actual_s <= target_s:
        return 1.0
    return max(0.0, 2 - actual_s / target_s) if target_s > 0 else 0.0


def _left_in_order(record: DrillRecord) -> ScorePart:
    name = "left in order"
    failed = [rollback.action for rollback in record.rollbacks if not rollback.ok]
    active = [fault.kind for fault in record.faults if fault.to_s is None]
    if failed or active or record.errors:
        why = [
            *(f"not rolled back: {action}" for action in failed),
            *(f"still active: {kind}" for kind in active),
            *record.errors,
        ]
        return ScorePart(name, 0.0, LEFT_IN_ORDER, "; ".join(why))
    return ScorePart(name, LEFT_IN_ORDER, LEFT_IN_ORDER, "every fault was taken back, every rollback done")
