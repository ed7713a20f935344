"""The report of a drill: one HTML file that needs nothing but itself, to be read, printed and kept."""

from __future__ import annotations

from failover.drills.report.render import render_html, render_trend

__all__ = ["render_html", "render_trend"]
