"""What differs between two logs, event by event: a pure comparison."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from chain.event import Event, Position


class Kind(Enum):
    """How two logs differ at a position."""

    MISSING = "missing"
    """The source has an event there, the target none."""
    EXTRA = "extra"
    """The target has an event there, the source none."""
    ALTERED = "altered"
    """The same event, but not all of its columns are equal."""
    OTHER_EPOCH = "other epoch"
    """The same event, written in another epoch."""
    SWAPPED = "swapped"
    """What stands here on the one stands elsewhere on the other, and the other way round."""
    MOVED = "moved"
    """The source's event stands at another position on the target."""
    REPLACED = "replaced"
    """Another event stands there."""
    DOUBLE = "double"
    """More than one event stands there."""
    STRAY = "stray"
    """A row outside of the log: before its first position, or beyond the node's tip."""
    REWRITTEN = "rewritten"
    """Somewhere from here to the end of the segment: equal on both, and not what was agreed on earlier."""


COLUMNS: Final = ("epoch", "stream", "revision", "id", "type", "data", "metadata", "recorded_at")


@dataclass(frozen=True, slots=True)
class Finding:
    """A position at which two logs differ, with what stands there on both."""

    position: Position
    kind: Kind
    columns: tuple[str, ...] = ()
    """Those that differ, if it is the same event."""
    source: Event | None = None
    target: Event | None = None
    node: str = ""
    """Of a stray and of what was rewritten: where it is."""

    def __str__(self) -> str:
        where = f" on {self.node}" if self.node else ""
        return f"{self.position} {self.kind.value}{where}" + (
            f" ({', '.join(self.columns)})" if self.columns else ""
        )


def compare(
    source: Sequence[Event], target: Sequence[Event], positions: Iterable[Position]
) -> tuple[Finding, ...]:
    """What differs at these positions, between what two nodes hold there. Empty if nothing does."""
    ours, theirs = _by_position(source), _by_position(target)
    findings = tuple(
        finding
        for position in positions
        if (finding := _at(position, ours.get(position, ()), theirs.get(position, ()))) is not None
    )
    return tuple(_placed(finding, findings) for finding in findings)


def _by_position(events: Sequence[Event]) -> Mapping[Position, Sequence[Event]]:
    found: dict[Position, list[Event]] = {}
    for event in events:
        found.setdefault(event.position, []).append(event)
    return found


def _at(position: Position, ours: Sequence[Event], theirs: Sequence[Event]) -> Finding | None:
    source, target = next(iter(ours), None), next(iter(theirs), None)
    if len(ours) > 1 or len(theirs) > 1:
        return Finding(position, Kind.DOUBLE, (), source, target)
    if source == target:
        return None
    if source is None or target is None:
        return Finding(position, Kind.EXTRA if source is None else Kind.MISSING, (), source, target)
    columns = tuple(name for name in COLUMNS if getattr(source, name) != getattr(target, name))
    if columns == ("epoch",):
        return Finding(position, Kind.OTHER_EPOCH, columns, source, target)
    if source.id == target.id or columns == ("id",):
        return Finding(position, Kind.ALTERED, columns, source, target)
    return Finding(position, Kind.REPLACED, columns, source, target)


def _placed(finding: Finding, findings: Sequence[Finding]) -> Finding:
    """A finding of another event, if that event is among those that stand elsewhere."""
    source, target = finding.source, finding.target
    if finding.kind is not Kind.REPLACED or source is None or target is None:
        return finding
    elsewhere = {f.target.id: f for f in findings if f.target is not None}
    there = elsewhere.get(source.id)
    if there is None:
        return finding
    back = there.source is not None and there.source.id == target.id
    return Finding(finding.position, Kind.SWAPPED if back else Kind.MOVED, finding.columns, source, target)


def as_json(finding: Finding) -> dict[str, Any]:
    """With both values; bytes as text where they are UTF-8, else in hexadecimal digits."""
    return {
        "position": finding.position,
        "kind": finding.kind.value,
        "columns": list(finding.columns),
        "node": finding.node,
        "source": finding.source and _values(finding.source),
        "target": finding.target and _values(finding.target),
    }


def _values(event: Event) -> dict[str, Any]:
    return {
        "epoch": event.epoch,
        "stream": event.stream,
        "revision": event.revision,
        "id": str(event.id),
        "type": event.type,
        "data": _text(event.data),
        "metadata": _text(event.metadata),
        "recorded_at": event.recorded_at.isoformat(),
    }


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return f"0x{data.hex()}"
