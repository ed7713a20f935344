"""The record of a drill: everything that is known when it has ended, however it ended.

A value, written as JSON beside the drill's report and read again for trends. Times named `…_s` are seconds
since the drill began, by the monotonic clock of the machine that ran it, unless the name says a duration.
`None` always means that something was not measured or did not happen: it is never to be read as 0.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from math import isfinite
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from chain.errors import BadFile

VERSION: Final = 1
"""Of the file's format. It grows when a reader of the old format would misread the new one."""
MAX_BYTES: Final = 64 * 1024 * 1024


class Outcome(Enum):
    """How a drill ended."""

    HELD = "held"
    """Every probe held before, during and after, and every target was met."""
    DEVIATED = "deviated"
    """The drill ran to its end; a probe did not hold, a target was missed, or the checker found something."""
    FAILED = "failed"
    """The drill itself could not be carried through: a step or a rollback failed. It proves nothing."""
    INTERRUPTED = "interrupted"
    """A person or a stop condition ended it early; its rollbacks were run."""
    NOT_RUN = "not run"
    """The hypothesis did not hold beforehand, or a guard refused; no fault was injected."""


class Phase(Enum):
    """When a probe was taken."""

    BEFORE = "before"
    """Before the first fault: if it does not hold, the drill is not run."""
    DURING = "during"
    """While faults are active."""
    AFTER = "after"
    """After the last fault was undone and the rollbacks were run."""


class Moment(Enum):
    """What kind of thing happened at a time."""

    FAULT = "fault"
    """A fault became active."""
    UNDONE = "undone"
    """A fault was taken back."""
    DETECTED = "detected"
    """The controller's diagnosis named what is wrong."""
    DECIDED = "decided"
    """A rule fired, or an operator gave the command: a run began."""
    FENCED = "fenced"
    """The old head was fenced, or its lease had surely run out."""
    PROMOTED = "promoted"
    """A node began its reign as head."""
    FIRST_WRITE = "first write"
    """The first write was acknowledged since the fault interrupted them."""
    HEALTHY = "healthy"
    """Every node is in its place again, and the hypothesis holds."""
    OPERATOR = "operator"
    """The drill did what an operator would do."""
    NOTE = "note"
    """Anything else that a reader should know."""


@dataclass(frozen=True, slots=True)
class Versions:
    """What took part."""

    geochain: str
    python: str
    postgres: Mapping[str, str]
    """Of each node, as its server says it."""
    platform: str = ""


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """One look at one probe of the hypothesis."""

    phase: Phase
    probe: str
    tolerance: str
    """What it may be, as written in the drill."""
    value: str
    """What it was, with its unit."""
    ok: bool | None
    """None if it could not be found out: never counted as held."""
    at_s: float
    takes: int = 1
    """How many looks this stands for: a probe taken again and again is recorded as its worst and latest."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of the timeline."""

    at_s: float
    kind: Moment
    text: str


@dataclass(frozen=True, slots=True)
class ActiveFault:
    """A fault, and how long it was active."""

    kind: str
    target: str
    from_s: float
    to_s: float | None
    """None if it was never undone, which a drill that ended well does not leave."""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Sample:
    """What was measured over the interval that ends at `at_s`."""

    at_s: float
    acknowledged_per_s: float
    failed_per_s: float
    lag_events: Mapping[str, int | None]
    """Of each node behind the head, in events; None while it is not known."""
    latency_p50_s: float | None = None
    """Of the writes acknowledged in the interval; None if there were none."""
    latency_p99_s: float | None = None


@dataclass(frozen=True, slots=True)
class Recovery:
    """How long writes were out, and how long until all was well, counted from the first fault.

    The parts are durations, each from the end of the one before it; None where there was no such part.
    """

    target_s: float | None
    """At most this long until writes are acknowledged again."""
    actual_s: float | None
    """From the fault to the first write acknowledged after it; None if there was none."""
    detect_s: float | None = None
    decide_s: float | None = None
    fence_s: float | None = None
    promote_s: float | None = None
    first_write_s: float | None = None
    healthy_s: float | None = None
    """From the first write to all nodes in their places and the hypothesis holding."""
    healthy_target_s: float | None = None
    """At most this long from the fault until all is well."""
    healthy_actual_s: float | None = None
    """From the fault until all is well; None if it never was."""

    @property
    def met(self) -> bool | None:
        """Whether both targets were met; None if there are none."""
        pairs = ((self.target_s, self.actual_s), (self.healthy_target_s, self.healthy_actual_s))
        judged = [actual is not None and actual <= target for target, actual in pairs if target is not None]
        return all(judged) if judged else None


@dataclass(frozen=True, slots=True)
class Loss:
    """What became of acknowledged events, in events."""

    target_lost: int | None
    """At most so many acknowledged events neither in the log nor in the ledger; usually 0."""
    lost: Mapping[str, int] | None
    """Of acknowledged events, by ack level (`head`, `region`, `chain`); None if it was not checked."""
    in_ledger: int | None = None
    """Acknowledged by a lost head alone, taken out of the log by the failover, kept in the ledger."""
    target_in_ledger: int | None = None
    duplicated: int | None = None
    reordered: int | None = None

    @property
    def total_lost(self) -> int | None:
        return None if self.lost is None else sum(self.lost.values())

    @property
    def met(self) -> bool | None:
        """Whether the targets were met; None if there are none. What was not checked is not met."""
        pairs = ((self.target_lost, self.total_lost), (self.target_in_ledger, self.in_ledger))
        judged = [actual is not None and actual <= target for target, actual in pairs if target is not None]
        return all(judged) if judged else None


