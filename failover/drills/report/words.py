"""Numbers and outcomes as words: every number with its unit."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from failover.drills.record import Outcome

SENTENCES: Final = {
    Outcome.HELD: "Every probe held before, during and after, and every target was met.",
    Outcome.DEVIATED: "The drill ran to its end, and something was not as it should be.",
    Outcome.FAILED: "The drill itself could not be carried through, so it proves nothing.",
    Outcome.INTERRUPTED: "The drill was ended early; what it had begun was taken back.",
    Outcome.NOT_RUN: "No fault was injected, so nothing was shown.",
}
MARKS: Final = {
    Outcome.HELD: "✓",
    Outcome.DEVIATED: "✗",
    Outcome.FAILED: "✗",
    Outcome.INTERRUPTED: "‖",
    Outcome.NOT_RUN: "–",
}
"""Beside the colour, for who sees none."""


def seconds(value: float | None) -> str:
    """A duration: milliseconds below a tenth of a second, minutes from two on."""
    if value is None:
        return "–"
    if value >= 119.95:
        minutes, rest = divmod(round(value), 60)
        return f"{minutes:,} min {rest:02} s"
    if value >= 9.995:
        return f"{value:.1f} s"
    return f"{value:.2f} s" if value >= 0.0995 or value == 0 else f"{value * 1000:.0f} ms"


def goal(value: float) -> str:
    """A duration that somebody asked for, as precise as they were."""
    return f"{value:g} s" if value < 120 else seconds(value)


def at(value: float) -> str:
    """A time since the drill began."""
    return f"{value:,.2f} s"


def count(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"


def events(value: int | None) -> str:
    """A number of events, in words."""
    if value is None:
        return "not known"
    return f"{value:,} event{'' if value == 1 else 's'}"


def moment(value: datetime) -> str:
    """A time of the world."""
    return f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def day(value: datetime) -> str:
    return f"{value.astimezone(UTC):%Y-%m-%d %H:%M}"


def plain(name: str) -> str:
    """A key as words."""
    return name.replace("_", " ")
