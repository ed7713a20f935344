"""Records of drills as they could have been, for what is done with records."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random

from failover.drills.record import (
    ActiveFault,
    ChainState,
    CheckResult,
    DrillRecord,
    Entry,
    FindingText,
    Loss,
    Moment,
    Outcome,
    Phase,
    ProbeResult,
    Recovery,
    Rollback,
    Sample,
    VerifierResult,
    Versions,
)

BEGUN = datetime(2026, 11, 24, 9, 30, tzinfo=UTC)
REGIONS = {"east-1": "east", "west-1": "west", "east-2": "east"}
FAULT_S, BACK_S, WELL_S, END_S = 6.02, 9.61, 24.8, 31.0


def held(seed: int = 4711) -> DrillRecord:
    """The head is killed under load, and everything goes well."""
    random = Random(seed)
    return DrillRecord(
        name="head-loss-under-load",
        title="The head is killed under load; the chain replaces it, and nothing acknowledged is lost.",
        text_hash="9f2c4be0a7d1558a93b1d9e6cd5f0c1e7a4b2f60d8893c1b5a6e7f8091a2b3c4",
        versions=Versions("0.1.0", "3.11.7", dict.fromkeys(REGIONS, "18.6"), "Linux-6.18-x86_64"),
        seed=seed,
        command=f"chainctl drill run head-loss-under-load --seed {seed}",
        started_at=BEGUN,
        ended_at=BEGUN + timedelta(seconds=END_S),
        outcome=Outcome.HELD,
        chain="a local chain",
        text="name: head-loss-under-load\nquick: true\nmethod:\n  - {fault: kill-node, target: head}\n",
        workload="6 writers at 200 appends/s together (ack head, region, chain), 2 readers at 40 reads/s",
        hypothesis=hypothesis(),
        timeline=timeline(),
        faults=(ActiveFault("kill-node", "east-1", FAULT_S, 14.2, "SIGKILL to server and daemon"),),
        samples=samples(random),
        recovery=Recovery(
            5.0, BACK_S - FAULT_S, 2.31, 0.06, 0.42, 0.31, 0.49, WELL_S - BACK_S, 40.0, WELL_S - FAULT_S
        ),
        loss=Loss(0, {"head": 0, "region": 0, "chain": 0}, 3, None, 0, 0),
        before=ChainState(("east-1", "west-1", "east-2"), REGIONS, 1, dict.fromkeys(REGIONS, "1204@1")),
        after=ChainState(("west-1", "east-2", "east-1"), REGIONS, 2, dict.fromkeys(REGIONS, "8311@2")),
        checker=CheckResult((), counts(), {"p50": 0.0041, "p95": 0.0163, "p99": 0.0874, "max": 3.9}),
        verifier=VerifierResult("OK", "west-1 → east-2: equal; east-2 → east-1: equal", 8311),
        rollbacks=(
            Rollback("undo kill-node", True, 1.94),
            Rollback("start everything that does not run", True, 0.21),
        ),
    )


def deviated() -> DrillRecord:
    """Writes took too long to come back, and an event was lost."""
    good = held()
    finding = FindingText(
        "lost",
        "drill-4711-8c1f/writer-2/118, acknowledged by another region at 2113@1, is nowhere",
        (
            "5.981 s: writer-2 adds 1 to drill-4711-8c1f/writer-2 (revision 117, ack region); 5.995 s: ok:"
            " positions 2113–2113@1, revision 118",
            "drill-4711-8c1f/shared-0/87 at 2113@2",
        ),
    )
    assert good.checker is not None
    assert good.recovery is not None
    slow = (
        replace(p, ok=False, value="8.12 s") if p.probe == "recovered-in-time" else p for p in good.hypothesis
    )
    return replace(
        good,
        outcome=Outcome.DEVIATED,
        hypothesis=tuple(slow),
        recovery=replace(good.recovery, actual_s=8.12, fence_s=4.95),
        loss=Loss(0, {"head": 0, "region": 1, "chain": 0}, 3, 0, 0, 0),
        checker=replace(good.checker, findings=(finding,)),
        verifier=VerifierResult(
            "DIFF", "west-1 → east-2: 1 event differs", 2112, ("position 2113: altered data",)
        ),
    )


def failed() -> DrillRecord:
    """A step of the drill itself failed, and a rollback, too."""
    good = held()
    return replace(
        good,
        outcome=Outcome.FAILED,
        faults=(replace(good.faults[0], to_s=None),),
        rollbacks=(Rollback("undo kill-node", False, 30.0, "TimedOut: east-1 did not start within 30 s"),),
        errors=("the method failed: until chain-whole: not within 40 s", "east-1 does not start"),
        recovery=Recovery(5.0, None),
        after=None,
        checker=None,
        loss=None,
        verifier=VerifierResult("UNKNOWN", "east-1 does not answer"),
    )


def interrupted() -> DrillRecord:
    """A person ended it in the middle."""
    good = held()
    return replace(
        good,
        outcome=Outcome.INTERRUPTED,
        errors=("interrupted",),
        hypothesis=tuple(p for p in good.hypothesis if p.phase is not Phase.AFTER),
        recovery=None,
        checker=replace(CheckResult((), counts()), incomplete="could not be read, and may hold more: east-1"),
    )


def not_run() -> DrillRecord:
    """The chain was not whole to begin with."""
    good = held()
    before = (
        ProbeResult(Phase.BEFORE, "chain-whole", "3 members", "east-2 does not answer", False, 30.1, 140),
    )
    empty = DrillRecord(
        good.name, good.title, good.text_hash, good.versions, 1, good.command, BEGUN, BEGUN, Outcome.NOT_RUN
    )
    return replace(empty, hypothesis=before, before=good.before)


def every_outcome() -> tuple[DrillRecord, ...]:
    return (held(), deviated(), failed(), interrupted(), not_run())


def runs(count: int) -> tuple[DrillRecord, ...]:
    """The same drill, week after week."""
    random = Random(7)
    found = []
    for week in range(count):
        record = deviated() if week == 3 else not_run() if week == 5 else held(week)
        begun = BEGUN + timedelta(days=7 * week)
        record = replace(
            record, started_at=begun, ended_at=begun + timedelta(seconds=28 + 6 * random.random())
        )
        if record.recovery is not None and record.outcome is Outcome.HELD:
            took = 3 + 1.5 * random.random()
            record = replace(
                record, recovery=replace(record.recovery, actual_s=took, healthy_actual_s=took + 15)
            )
        found.append(replace(record, text_hash=("b" if week < 2 else "c") * 64))
    return tuple(found)


def hypothesis() -> tuple[ProbeResult, ...]:
    before, during, after = Phase.BEFORE, Phase.DURING, Phase.AFTER
    return (
        ProbeResult(before, "chain-whole", "all members in place", "east-1 → west-1 → east-2", True, 1.1, 2),
        ProbeResult(before, "writes-flow", "within 1 s", "acknowledged 8 ms ago", True, 1.1, 2),
        ProbeResult(during, "one-writable-head", "at most one", "1: west-1", True, 23.9, 54),
        ProbeResult(during, "reads-served", "within 2 s", "no answer within 2 s", None, 8.2, 6),
        ProbeResult(after, "chain-whole", "all members in place", "west-1 → east-2 → east-1", True, 24.8, 31),
        ProbeResult(after, "writes-flow", "within 1 s", "acknowledged 6 ms ago", True, 24.8, 31),
        ProbeResult(after, "head-is", "other than east-1", "west-1", True, 24.8, 31),
        ProbeResult(after, "recovered-in-time", "within 5 s", "3.59 s", True, 30.2),
        ProbeResult(after, "verified", "OK", "OK", True, 30.2),
    )


def timeline() -> tuple[Entry, ...]:
    return (
        Entry(2.0, Moment.NOTE, "the workload runs: 6 writers, 2 readers"),
        Entry(FAULT_S, Moment.FAULT, "kill-node: east-1's server and daemon are killed"),
        Entry(
            8.33,
            Moment.DETECTED,
            "one: the head east-1 is lost: its lease ran out and no neighbour reaches it",
        ),
        Entry(8.39, Moment.DECIDED, "failover begins: node west-1 (controller one)"),
        Entry(8.81, Moment.FENCED, "fence-others done: west-1 east-2"),
        Entry(9.12, Moment.PROMOTED, "epoch 2 begins at position 2,113"),
        Entry(BACK_S, Moment.FIRST_WRITE, "writes are acknowledged again, after 3.59 s"),
        Entry(14.2, Moment.UNDONE, "kill-node: east-1 is started again"),
        Entry(15.1, Moment.OPERATOR, "chainctl rejoin east-1"),
        Entry(WELL_S, Moment.HEALTHY, "all is in its place, and the hypothesis holds"),
    )


def samples(random: Random) -> tuple[Sample, ...]:
    found = []
    for n in range(1, int(END_S / 0.5) + 1):
        at_s = n * 0.5
        out = FAULT_S < at_s < BACK_S
        rate = 0.0 if out else 185 + 20 * random.random()
        lag: dict[str, int | None] = {"west-1": random.randint(0, 4), "east-2": random.randint(0, 9)}
        if at_s < FAULT_S or at_s > 16:
            lag["east-1"] = random.randint(0, 6) if at_s > 20 or at_s < FAULT_S else int((20 - at_s) * 180)
        else:
            lag["east-1"] = None
        p50 = None if out else 0.004 + 0.002 * random.random()
        p99 = None if out else 0.012 + 0.02 * random.random() + (0.2 if BACK_S < at_s < 11 else 0)
        found.append(Sample(at_s, rate, 6.0 if 8 < at_s < 9.5 else 0.0, lag, p50, p99))
    return tuple(found)


def counts() -> dict[str, int]:
    return {
        "appends": 4871,
        "appends_acknowledged": 4802,
        "appends_refused": 41,
        "appends_without_an_answer": 28,
        "events_sent": 9704,
        "events_in_the_log": 9641,
        "events_in_the_ledger": 3,
        "reads": 1104,
        "pages_followed": 812,
    }
