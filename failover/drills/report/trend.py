"""How the runs of a drill compare over time: in numbers, and as one small picture a number."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup

from failover.drills.record import DrillRecord, Outcome, Score
from failover.drills.report import svg
from failover.drills.report.words import day
from failover.drills.score import scored

WIDTH: Final = 520.0
HEIGHT: Final = 168.0
LEFT: Final = 52.0
RIGHT: Final = 18.0


@dataclass(frozen=True, slots=True)
class Run:
    """A run in the comparison."""

    record: DrillRecord
    score: Score | None
    changed: bool
    """The drill's text is not that of the run before, so the two are not quite the same drill."""

    @property
    def points(self) -> float | None:
        return None if self.score is None else self.score.points

    @property
    def writes_out_s(self) -> float | None:
        return self.record.recovery.actual_s if self.record.recovery else None

    @property
    def all_well_s(self) -> float | None:
        return self.record.recovery.healthy_actual_s if self.record.recovery else None

    @property
    def lost(self) -> int | None:
        return self.record.loss.total_lost if self.record.loss else None

    @property
    def in_ledger(self) -> int | None:
        return self.record.loss.in_ledger if self.record.loss else None


@dataclass(frozen=True, slots=True)
class Trend:
    """The runs of one drill, the oldest first."""

    name: str
    title: str
    runs: tuple[Run, ...]
    pictures: tuple[Markup, ...]

    @property
    def held(self) -> int:
        return sum(run.record.outcome is Outcome.HELD for run in self.runs)


def trends(records: Iterable[DrillRecord]) -> tuple[Trend, ...]:
    """The drills by name, each with all its runs."""
    named: dict[str, list[DrillRecord]] = {}
    for record in sorted(records, key=lambda record: record.started_at):
        named.setdefault(record.name, []).append(record)
    return tuple(_trend(name, same) for name, same in sorted(named.items()))


def _trend(name: str, records: Sequence[DrillRecord]) -> Trend:
    before = (None, *records)
    runs = tuple(
        Run(record, record.score or scored(record), last is not None and last.text_hash != record.text_hash)
        for last, record in zip(before, records, strict=False)
    )
    latest = records[-1].recovery
    pictures = (
        _picture("Writes out, in s", runs, lambda r: r.writes_out_s, latest.target_s if latest else None),
        _picture(
            "Until all well, in s", runs, lambda r: r.all_well_s, latest.healthy_target_s if latest else None
        ),
        _picture("Acknowledged events lost", runs, lambda r: r.lost, least_step=1.0),
        _picture("Events gone to the ledger", runs, lambda r: r.in_ledger, least_step=1.0),
        _picture("Score, of 100", runs, lambda r: r.points, top=100.0),
        _picture("Duration of the drill, in s", runs, lambda r: r.record.duration_s),
    )
    return Trend(name, records[-1].title, runs, pictures)


def _picture(
    title: str,
    runs: Sequence[Run],
    value: Callable[[Run], float | None],
    target: float | None = None,
    *,
    top: float | None = None,
    least_step: float = 0.0,
) -> Markup:
    """A dot a run: filled if the drill held. A run without this number is a cross at the bottom."""
    values = [value(run) for run in runs]
    known = [number for number in values if number is not None]
    high = top or svg.round_up(max([1.0, *known, *([target] if target is not None else [])]))
    scale = svg.Scale(0.0, high, HEIGHT - 30, 30)
    across = svg.Scale(0.0, max(1.0, len(runs) - 1.0), LEFT + 10, WIDTH - RIGHT - 10)
    drawn = [svg.text(0, 14, title, class_="panel-title")]
    for tick in scale.ticks(4, least_step=least_step):
        y = scale(tick)
        drawn.append(svg.line(LEFT, y, WIDTH - RIGHT, y, class_="grid" if tick else "axis"))
        drawn.append(svg.text(LEFT - 8, y + 4, svg.tick_words(tick), class_="tick", text_anchor="end"))
    if target is not None:
        y = scale(target)
        drawn.append(svg.line(LEFT, y, WIDTH - RIGHT, y, class_="target"))
        words = f"target {svg.tick_words(target)} s"
        drawn.append(svg.text(WIDTH - RIGHT, y - 5, words, class_="target-name", text_anchor="end"))
    xs = [across(n if len(runs) > 1 else 0.5) for n in range(len(runs))]
    points = [None if v is None else (x, scale(v)) for x, v in zip(xs, values, strict=True)]
    drawn.append(svg.element("path", d=svg.path(points), class_="trend"))
    drawn += [_mark(x, run, point) for x, run, point in zip(xs, runs, points, strict=True)]
    drawn += _dates(runs, xs)
    told = ", ".join("not known" if v is None else svg.tick_words(v) for v in values)
    return svg.picture(WIDTH, HEIGHT, title, f"By run, the oldest first: {told}", *drawn)


def _mark(x: float, run: Run, point: tuple[float, float] | None) -> Markup:
    said = svg.element("title", f"{day(run.record.started_at)} UTC, {run.record.outcome.value}")
    if point is None:
        y = HEIGHT - 30
        strokes = ([(x - 4, y - 4), (x + 4, y + 4)], [(x - 4, y + 4), (x + 4, y - 4)])
        return svg.element("path", said, d="".join(map(svg.path, strokes)), class_="dot bad")
    held = run.record.outcome is Outcome.HELD
    return svg.element("circle", said, cx=x, cy=point[1], r=4.2, class_="dot" if held else "dot bad")


def _dates(runs: Sequence[Run], xs: Sequence[float]) -> list[Markup]:
    first = svg.text(xs[0] - 10, HEIGHT - 10, day(runs[0].record.started_at), class_="tick")
    if len(runs) == 1:
        return [first]
    last = svg.text(
        xs[-1] + 10, HEIGHT - 10, day(runs[-1].record.started_at), class_="tick", text_anchor="end"
    )
    return [first, last]
