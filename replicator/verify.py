"""Out-of-band verification: equal digests of every segment mean equal logs; a difference is bisected.

Each node computes its digests from its own rows; only digests travel, and the few events that differ. The
result is OK, DIFF or UNKNOWN: what could not be checked is never OK. What is found is looked at a second time
before it is told, so that a dead branch that is just being given up is no false alarm.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise
from typing import Final

from chain.errors import ChainError
from chain.event import Event, Position
from chain.store import Store
from replicator.findings import Finding, Kind, compare

SEGMENT: Final = 16_384
START: Final = Position(0)
LEAF: Final = 16
"""So few events are fetched and compared, where digests differ."""
MAX_REPORTED: Final = 20
SETTLES_S: Final = 0.3
"""After which a difference is looked at again."""


class Verdict(Enum):
    """What a verification found."""

    OK = "OK"
    """Every event in the range is on both nodes, equal in every column, at the same position."""
    DIFF = "DIFF"
    """At least one position differs; they are named."""
    UNKNOWN = "UNKNOWN"
    """Something could not be read, so nothing is claimed."""


@dataclass(frozen=True, slots=True)
class Verified:
    """Two neighbours compared: from `first` to `last`, both inclusive."""

    source: str
    target: str
    verdict: Verdict
    first: Position
    last: Position
    source_tip: Position
    target_tip: Position
    findings: tuple[Finding, ...] = ()
    """The first MAX_REPORTED that differ, in order of their positions."""
    reason: str = ""

    @property
    def differing(self) -> tuple[Position, ...]:
        return tuple(finding.position for finding in self.findings)


async def verify_chain(
    stores: Mapping[str, Store], *, first: Position = Position(1), last: Position | None = None
) -> tuple[Verified, ...]:
    """Compares every neighbouring pair of `stores`, given head first."""
    names = list(stores)
    return tuple(
        [await verify_pair(a, stores[a], b, stores[b], first=first, last=last) for a, b in pairwise(names)]
    )


async def verify_pair(
    source_name: str,
    source: Store,
    target_name: str,
    target: Store,
    *,
    first: Position = Position(1),
    last: Position | None = None,
) -> Verified:
    """Compares the logs of two nodes over the range that both have, up to `last` if given.

    A range that one of them does not have yet is UNKNOWN only if `last` asks for it. Raises nothing.
    """
    pair = _Pair(source_name, source, target_name, target, first, last)
    try:
        found = await pair.look()
        if found.verdict is Verdict.DIFF:
            await asyncio.sleep(SETTLES_S)
            found = await pair.look_again(found)
    except ChainError as error:
        return pair.result(Verdict.UNKNOWN, reason=error.message)
    return found


@dataclass(slots=True)
class _Pair:
    source_name: str
    source: Store
    target_name: str
    target: Store
    first: Position
    last: Position | None
    source_tip: Position = START
    target_tip: Position = START

    @property
    def end(self) -> Position:
        return min(self.source_tip, self.target_tip) if self.last is None else self.last

    def result(self, verdict: Verdict, findings: Sequence[Finding] = (), *, reason: str = "") -> Verified:
        return Verified(
            self.source_name,
            self.target_name,
            verdict,
            self.first,
            self.end,
            self.source_tip,
            self.target_tip,
            tuple(findings),
            reason,
        )

    async def look(self) -> Verified:
        # The target first: then what it had, the source had too, unless the two differ.
        self.target_tip = (await self.target.tip()).position
        self.source_tip = (await self.source.tip()).position
        if self.last is not None and min(self.source_tip, self.target_tip) < self.last:
            behind = self.source_name if self.source_tip < self.last else self.target_name
            return self.result(Verdict.UNKNOWN, reason=f"{behind} has not come to {self.last} yet")
        if self.last is None and self.first > max(self.source_tip, self.target_tip, 1):
            return self.result(Verdict.UNKNOWN, reason=f"neither has come to {self.first} yet")
        differing: list[Position] = []
        for start in range(self.first, self.end + 1, SEGMENT):
            stop = Position(min(start + SEGMENT - 1, self.end))
            await self._bisect(Position(start), stop, differing)
        findings = list(await self._compare(differing))
        if self.last is None:
            findings += await self._beyond()
        return self._judged(findings)

    async def look_again(self, before: Verified) -> Verified:
        """What still differs, of what did. A target that was cut back since has nothing there any more."""
        self.target_tip = (await self.target.tip()).position
        self.source_tip = (await self.source.tip()).position
        within = [f.position for f in before.findings if f.position <= self.end and f.kind is not Kind.STRAY]
        findings = list(await self._compare(within))
        if self.last is None:
            findings += await self._beyond()
        return self._judged(findings)

    def _judged(self, findings: Sequence[Finding]) -> Verified:
        found = sorted(findings, key=lambda f: f.position)[:MAX_REPORTED]
        return self.result(Verdict.DIFF if found else Verdict.OK, found)

    async def _bisect(self, first: Position, last: Position, found: list[Position]) -> None:
        """Adds positions of the range that may differ, by halving it."""
        if len(found) >= MAX_REPORTED:
            return
        ours, theirs = await asyncio.gather(self.source.digest(first, last), self.target.digest(first, last))
        whole = last - first + 1
        if ours.value == theirs.value and ours.count == theirs.count == whole:
            return
        if whole <= LEAF:
            findings = await self._compare([Position(p) for p in range(first, last + 1)])
            found.extend(f.position for f in findings)
            return
        middle = Position((first + last) // 2)
        await self._bisect(first, middle, found)
        await self._bisect(Position(middle + 1), last, found)

    async def _compare(self, positions: Sequence[Position]) -> tuple[Finding, ...]:
        """What differs at these positions. A hole on both sides is one on both: missing, for the source."""
        ours, theirs = await asyncio.gather(_events(self.source, positions), _events(self.target, positions))
        holes = set(positions) - {e.position for e in (*ours, *theirs)}
        return (
            *compare(ours, theirs, positions),
            *(Finding(position, Kind.MISSING) for position in sorted(holes)),
        )

    async def _beyond(self) -> list[Finding]:
        """Rows outside of the logs; and where the target's log begins that the source does not have."""
        found = []
        if self.target_tip > self.source_tip:
            position = Position(self.source_tip + 1)
            found.append(Finding(position, Kind.EXTRA, target=await self.target.at(position)))
        for name, store in ((self.source_name, self.source), (self.target_name, self.target)):
            found += [Finding(p, Kind.STRAY, node=name) for p in await store.strays(MAX_REPORTED)]
        return found


async def _events(store: Store, positions: Sequence[Position]) -> list[Event]:
    """What a node holds at these positions, given in order; read in runs."""
    events: list[Event] = []
    wanted = set(positions)
    runs: list[tuple[Position, Position]] = []
    for position in positions:
        if runs and position - runs[-1][1] <= LEAF:
            runs[-1] = runs[-1][0], position
        else:
            runs.append((position, position))
    for first, last in runs:
        page = await store.log(Position(first - 1), 2 * (last - first + 1))
        events += [e for e in page.events if e.position in wanted]
    return events
