"""Renders records as HTML. Whatever text is in a record, it comes out as text: the templates escape it."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from failover.drills.record import DrillRecord
from failover.drills.report import words
from failover.drills.report.page import content
from failover.drills.report.trend import trends


def render_html(record: DrillRecord) -> str:
    """The report of one drill, as one self-contained HTML file."""
    return _render("drill.html.jinja", content(record))


def render_trend(records: Iterable[DrillRecord]) -> str:
    """How the runs of each drill compare over time, as one self-contained HTML file."""
    return _render("trend.html.jinja", {"trends": trends(records)})


def _render(template: str, values: dict[str, Any]) -> str:
    return _environment().get_template(template).render(values)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("failover.drills.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = environment.loader.get_source(environment, "style.css")[0] if environment.loader else ""
    environment.globals["style"] = Markup(style)  # our own file, the one text that is not escaped
    for name in ("seconds", "at", "count", "events", "moment", "day", "plain"):
        environment.filters[name] = getattr(words, name)
    return environment
