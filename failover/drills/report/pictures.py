"""The small pictures of a report: the parts of the recovery time, and a chain."""

from __future__ import annotations

from typing import Final

from markupsafe import Markup

from failover.drills.record import ChainState, Recovery
from failover.drills.report import svg
from failover.drills.report.words import goal, seconds

WIDTH: Final = 1080.0
NODE: Final = 236.0
STEP: Final = 286.0
LEFT: Final = 92.0
TOP: Final = 30.0
ROW: Final = 22.0

_PARTS: Final = (
    ("detect", "detect_s"),
    ("decide", "decide_s"),
    ("fence", "fence_s"),
    ("promote", "promote_s"),
    ("first write", "first_write_s"),
)


def parts_of(recovery: Recovery) -> list[tuple[str, float]]:
    """The parts of the time without writes that there were, in order, in seconds."""
    named = ((name, getattr(recovery, field)) for name, field in _PARTS)
    return [(name, value) for name, value in named if value is not None]


def recovery_bars(recovery: Recovery) -> Markup:
    """The time without writes, each part a bar that begins where the one before it ended, to scale."""
    parts = parts_of(recovery)
    if not parts:
        return Markup()
    total = sum(value for _, value in parts)
    scale = svg.Scale(0.0, max(total, recovery.target_s or 0.0) * 1.04, LEFT, WIDTH - 76)
    height = TOP + len(parts) * ROW + 26
    drawn: list[Markup] = []
    for tick in scale.ticks(8):
        x = scale(tick)
        drawn.append(svg.line(x, TOP - 6, x, height - 24, class_="grid"))
        drawn.append(svg.text(x, height - 8, svg.tick_words(tick), class_="tick", text_anchor="middle"))
    drawn.append(svg.text(WIDTH - 70, height - 8, "s", class_="tick"))
    start = 0.0
    for index, (name, value) in enumerate(parts):
        y, left, right = TOP + index * ROW, scale(start), scale(start + value)
        drawn.append(svg.text(LEFT - 10, y + 13, name, class_="part-name", text_anchor="end"))
        drawn.append(svg.box(left, y + 2, max(1.5, right - left), 15, class_="part"))
        drawn.append(svg.text(max(left + 1.5, right) + 6, y + 13, seconds(value), class_="part-name"))
        start += value
    if recovery.target_s is not None:
        x = scale(recovery.target_s)
        words = f"target: at most {goal(recovery.target_s)}"
        drawn.append(svg.line(x, TOP - 22, x, height - 24, class_="target"))
        drawn.append(svg.text(x - 5, TOP - 12, words, class_="target-name", text_anchor="end"))
    said = ", ".join(f"{name} {seconds(value)}" for name, value in parts)
    return svg.picture(WIDTH, height, "The time without writes, in its parts", said, *drawn)


def chain_picture(chain: ChainState, title: str) -> Markup:
    """The members as boxes, head to tail, and below them who is outside."""
    drawn: list[Markup] = []
    for index, node in enumerate(chain.order):
        x = 4 + index * STEP
        role = "head" if index == 0 else "tail" if node == chain.order[-1] else "middle"
        drawn += _node(chain, node, role, x)
        if index:
            drawn.append(svg.line(x - STEP + NODE + 4, 34, x - 12, 34, class_="link"))
            drawn.append(svg.element("path", d=f"M{x - 13},28 L{x - 4},34 L{x - 13},40 Z", class_="arrow"))
    height = 74.0
    if chain.detached:
        drawn.append(svg.text(6, 88, f"outside the chain: {', '.join(chain.detached)}", class_="tip"))
        height = 96.0
    said = f"{' to '.join(chain.order)} in epoch {chain.epoch}"
    width = max(WIDTH, 8 + (len(chain.order) - 1) * STEP + NODE)
    return svg.picture(width, height, title, said, *drawn)


def _node(chain: ChainState, node: str, role: str, x: float) -> list[Markup]:
    where = f"{role}, region {chain.regions.get(node, 'not known')}"
    tip = chain.tips.get(node)
    return [
        svg.box(x, 4, NODE, 62, class_=f"node {role}", rx=5),
        svg.text(x + 12, 24, svg.short(node, 30), class_="node-name"),
        svg.text(x + 12, 41, svg.short(where, 38), class_="tip"),
        svg.text(x + 12, 57, "did not answer" if tip is None else f"tip {tip}", class_="tip"),
    ]
