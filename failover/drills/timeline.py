"""What the chain did during a drill, by its own books: decisions and judgements, as lines of the timeline."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final

from chain.decisions import (
    EpochGranted,
    JoinFinished,
    NodeDetached,
    ReignBegan,
    RunFinished,
    RunStarted,
    StepFinished,
)
from chain.registry import Noted, Recorded
from failover.drills.history import History
from failover.drills.record import Entry, Moment, Recovery
from failover.words import sentence

_DETECTS: Final = ("head-lost", "head-waiting", "head-unproven", "middle-lost", "tail-lost", "follower-lost")
_FENCES: Final = ("fence-others",)
_TALK: Final = (RunFinished, NodeDetached, JoinFinished, EpochGranted)


def entries(decisions: Sequence[Recorded], notes: Sequence[Noted], began: float) -> list[Entry]:
    """`began` is when the drill did, by the monotonic clock; the registry's server runs on this machine."""
    offset = time.monotonic() - time.time() - began

    def at(when: datetime) -> float:
        return when.timestamp() + offset

    found: list[Entry] = []
    for recorded in decisions:
        kind = _kind(recorded)
        if kind is not None:
            found.append(Entry(at(recorded.at), kind, f"{sentence(recorded.decision)} ({recorded.by})"))
    for note in notes:
        rule = str(note.what["rule"])
        kind = Moment.DETECTED if rule.startswith(_DETECTS) else Moment.NOTE
        found.append(Entry(at(note.at), kind, f"{note.what['by']}: {note.what['sentence']}"))
    return sorted((entry for entry in found if entry.at_s >= 0), key=lambda entry: entry.at_s)


def _kind(recorded: Recorded) -> Moment | None:
    match recorded.decision:
        case RunStarted():
            return Moment.DECIDED
        case StepFinished(step=step) if step in _FENCES:
            return Moment.FENCED
        case ReignBegan():
            return Moment.PROMOTED
    return Moment.NOTE if isinstance(recorded.decision, _TALK) else None


Span = tuple[float, float]


def longest_pause(
    history: History, began: float, first_s: float, last_s: float
) -> tuple[float, float] | None:
    """The longest time without an acknowledged write, from the first fault on; None if none ever came again.

    In seconds since the drill began. A pause that has no end is not one that can be measured.
    """
    times = sorted(
        write.completed_s - began
        for write in history.writes
        if write.acknowledged and write.completed_s is not None
    )
    inside = [t for t in times if first_s <= t]
    if not inside:
        return None
    ends = [t for t in inside if t <= last_s] or inside[:1]
    return max(zip([first_s, *ends], ends, strict=False), key=lambda pause: pause[1] - pause[0])


def recovery(
    timeline: Iterable[Entry],
    pause: Span | None,
    first_s: float,
    healthy_s: float | None,
    *,
    target_s: float | None,
    healthy_target_s: float | None,
) -> Recovery:
    """How long writes were out, with its parts if a head was replaced meanwhile, and until all was well."""
    healthy_actual_s = None if healthy_s is None else healthy_s - first_s
    if pause is None:
        return Recovery(target_s, None, healthy_target_s=healthy_target_s, healthy_actual_s=healthy_actual_s)
    start, stop = pause
    parts: dict[Moment, float] = {}
    steps = (Moment.DETECTED, Moment.DECIDED, Moment.FENCED, Moment.PROMOTED)
    reached = start
    for moment in steps:
        at = next((e.at_s for e in timeline if e.kind is moment and reached <= e.at_s <= stop), None)
        if at is not None:
            parts[moment], reached = at - reached, at
    replaced = Moment.PROMOTED in parts
    detect_s, decide_s, fence_s, promote_s = (parts.get(m) if replaced else None for m in steps)
    return Recovery(
        target_s,
        stop - start,
        detect_s,
        decide_s,
        fence_s,
        promote_s,
        first_write_s=stop - reached if replaced else None,
        healthy_s=None if healthy_s is None else max(0.0, healthy_s - stop),
        healthy_target_s=healthy_target_s,
        healthy_actual_s=healthy_actual_s,
    )
