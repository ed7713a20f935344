"""A drill in five lines, for a reader in a hurry."""

from __future__ import annotations

from failover.drills.record import ChainState, CheckResult, DrillRecord, Loss, Outcome, ProbeResult, Recovery
from failover.drills.report.measures import Verdict, measures
from failover.drills.report.words import count, events, goal, seconds


def summarised(record: DrillRecord) -> tuple[str, ...]:
    """What was done, what came of it, what was lost, what the chain is now."""
    if record.summary:
        return record.summary
    if record.outcome is Outcome.NOT_RUN:
        return (_outcome(record),)
    return (_outcome(record), _done(record), _writes(record.recovery), _loss(record), _chain(record))


def _outcome(record: DrillRecord) -> str:
    """What was missed, by name, or that nothing was."""
    found = measures(record)
    missed = [m.name[0].lower() + m.name[1:] for m in found if m.verdict is Verdict.MISSED]
    unknown = sum(m.verdict is Verdict.UNKNOWN for m in found)
    met = sum(m.verdict is Verdict.MET for m in found)
    words = f"Missed: {', '.join(missed)}." if missed else f"No target was missed; {met} measures met theirs."
    failing = [p for p in record.hypothesis if p.ok is False]
    if failing:
        words += f" {_probe(failing[0])}."
    if unknown and record.outcome is not Outcome.NOT_RUN:
        words += f" {unknown} could not be known."
    return words if not record.errors else f"{words} {_errors(record)}"


def _probe(probe: ProbeResult) -> str:
    return f"{probe.probe} did not hold {probe.phase.value}: {probe.value.rstrip('.')}"


def _errors(record: DrillRecord) -> str:
    first = record.errors[0].rstrip(".")
    more = f" (and {len(record.errors) - 1} more)" if len(record.errors) > 1 else ""
    return f"{first[0].upper()}{first[1:]}{more}." if first else ""


def _done(record: DrillRecord) -> str:
    if not record.faults:
        return "No fault became active."
    first = [
        f"{fault.kind} on {fault.target} from {seconds(fault.from_s)}"
        + ("" if fault.to_s is None else f" for {seconds(fault.to_s - fault.from_s)}")
        for fault in record.faults[:3]
    ]
    more = f"; and {len(record.faults) - 3} more" if len(record.faults) > 3 else ""
    return f"Faults: {'; '.join(first)}{more}."


def _writes(recovery: Recovery | None) -> str:
    if recovery is None:
        return "How long writes were out was not measured."
    target = "" if recovery.target_s is None else f" (target: at most {goal(recovery.target_s)})"
    if recovery.actual_s is None:
        return f"After the fault no write was acknowledged any more{target}."
    well = recovery.healthy_actual_s
    after = "it was never all well again" if well is None else f"all was well again after {seconds(well)}"
    return f"Writes were out for {seconds(recovery.actual_s)}{target}; {after}."


def _loss(record: DrillRecord) -> str:
    loss, checker = record.loss, record.checker
    if loss is None or loss.total_lost is None or checker is None:
        return "Whether anything was lost was not checked."
    told = checker.counts.get("appends_acknowledged")
    of = "" if told is None else f"Of {count(told)} acknowledged appends "
    lost = f"{events(loss.total_lost)} {'was' if loss.total_lost == 1 else 'were'} lost"
    words = f"{of}{lost if loss.total_lost else 'nothing was lost'}{_ledger(loss)}"
    return f"{words[0].upper()}{words[1:]}; {_found(checker)}."


def _ledger(loss: Loss) -> str:
    if not loss.in_ledger:
        return ""
    return f", {events(loss.in_ledger)} that only the lost head had went to the ledger"


def _found(checker: CheckResult) -> str:
    if checker.ok:
        return "the checker found no anomaly"
    if checker.ok is None:
        return f"the check is incomplete: {checker.incomplete}"
    found = len(checker.findings) + checker.left_out
    return f"the checker found {count(found)} anomal{'y' if found == 1 else 'ies'}"


def _chain(record: DrillRecord) -> str:
    verifier = record.verifier
    result = "Content was not verified" if verifier is None else f"Content: {verifier.result}"
    if record.before is None or record.after is None:
        return f"{result}; the chain's order was not read both before and after."
    if record.before.order == record.after.order and record.before.epoch == record.after.epoch:
        return f"The chain is as before: {_order(record.after)}. {result}."
    return f"The chain was {_order(record.before)}, and is {_order(record.after)}. {result}."


def _order(chain: ChainState) -> str:
    return f"{' → '.join(chain.order)} in epoch {chain.epoch}"
