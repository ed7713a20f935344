"""The story of a drill as one picture over time: faults, what the chain did, writes, latency and lag.

All panels share the axis of time, and each fault is shaded through all of them: cause and effect stand one
above the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup

from failover.drills.record import ActiveFault, DrillRecord, Entry, Moment, Sample
from failover.drills.report import svg
from failover.drills.report.words import at, seconds

WIDTH: Final = 1080.0
LEFT: Final = 72.0
RIGHT: Final = 118.0
LANE: Final = 20.0
ROW: Final = 17.0
MAX_ROWS: Final = 6
GAP: Final = 34.0
SHOWN: Final = (
    Moment.DETECTED,
    Moment.DECIDED,
    Moment.FENCED,
    Moment.PROMOTED,
    Moment.FIRST_WRITE,
    Moment.HEALTHY,
    Moment.OPERATOR,
)
"""Faults and their end are bars; notes are only in the table."""
DASHES: Final = (None, "7 3", "2 3", "9 3 2 3", "1 2")
"""Beside colours, for print without any, and for who can't tell them apart."""

Value = Callable[[Sample], float | None]


@dataclass(frozen=True, slots=True)
class Curve:
    """One line of a panel; `style` is its class in the style sheet."""

    name: str
    style: str
    value: Value
    dash: str | None = None


@dataclass(frozen=True, slots=True)
class Panel:
    """Curves over one axis of values."""

    title: str
    height: float
    curves: Sequence[Curve]


def story(record: DrillRecord) -> Markup:
    """The picture. A drill of which nothing was measured has only its axis of time."""
    time = svg.Scale(0.0, _end_s(record), LEFT, WIDTH - RIGHT)
    parts: list[Markup] = []
    y = _lanes(record.faults, time, parts, 16.0)
    y = _moments(record.timeline, time, parts, y + 12)
    for panel in panels(record.samples):
        y = _panel(panel, record.samples, time, parts, y + GAP)
    y = _time_axis(time, parts, y + 4)
    shades = [_shade(fault, time, 16.0, y - 22) for fault in record.faults]
    return svg.picture(
        WIDTH,
        y + 8,
        "What happened, over time",
        _said(record),
        *shades,
        *parts,
    )


def panels(samples: Sequence[Sample]) -> tuple[Panel, ...]:
    """What there is to be drawn of the samples."""
    if not samples:
        return ()
    nodes = list(dict.fromkeys(node for sample in samples for node in sample.lag_events))
    writes = (
        Curve("acknowledged", "acknowledged", lambda s: s.acknowledged_per_s),
        Curve("failed", "failed", lambda s: s.failed_per_s, DASHES[1]),
    )
    latency = (
        Curve("p99", "p99", lambda s: _ms(s.latency_p99_s)),
        Curve("p50", "p50", lambda s: _ms(s.latency_p50_s), DASHES[1]),
    )
    lags = tuple(
        Curve(node, f"node{n % 5}", _lag_of(node), DASHES[n % len(DASHES)]) for n, node in enumerate(nodes)
    )
    found = [Panel("Writes, in appends/s", 118, writes)]
    if any(sample.latency_p99_s is not None for sample in samples):
        found.append(Panel("Latency of acknowledged appends, in ms", 92, latency))
    if lags:
        found.append(Panel("Lag behind the head, in events (a gap: not known)", 104, lags))
    return tuple(found)


def _lag_of(node: str) -> Value:
    return lambda sample: sample.lag_events.get(node)


def _ms(value_s: float | None) -> float | None:
    return None if value_s is None else value_s * 1000


def _end_s(record: DrillRecord) -> float:
    times = [
        *(sample.at_s for sample in record.samples),
        *(entry.at_s for entry in record.timeline),
        *(fault.to_s or fault.from_s for fault in record.faults),
    ]
    return max([1.0, *times]) * 1.005


# Faults, as bars.


def _lanes(faults: Iterable[ActiveFault], time: svg.Scale, parts: list[Markup], top: float) -> float:
    ends: list[float] = []
    for fault in sorted(faults, key=lambda fault: fault.from_s):
        start = time(fault.from_s)
        stop = max(start + 2, time(time.high if fault.to_s is None else fault.to_s))
        words = svg.short(f"{fault.kind}, {fault.target}", 60)
        wide = svg.width_of(words)
        label = _beside(start, stop, wide)
        lane = next((n for n, end in enumerate(ends) if end < min(start, label) - 6), len(ends))
        ends[lane : lane + 1] = [max(stop, label + wide)]
        y = top + lane * LANE
        parts.append(svg.box(start, y, stop - start, 12, class_="fault", rx=2))
        parts.append(svg.text(label, y + 10, words, class_="fault-name"))
    return top + max(1, len(ends)) * LANE


def _beside(start: float, stop: float, wide: float) -> float:
    """Where a name of this width goes: behind the bar, else before it, else into it."""
    if stop + 5 + wide < WIDTH:
        return stop + 5
    return start - 5 - wide if start - 5 - wide > 0 else start + 6


