"""Everything about a drill that has a target, with what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from failover.drills.record import CheckResult, DrillRecord, Loss, Phase, Recovery
from failover.drills.report.words import count, goal, seconds


class Verdict(Enum):
    """How a measure did against its target. The value is the word and, as a style, the colour."""

    MET = "met"
    """Within the target."""
    MISSED = "missed"
    """Not within it."""
    UNKNOWN = "not known"
    """It was not measured: never taken for met."""
    NONE = "no target"
    """Only told."""


@dataclass(frozen=True, slots=True)
class Measure:
    """A line of the table of results."""

    name: str
    target: str
    actual: str
    verdict: Verdict


def measures(record: DrillRecord) -> tuple[Measure, ...]:
    """Everything that has a target, with what came of it."""
    return (
        *_recovery(record.recovery),
        *_loss(record.loss),
        _checker(record.checker),
        _verifier(record),
        *(_phase(record, phase) for phase in Phase),
        _rollbacks(record),
    )


def _recovery(recovery: Recovery | None) -> tuple[Measure, ...]:
    if recovery is None:
        return (Measure("Writes out", "", "not measured", Verdict.UNKNOWN),)
    pairs = (
        ("Writes out", recovery.target_s, recovery.actual_s, "none came again"),
        ("Until all well", recovery.healthy_target_s, recovery.healthy_actual_s, "never"),
    )
    found = []
    for name, target_s, actual_s, never in pairs:
        actual = never if actual_s is None else seconds(actual_s)
        if target_s is None:
            found.append(Measure(name, "", actual, Verdict.NONE))
        else:
            verdict = _verdict(actual_s is not None and actual_s <= target_s)
            found.append(Measure(name, f"at most {goal(target_s)}", actual, verdict))
    return tuple(found)


def _loss(loss: Loss | None) -> tuple[Measure, ...]:
    if loss is None:
        return (Measure("Acknowledged events lost", "", "not checked", Verdict.UNKNOWN),)
    by_level = ", ".join(f"{count(lost)} of level {level}" for level, lost in (loss.lost or {}).items())
    lost = _bounded("Acknowledged events lost", loss.target_lost, loss.total_lost)
    if loss.total_lost:
        lost = Measure(lost.name, lost.target, f"{lost.actual} ({by_level})", lost.verdict)
    return (
        lost,
        _bounded("Events gone to the ledger", loss.target_in_ledger, loss.in_ledger),
        _bounded("Events duplicated", 0, loss.duplicated),
        _bounded("Events reordered", 0, loss.reordered),
    )


def _bounded(name: str, most: int | None, actual: int | None) -> Measure:
    told = "not checked" if actual is None else count(actual)
    if most is None:
        return Measure(name, "", told, Verdict.NONE if actual is not None else Verdict.UNKNOWN)
    target = f"at most {count(most)}" if most else "none"
    verdict = Verdict.UNKNOWN if actual is None else _verdict(actual <= most)
    return Measure(name, target, told, verdict)


def _checker(checker: CheckResult | None) -> Measure:
    name, target = "Anomalies found by the checker", "none"
    if checker is None:
        return Measure(name, target, "not checked", Verdict.UNKNOWN)
    found = count(len(checker.findings) + checker.left_out)
    if checker.ok is None:
        return Measure(name, target, f"{found}, incomplete", Verdict.UNKNOWN)
    return Measure(name, target, found, _verdict(checker.ok))


def _verifier(record: DrillRecord) -> Measure:
    name, verifier = "Content of all members equal", record.verifier
    if verifier is None or verifier.result == "UNKNOWN":
        return Measure(name, "OK", "not verified" if verifier is None else "UNKNOWN", Verdict.UNKNOWN)
    up_to = verifier.verified_up_to
    actual = verifier.result + ("" if up_to is None else f", to position {up_to:,}")
    return Measure(name, "OK", actual, _verdict(verifier.result == "OK"))


def _phase(record: DrillRecord, phase: Phase) -> Measure:
    name = f"Hypothesis {phase.value}"
    looks = record.probes(phase)
    if phase is Phase.DURING:  # what can't be found out in the middle of a fault is no deviation
        known = [look for look in looks if look.ok is not None]
        if looks and not known:
            return Measure(name, "all hold", "could not be found out", Verdict.UNKNOWN)
        looks = tuple(known)
    if not looks:
        return Measure(name, "", "not looked at", Verdict.NONE)
    failing = tuple(dict.fromkeys(look.probe for look in looks if look.ok is False))
    held = sum(look.ok is True for look in looks)
    unknown = any(look.ok is None for look in looks)
    verdict = Verdict.MISSED if failing else Verdict.UNKNOWN if unknown else Verdict.MET
    return Measure(name, "all hold", f"{held} of {len(looks)} held{_not_so(failing)}", verdict)


def _rollbacks(record: DrillRecord) -> Measure:
    name, done = "Everything taken back", sum(rollback.ok for rollback in record.rollbacks)
    active = tuple(fault.kind for fault in record.faults if fault.to_s is None)
    if not record.faults and not record.rollbacks:
        return Measure(name, "", "nothing to take back", Verdict.NONE)
    actual = f"{done} of {len(record.rollbacks)} done"
    if active:
        actual = f"{actual}; still active: {', '.join(active)}"
    return Measure(name, "all", actual, _verdict(done == len(record.rollbacks) and not active))


def _not_so(probes: tuple[str, ...]) -> str:
    return f"; not: {', '.join(probes)}" if probes else ""


def _verdict(met: bool) -> Verdict:
    return Verdict.MET if met else Verdict.MISSED