@dataclass(frozen=True, slots=True)
class ChainState:
    """The chain at a time: who is in it, in which order and epoch, and how far each node's log goes."""

    order: tuple[str, ...]
    """Head first, tail last."""
    regions: Mapping[str, str]
    epoch: int
    tips: Mapping[str, str]
    """Of each node that answered, as position@epoch."""
    detached: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FindingText:
    """A finding of the checker, as text."""

    kind: str
    text: str
    proof: tuple[str, ...] = ()
    """The calls and answers that prove it, a line each."""


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What the checker found in the history of the workload and the final logs."""

    findings: tuple[FindingText, ...]
    counts: Mapping[str, int]
    """What was looked at, and how it ended: attempted, acknowledged, failed, unknown, …"""
    stable_s: Mapping[str, float] = field(default_factory=dict)
    """Quantiles (`p50`, `p95`, `p99`, `max`) of the time from acknowledged to seen at the tail."""
    left_out: int = 0
    """Findings beyond those listed."""
    incomplete: str = ""
    """Why it could not check all; then no findings means nothing."""

    @property
    def ok(self) -> bool | None:
        """None if nothing was found, but not all could be checked."""
        if self.findings or self.left_out:
            return False
        return None if self.incomplete else True


@dataclass(frozen=True, slots=True)
class VerifierResult:
    """What the out-of-band verification of the nodes said after the drill."""

    result: str
    """`OK`, `DIFF` or `UNKNOWN`."""
    text: str
    verified_up_to: int | None = None
    differences: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Rollback:
    """A rollback that was run. Each is run, whatever becomes of the others."""

    action: str
    ok: bool
    duration_s: float
    error: str = ""


@dataclass(frozen=True, slots=True)
class ScorePart:
    """A part of the score, and why it is as it is."""

    name: str
    points: float
    of: float
    why: str


@dataclass(frozen=True, slots=True)
class Score:
    """0 to 100. docs/drills.md says how it is made; `failover.drills.score` makes it."""

    points: int
    parts: tuple[ScorePart, ...]


@dataclass(frozen=True, slots=True)
class DrillRecord:
    """A finished, failed or interrupted drill."""

    name: str
    title: str
    text_hash: str
    """SHA-256 of the drill's text, in hexadecimal: equal hashes are the same drill."""
    versions: Versions
    seed: int
    command: str
    """Runs the same drill with the same seed again."""
    started_at: datetime
    ended_at: datetime
    outcome: Outcome
    summary: tuple[str, ...] = ()
    """Up to five lines for a reader in a hurry; the report makes them itself if there are none."""
    chain: str = ""
    text: str = ""
    """The drill as it was run."""
    workload: str = ""
    """What the writers and readers did, in a line."""
    score: Score | None = None
    hypothesis: tuple[ProbeResult, ...] = ()
    timeline: tuple[Entry, ...] = ()
    faults: tuple[ActiveFault, ...] = ()
    samples: tuple[Sample, ...] = ()
    recovery: Recovery | None = None
    loss: Loss | None = None
    before: ChainState | None = None
    after: ChainState | None = None
    checker: CheckResult | None = None
    verifier: VerifierResult | None = None
    rollbacks: tuple[Rollback, ...] = ()
    errors: tuple[str, ...] = ()
    """What went wrong with the drill itself, or why it was interrupted or not run."""

    @property
    def duration_s(self) -> float:
        return (self.ended_at - self.started_at).total_seconds()

    def probes(self, phase: Phase) -> tuple[ProbeResult, ...]:
        return tuple(probe for probe in self.hypothesis if probe.phase is phase)


_RECORD: Final = TypeAdapter(DrillRecord)


def to_json(record: DrillRecord) -> str:
    """The record as a JSON document, which `from_json` reads back to an equal record.

    A number that is not finite is written as not known.
    """
    content = {"version": VERSION, **_finite(_RECORD.dump_python(record, mode="json", round_trip=True))}
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    return [_finite(each) for each in value] if isinstance(value, list) else value


def from_json(text: str, where: str) -> DrillRecord:
    """The record in `text`, which came from `where`. Raises BadFile."""
    hint = "give a file that chainctl drill run has written"
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadFile(f"{where}: not JSON: {error}", hint=hint) from error
    version = content.get("version") if isinstance(content, dict) else None
    if type(version) is not int:
        raise BadFile(f"{where}: no record of a drill: it has no version", hint=hint)
    if version != VERSION:
        raise BadFile(
            f"{where}: a record of version {version}; this geochain reads version {VERSION}",
            hint="use the geochain that wrote it, or run the drill again",
        )
    try:
        return _RECORD.validate_python({key: content[key] for key in content if key != "version"})
    except ValidationError as error:
        first = error.errors()[0]
        at = ".".join(map(str, first["loc"])) or "the whole"
        raise BadFile(f"{where}: {at}: {first['msg']}", hint=hint) from error


def read_record(path: Path) -> DrillRecord:
    """The record in a file. Raises BadFile."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise BadFile(f"{path}: more than {MAX_BYTES:,} bytes", hint="give a record of a drill")
        return from_json(data.decode(), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise BadFile(f"{path}: can't be read: {error}", hint="give a record of a drill") from error