def _shade(fault: ActiveFault, time: svg.Scale, top: float, bottom: float) -> Markup:
    start = time(fault.from_s)
    stop = max(start + 2, time(time.high if fault.to_s is None else fault.to_s))
    return svg.box(start, top, stop - start, bottom - top, class_="shade")


# What the chain did, as marks with words.


def _moments(entries: Iterable[Entry], time: svg.Scale, parts: list[Markup], top: float) -> float:
    """Each mark has its words beside it in the first row with room; without room it is a mark below them."""
    ends: list[float] = []
    marks: list[tuple[float, int, str, str]] = []
    for entry in sorted(entries, key=lambda entry: entry.at_s):
        if entry.kind not in SHOWN:
            continue
        x, words = time(entry.at_s), f"{entry.kind.value} {at(entry.at_s)}"
        wide = svg.width_of(words, 11.5) + 14
        left = x + wide > WIDTH
        begin = x - wide if left else x
        row = next((n for n, end in enumerate(ends) if end < begin - 4), len(ends))
        if row >= MAX_ROWS:
            marks.append((x, MAX_ROWS, "", entry.kind.value))
            continue
        ends[row : row + 1] = [begin + wide]
        marks.append((x, row, f"←{words}" if left else words, entry.kind.value))
    bottom = top + max([1, *(row + 1 for _, row, _, _ in marks)]) * ROW
    parts += [svg.line(x, top + row * ROW + 3, x, bottom + 2, class_="leader") for x, row, _, _ in marks]
    for x, row, words, kind in marks:
        y = top + row * ROW
        style = f"moment m-{kind.replace(' ', '-')}"
        parts.append(svg.element("circle", cx=x, cy=y + 6, r=3.6, class_=style))
        if words.startswith("←"):
            parts.append(svg.text(x - 7, y + 10, words[1:], class_="moment-name", text_anchor="end"))
        elif words:
            parts.append(svg.text(x + 7, y + 10, words, class_="moment-name"))
    return bottom


# What was measured, as curves.


def _panel(
    panel: Panel, samples: Sequence[Sample], time: svg.Scale, parts: list[Markup], top: float
) -> float:
    bottom = top + panel.height
    values = [value for curve in panel.curves for s in samples if (value := curve.value(s)) is not None]
    scale = svg.Scale(0.0, svg.round_up(max([1.0, *values])), bottom, top)
    parts.append(svg.text(LEFT, top - 9, panel.title, class_="panel-title"))
    for tick in scale.ticks(4, least_step=1.0):
        y = scale(tick)
        parts.append(svg.line(LEFT, y, WIDTH - RIGHT, y, class_="grid" if tick else "axis"))
        parts.append(svg.text(LEFT - 8, y + 4, svg.tick_words(tick), class_="tick", text_anchor="end"))
    ends: list[tuple[float, Curve]] = []
    for curve in panel.curves:
        points = [_point(curve, sample, time, scale) for sample in samples]
        parts.append(
            svg.element(
                "path", d=svg.path(points), class_=f"curve {curve.style}", stroke_dasharray=curve.dash
            )
        )
        known = [point for point in points if point is not None]
        ends.append((known[-1][1] if known else bottom, curve))
    parts += _names(ends, bottom)
    return bottom


def _point(curve: Curve, sample: Sample, time: svg.Scale, scale: svg.Scale) -> tuple[float, float] | None:
    value = curve.value(sample)
    return None if value is None else (time(sample.at_s), scale(value))


def _names(ends: list[tuple[float, Curve]], bottom: float) -> list[Markup]:
    """The curves' names at their ends, each with a piece of its line, none over another."""
    found: list[Markup] = []
    lowest = bottom + 6
    for y, curve in sorted(ends, key=lambda end: -end[0]):
        lowest = min(y + 4, lowest - 14) if found else min(y + 4, lowest)
        x = WIDTH - RIGHT + 8
        style = f"curve {curve.style}"
        found.append(svg.line(x, lowest - 4, x + 22, lowest - 4, class_=style, stroke_dasharray=curve.dash))
        found.append(svg.text(x + 27, lowest, svg.short(curve.name, 13), class_="curve-name"))
    return found


def _time_axis(time: svg.Scale, parts: list[Markup], y: float) -> float:
    parts.append(svg.line(LEFT, y, WIDTH - RIGHT, y, class_="axis"))
    for tick in time.ticks(12):
        x = time(tick)
        parts.append(svg.line(x, y, x, y + 5, class_="axis"))
        parts.append(svg.text(x, y + 18, svg.tick_words(tick), class_="tick", text_anchor="middle"))
    parts.append(svg.text(WIDTH - RIGHT + 8, y + 18, "s since the start", class_="tick"))
    return y + 22


def _said(record: DrillRecord) -> str:
    """The picture in words."""
    faults = "; ".join(
        f"{f.kind} on {f.target} from {at(f.from_s)} to {'the end' if f.to_s is None else at(f.to_s)}"
        for f in record.faults
    )
    moments = "; ".join(f"{e.kind.value} at {at(e.at_s)}" for e in record.timeline if e.kind in SHOWN)
    return f"Over {seconds(_end_s(record))}. Faults: {faults or 'none'}. Then: {moments or 'nothing noted'}."
