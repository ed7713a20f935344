"""A comparison as a picture: a bar to each median, a line from least to largest, a dot a run. Pure."""

from __future__ import annotations

from html import escape
from typing import Final

from bench.series import Comparison, Goal, Series
from bench.table import figure, number

_WIDTH: Final = 540
_LEFT: Final = 205
_RIGHT: Final = 70
_ROW: Final = 28
_BAR: Final = 16
_AXIS: Final = 22


def plot(comparison: Comparison) -> str:
    """An SVG that needs nothing else."""
    height = _ROW * len(comparison.series) + _AXIS
    largest = _largest(comparison)
    rows = [_row(s, number, largest) for number, s in enumerate(comparison.series)]
    bounds = [_bound(goal, height, largest) for goal in comparison.goals if not goal.beside and goal.bound]
    return (
        f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape(comparison.name, quote=True)}">'
        f"{''.join(_axis(height, largest))}{''.join(rows)}{''.join(bounds)}</svg>"
    )


def _largest(comparison: Comparison) -> float:
    """What the right end stands for."""
    values = [s.high for s in comparison.series if not s.missing]
    bounds = [goal.bound for goal in comparison.goals if not goal.beside]
    # A bound far beyond all figures would leave nothing of them to be seen.
    values += [bound for bound in bounds if not values or bound <= 4 * max(values)]
    return max(values, default=1.0) or 1.0


def _x(value: float, largest: float) -> float:
    return _LEFT + (_WIDTH - _LEFT - _RIGHT) * min(1.0, value / largest)


def _row(series: Series, index: int, largest: float) -> str:
    middle = _ROW * index + _ROW / 2
    kind = "ours" if index == 0 else "peer"
    name = f'<text class="name" x="{_LEFT - 10}" y="{middle + 4}">{escape(_short(series.name))}</text>'
    if series.missing:
        told = escape(_short(figure(series), 50))
        return f'{name}<text class="missing" x="{_LEFT}" y="{middle + 4}">{told}</text>'
    to = _x(series.median, largest)
    bar = (
        f'<rect class="{kind}" x="{_LEFT}" y="{middle - _BAR / 2}"'
        f' width="{max(1.0, to - _LEFT):.1f}" height="{_BAR}" rx="2"/>'
    )
    low, high = _x(series.low, largest), _x(series.high, largest)
    spread = f'<line class="spread" x1="{low:.1f}" x2="{high:.1f}" y1="{middle}" y2="{middle}"/>'
    dots = "".join(
        f'<circle class="dot" cx="{_x(value, largest):.1f}" cy="{middle}" r="2"/>' for value in series.values
    )
    label = f'<text class="value" x="{max(to, high) + 8:.1f}" y="{middle + 4}">{number(series.median)}</text>'
    return name + bar + spread + dots + label


def _axis(height: int, largest: float) -> list[str]:
    bottom = height - _AXIS
    marks = []
    for quarter in range(5):
        x = _x(largest * quarter / 4, largest)
        marks.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{bottom}"/>')
        marks.append(
            f'<text class="tick" x="{x:.1f}" y="{height - 6}">{number(largest * quarter / 4)}</text>'
        )
    return marks


def _bound(goal: Goal, height: int, largest: float) -> str:
    if goal.bound > largest:
        return ""
    x = _x(goal.bound, largest)
    return f'<line class="goal" x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{height - _AXIS}"/>'


def _short(text: str, most: int = 30) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
