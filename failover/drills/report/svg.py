"""Pictures as SVG: elements that escape what goes into them, and scales with round ticks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil, floor, isfinite, log10
from typing import Final

from markupsafe import Markup, escape

FONT_PX: Final = 12.0


def element(tag: str, *children: Markup | str, **attributes: str | float | None) -> Markup:
    """`<tag attributes>children</tag>`. Underscores in names become hyphens; texts are escaped."""
    words = [tag]
    for name, value in attributes.items():
        if value is not None:
            text = _number(value) if isinstance(value, int | float) else value
            words.append(f'{name.rstrip("_").replace("_", "-")}="{escape(text)}"')
    inner = Markup("").join(children)
    return Markup(f"<{' '.join(words)}>{inner}</{tag}>")


def picture(width: float, height: float, title: str, description: str, *children: Markup) -> Markup:
    """A whole picture, which says to those who can't see it what it shows."""
    return element(
        "svg",
        element("title", title),
        element("desc", description),
        *children,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {_number(width)} {_number(height)}",
        role="img",
        aria_label=f"{title}. {description}",
    )


def text(x: float, y: float, words: str, **attributes: str | float | None) -> Markup:
    return element("text", words, x=x, y=y, **attributes)


def line(x1: float, y1: float, x2: float, y2: float, **attributes: str | float | None) -> Markup:
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, **attributes)


def box(x: float, y: float, width: float, height: float, **attributes: str | float | None) -> Markup:
    return element("rect", x=x, y=y, width=max(0.0, width), height=max(0.0, height), **attributes)


def path(points: Iterable[tuple[float, float] | None]) -> str:
    """The `d` of a line through the points; None lifts the pen. A point alone becomes a dot."""
    runs: list[list[tuple[float, float]]] = [[]]
    for point in points:
        if point is None:
            runs.append([])
        else:
            runs[-1].append(point)
    words = []
    for run in filter(None, runs):
        corners = run if len(run) > 1 else [run[0], (run[0][0] + 0.01, run[0][1])]
        words.append("M" + "L".join(f"{_number(x)},{_number(y)}" for x, y in corners))
    return "".join(words)


def width_of(words: str, size_px: float = FONT_PX) -> float:
    """About how wide a text is."""
    return 0.56 * size_px * len(words)


def short(words: str, most: int) -> str:
    return words if len(words) <= most else f"{words[: most - 1]}…"


@dataclass(frozen=True, slots=True)
class Scale:
    """From values `low` to `high` to coordinates `start` to `end`."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        share = (value - self.low) / ((self.high - self.low) or 1.0)
        return self.start + min(1.0, max(0.0, share)) * (self.end - self.start)

    def ticks(self, most: int, *, least_step: float = 0.0) -> Sequence[float]:
        """At most about so many round values."""
        step = max(least_step, round_step((self.high - self.low) / max(1, most)))
        first, last = ceil(self.low / step - 1e-9), floor(self.high / step + 1e-9)
        return [n * step for n in range(first, last + 1)]


def round_step(least: float) -> float:
    """The smallest of 1, 2, 5, 10, … that is not below `least`."""
    if least <= 0 or not isfinite(least):
        return 1.0
    power: float = 10.0 ** floor(log10(least))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= least * (1 - 1e-9))


def round_up(value: float, parts: int = 4) -> float:
    """Up to the next value that divides into about so many round parts."""
    step = round_step(value / parts)
    return max(step, ceil(value / step - 1e-9) * step)


def tick_words(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:,.3g}"


def _number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isfinite(value) else "0"
