"""The results as one HTML page that needs nothing else: where and when, pictures, the table."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Final

from bench import table
from bench.plot import plot
from bench.series import Comparison, Goal, Verdict

_STYLE: Final = Path(__file__).with_name("page.css").read_text()


def page(title: str, where: str, comparisons: Sequence[Comparison], failures: Sequence[str]) -> str:
    verdicts = [comparison.judge(goal) for comparison in comparisons for goal in comparison.goals]
    tally = ", ".join(f"{verdicts.count(v)} {v.value}" for v in Verdict if verdicts.count(v))
    failed = "".join(f'<p class="failed">failed: {escape(failure)}</p>' for failure in failures)
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style>'
        f'<h1>{escape(title)}</h1><p class="where">{escape(where)}</p>'
        f'<p class="tally">Goals: {tally or "none"}.</p>{failed}'
        f"<h2>Side by side</h2><div class='cards'>{''.join(map(_card, comparisons))}</div>"
        f"<h2>The figures</h2>{_table(comparisons)}</html>\n"
    )


def _card(comparison: Comparison) -> str:
    better = "larger is better" if comparison.sense.value == "≥" else "smaller is better"
    note = f" {escape(comparison.note)}" if comparison.note else ""
    badges = "".join(_badge(comparison, goal) for goal in comparison.goals)
    return (
        f'<div class="card"><h3>{escape(comparison.name)}</h3>{badges}'
        f"<p>{escape(comparison.unit)}, {better}.{note}</p>{plot(comparison)}</div>"
    )


def _badge(comparison: Comparison, goal: Goal) -> str:
    beside = f" × {goal.beside}" if goal.beside else ""
    told = f"{comparison.sense.value} {table.number(goal.bound)}{beside}"
    verdict = comparison.judge(goal)
    return f'<span class="badge {verdict.value}">{escape(told)}: {verdict.value}</span>'


def _table(comparisons: Sequence[Comparison]) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in table.HEAD)
    lines = []
    for row in table.rows(comparisons):
        cells = "".join(_cell(column, cell) for column, cell in zip(table.HEAD, row, strict=True))
        lines.append(f'<tr class="{"first" if row[0] else ""}">{cells}</tr>')
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"


def _cell(column: str, text: str) -> str:
    if not column and text:
        return f'<td><span class="badge {text.lower()}">{escape(text)}</span></td>'
    kind = ' class="number"' if column in ("geochain", "spread", "its", "ratio", "goal") else ""
    return f"<td{kind}>{escape(text)}</td>"
