"""Figures of repeated runs: who runs when, and what is made of what they gave. Pure.

Contenders take turns, A B B A A B, so that a machine that gets slower or faster meanwhile does the same to
all. Of a series the median is told, with the least and the largest value beside it.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum


@dataclass(frozen=True, slots=True)
class Series:
    """What the runs of one contender gave, in the order of the runs."""

    name: str
    values: tuple[float, ...] = ()
    missing: str = ""
    """Why nothing was measured; empty if it was."""

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def low(self) -> float:
        return min(self.values)

    @property
    def high(self) -> float:
        return max(self.values)


class Sense(Enum):
    """Which figures are the good ones."""

    AT_LEAST = "≥"
    """The larger the better: a rate."""
    AT_MOST = "≤"
    """The smaller the better: a time, a size."""

    def holds(self, value: float, bound: float) -> bool:
        return value >= bound if self is Sense.AT_LEAST else value <= bound


@dataclass(frozen=True, slots=True)
class Goal:
    """A bound for the first series of a comparison: on its median, or on its ratio to another series."""

    bound: float
    beside: str = ""
    """The series that the first one is divided by; empty for a bound on the figure itself."""


class Verdict(Enum):
    """What became of a goal."""

    MET = "met"
    """The median is within the bound."""
    MISSED = "missed"
    """The median is not within the bound."""
    UNKNOWN = "unknown"
    """It, or what it is held against, was not measured."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Contenders side by side in one figure; the first is ours."""

    name: str
    unit: str
    sense: Sense
    series: tuple[Series, ...]
    goals: tuple[Goal, ...] = ()
    note: str = ""
    """What a reader has to know in order not to be misled."""

    @property
    def ours(self) -> Series:
        return self.series[0]

    def peer(self, name: str) -> Series | None:
        return next((s for s in self.series if s.name == name), None)

    def ratio(self, peer: Series) -> float | None:
        """Ours over the peer's; None if one of them was not measured."""
        if self.ours.missing or peer.missing or not peer.median:
            return None
        return self.ours.median / peer.median

    def judge(self, goal: Goal) -> Verdict:
        value: float | None
        if goal.beside:
            peer = self.peer(goal.beside)
            value = None if peer is None else self.ratio(peer)
        else:
            value = None if self.ours.missing else self.ours.median
        if value is None:
            return Verdict.UNKNOWN
        return Verdict.MET if self.sense.holds(value, goal.bound) else Verdict.MISSED


def turns(contenders: Sequence[str], repeats: int) -> Iterator[str]:
    """Whose turn it is: everyone once a round, every second round backwards."""
    for number in range(repeats):
        yield from contenders if number % 2 == 0 else reversed(contenders)


def percentile(values: Sequence[float], share: float) -> float:
    """The value that so large a share of the values does not exceed (nearest rank)."""
    if not values:
        raise ValueError("no values")
    ordered = sorted(values)
    return ordered[max(0, min(len(ordered) - 1, -(-int(share * 1_000_000) * len(ordered) // 1_000_000) - 1))]
