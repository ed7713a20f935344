"""What the report of a drill shows, made ready for its template: pure, from the record alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from failover.drills.record import DrillRecord, Phase, ProbeResult
from failover.drills.report.measures import measures
from failover.drills.report.pictures import chain_picture, recovery_bars
from failover.drills.report.story import story
from failover.drills.report.summary import summarised
from failover.drills.report.words import MARKS, SENTENCES
from failover.drills.score import scored


@dataclass(frozen=True, slots=True)
class Probed:
    """A probe with its looks, by phase."""

    probe: str
    tolerance: str
    looks: Mapping[Phase, Sequence[ProbeResult]]


def content(record: DrillRecord) -> dict[str, Any]:
    """What the template is given."""
    score = record.score or scored(record)
    return {
        "record": record,
        "score": score,
        "mark": MARKS[record.outcome],
        "sentence": SENTENCES[record.outcome],
        "summary": summarised(record),
        "measures": measures(record),
        "story": story(record),
        "recovery_bars": recovery_bars(record.recovery) if record.recovery else "",
        "hypothesis": probed(record.hypothesis),
        "phases": tuple(Phase),
        "before": chain_picture(record.before, "The chain before") if record.before else "",
        "after": chain_picture(record.after, "The chain after") if record.after else "",
    }


def probed(results: Sequence[ProbeResult]) -> tuple[Probed, ...]:
    """The probes in the order of their first look."""
    found: dict[tuple[str, str], dict[Phase, list[ProbeResult]]] = {}
    for result in results:
        looks = found.setdefault((result.probe, result.tolerance), {})
        looks.setdefault(result.phase, []).append(result)
    return tuple(Probed(probe, tolerance, looks) for (probe, tolerance), looks in found.items())
