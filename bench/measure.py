"""What a measure is: a name, and a run that puts contenders side by side.

A contender that can't be had raises NotMeasured; one that fails is reported with what it said. Both are in
the report with the reason: nothing is left out in silence.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from bench.nodes import FullLog
from bench.series import Comparison, Goal, Sense, Series, turns
from bench.servers import Servers


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured."""

    name: str
    events: int
    """In a log that is copied, read, verified."""
    seconds: float
    """For which one run appends."""
    repeats: int
    moves: int
    """Planned switchovers, and starts of a command."""
    kills: int
    thorough: bool
    """All ways of a measure, or only those that a goal is set for."""
    growth: tuple[int, ...]
    """Events in the logs whose cost is compared."""

    def of_sizes(self, sizes: tuple[int, ...]) -> Scale:
        return replace(self, growth=tuple(sorted(sizes)))


FULL: Final = Scale("full", 1_000_000, 1.5, 3, 20, 20, thorough=True, growth=(1_000_000, 10_000_000))
QUICK: Final = Scale("quick", 100_000, 0.4, 2, 6, 1, thorough=False, growth=(50_000, 200_000))
SMOKE: Final = Scale("smoke", 2_000, 0.1, 1, 2, 1, thorough=False, growth=(1_000, 2_000))
SCALES: Final = {scale.name: scale for scale in (FULL, QUICK, SMOKE)}


class NotMeasured(Exception):
    """What was to be measured can't be had here; the message says why."""


Reading = Mapping[str, float]
"""What one run gave, by figure."""


@dataclass(frozen=True, slots=True)
class Contender:
    """One of those that are put side by side. `run` prepares, does one run, and gives its figures."""

    name: str
    run: Callable[[], Awaitable[Reading]]


@dataclass(slots=True)
class Bench:
    """What a measure works with."""

    scale: Scale
    servers: Servers
    full: FullLog | None = None
    """The log that is copied, read and verified, once it has been made."""
    failures: list[str] = field(default_factory=list)
    """What failed though it could be had."""

    def tell(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)  # noqa: T201

    async def side_by_side(
        self, name: str, contenders: Sequence[Contender], *, repeats: int | None = None
    ) -> Readings:
        """Runs all of them, in turns."""
        by_name = {contender.name: contender for contender in contenders}
        found: dict[str, list[Reading]] = {contender: [] for contender in by_name}
        missing: dict[str, str] = {}
        for turn in turns(list(by_name), repeats or self.scale.repeats):
            if turn in missing:
                continue
            try:
                reading = await by_name[turn].run()
            except NotMeasured as error:
                missing[turn] = str(error)
            except Exception as error:
                missing[turn] = f"failed: {type(error).__name__}: {error}"
                self.failures.append(f"{name}, {turn}: {missing[turn]}")
            else:
                found[turn].append(reading)
                figures = ", ".join(f"{key} {value:,.4g}" for key, value in reading.items())
                self.tell(f"{name}: {turn}: {figures}")
            if turn in missing:
                self.tell(f"{name}: {turn}: not measured: {missing[turn]}")
        return Readings(found, missing)


@dataclass(frozen=True, slots=True)
class Readings:
    """All readings of contenders that were run in turns."""

    found: Mapping[str, Sequence[Reading]]
    missing: Mapping[str, str]

    def compare(
        self,
        figure: str,
        name: str,
        unit: str,
        sense: Sense,
        *goals: Goal,
        note: str = "",
        only: Sequence[str] = (),
    ) -> Comparison:
        """One figure of all contenders that have it, or of `only` these."""
        series = tuple(
            self._series(contender, figure)
            for contender in only or self.found
            if contender in self.missing or any(figure in r for r in self.found[contender])
        )
        return Comparison(name, unit, sense, series, goals, note)

    def _series(self, contender: str, figure: str) -> Series:
        if contender in self.missing:
            return Series(contender, missing=self.missing[contender])
        return Series(contender, tuple(reading[figure] for reading in self.found[contender]))


@dataclass(frozen=True, slots=True)
class Measure:
    """One thing that is measured."""

    name: str
    what: str
    """In a sentence."""
    run: Callable[[Bench], Awaitable[Sequence[Comparison]]]
