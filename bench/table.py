"""The results as a table, for a terminal and for a Markdown page. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bench.series import Comparison, Goal, Series, Verdict

HEAD = ("what", "unit", "geochain", "spread", "beside", "its", "ratio", "goal", "")
_MARKS = {Verdict.MET: "met", Verdict.MISSED: "MISSED", Verdict.UNKNOWN: "unknown"}
Row = tuple[str, ...]


def rows(comparisons: Sequence[Comparison]) -> list[Row]:
    """A row for ours, with the bound on the figure; then one for each peer, with the bound on the ratio."""
    return [row for comparison in comparisons for row in _rows(comparison)]


def _rows(comparison: Comparison) -> Iterator[Row]:
    ours = comparison.ours
    own = [goal for goal in comparison.goals if not goal.beside]
    first = (comparison.name, comparison.unit, figure(ours), spread(ours), "", "", "")
    yield (*first, *_goal(comparison, own[0] if own else None))
    for peer in comparison.series[1:]:
        held = [goal for goal in comparison.goals if goal.beside == peer.name]
        ratio = comparison.ratio(peer)
        told = "" if ratio is None else f"{ratio:.2f} ×"
        line = ("", "", "", "", peer.name, figure(peer), told)
        yield (*line, *_goal(comparison, held[0] if held else None))


def _goal(comparison: Comparison, goal: Goal | None) -> tuple[str, str]:
    if goal is None:
        return "", ""
    bound = f"{comparison.sense.value} {goal.bound:.4g} ×" if goal.beside else number(goal.bound)
    text = bound if goal.beside else f"{comparison.sense.value} {bound}"
    return text, _MARKS[comparison.judge(goal)]


def figure(series: Series) -> str:
    """The median, or why there is none."""
    return f"not measured: {series.missing}" if series.missing else number(series.median)


def spread(series: Series) -> str:
    """From the least to the largest value, if there was more than one run."""
    if series.missing or len(series.values) < 2:
        return ""
    return f"{number(series.low)} – {number(series.high)}"


def number(value: float) -> str:
    """Three digits that count, or all before the point."""
    if value == 0 or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:,.3g}"


def plain(comparisons: Sequence[Comparison]) -> str:
    """Aligned columns."""
    lines = [HEAD, *rows(comparisons)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEAD))]
    text = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]
    return "\n".join([text[0], "-" * len(text[0]), *text[1:]])


def markdown(comparisons: Sequence[Comparison]) -> str:
    """A table to be pasted into docs/performance.md."""
    lines = [HEAD, tuple("---" for _ in HEAD), *rows(comparisons)]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
