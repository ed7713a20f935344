"""Out-of-band verification: equal digests of every segment mean equal logs; a difference is bisected.

Each node computes its digests from its own rows; only digests travel, and the few events that differ. The
result is OK, DIFF or UNKNOWN: what could not be checked is never OK. What is found is looked at a second time
before it is told, so that a dead branch that is just being given up is no false alarm.

Everything here is read anew. What the nodes have noted of earlier verifications (`chain.store.Seal`) is held
against it, and never stands in for it, unless it is asked what is new since.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise
from typing import Final

from chain.errors import ChainError
from chain.event import Position
from chain.store import SEGMENT, Seal, Store
from replicator.comparison import MAX_REPORTED, Comparison
from replicator.findings import Finding, Kind

START: Final = Position(0)
AT_ONCE: Final = 2
"""Segments that a node reads at the same time."""
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
class Missing:
    """The first event that a target does not have yet, and for how long its source has it."""

    position: Position
    age_s: float
    """By the source's clock, since the event was recorded."""


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
    missing: Missing | None = None
    """What the target does not have yet."""

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
    pair = _Pair(Comparison(source_name, source, target_name, target), source, target, first, last)
    try:
        found = await pair.look()
        if found.verdict is Verdict.DIFF:
            await asyncio.sleep(SETTLES_S)
            found = await pair.look_again(found)
    except ChainError as error:
        return pair.result(Verdict.UNKNOWN, reason=error.message)
    return found


async def verify_new(stores: Mapping[str, Store], *, last: Position | None = None) -> tuple[Verified, ...]:
    """Compares what no verification has agreed on yet: behind what both nodes of a pair have noted alike."""
    results = []
    for a, b in pairwise(stores):
        try:
            seals = await asyncio.gather(stores[a].seals(), stores[b].seals())
            first = max(agreed(*seals), Position(1))  # its last event is read again: no range is empty
        except ChainError:
            first = Position(1)  # then there is nothing to go by
        if last is not None:
            first = min(first, last)
        results.append(await verify_pair(a, stores[a], b, stores[b], first=first, last=last))
    return tuple(results)


def agreed(source: Sequence[Seal], target: Sequence[Seal]) -> Position:
    """Up to where two nodes have noted the same, from the first position on without a hole."""
    position = START
    for number, (ours, theirs) in enumerate(zip(source, target, strict=False), 1):
        if (ours.number, ours.last, ours.value) != (number, theirs.last, theirs.value):
            break
        position = ours.last
    return position


def segment_of(position: Position) -> tuple[int, Position, Position]:
    """The number of the segment that a position lies in, and its range."""
    number = (position - 1) // SEGMENT + 1
    return number, Position((number - 1) * SEGMENT + 1), Position(number * SEGMENT)


@dataclass(slots=True)
class _Pair:
    comparison: Comparison
    source: Store
    target: Store
    first: Position
    last: Position | None
    source_tip: Position = START
    target_tip: Position = START
    missing: Missing | None = None

    @property
    def end(self) -> Position:
        return min(self.source_tip, self.target_tip) if self.last is None else self.last

    def result(self, verdict: Verdict, findings: Sequence[Finding] = (), *, reason: str = "") -> Verified:
        return Verified(
            self.comparison.source_name,
            self.comparison.target_name,
            verdict,
            self.first,
            self.end,
            self.source_tip,
            self.target_tip,
            tuple(findings),
            reason,
            self.missing,
        )

    async def look(self) -> Verified:
        await self._see_tips()
        needed = self.first if self.last is None else self.last
        if needed > 1 or self.last is not None:  # two empty logs are equal
            if self.source_tip < needed:
                return self._not_yet(self.comparison.source_name, needed)
            if self.target_tip < needed:
                return self._not_yet(self.comparison.target_name, needed)
        findings = await self._compare()
        if self.last is None:
            findings += await self.comparison.beyond(self.source_tip, self.target_tip)
        return self._judged(findings)

    def _not_yet(self, name: str, position: Position) -> Verified:
        return self.result(Verdict.UNKNOWN, reason=f"{name} has not come to {position} yet")

    async def look_again(self, before: Verified) -> Verified:
        """What still differs, of what did. A target that was cut back since has nothing there any more."""
        await self._see_tips()
        apart = (Kind.STRAY, Kind.REWRITTEN)
        within = [f.position for f in before.findings if f.position <= self.end and f.kind not in apart]
        findings = list(await self.comparison.at(within))
        if any(f.kind is Kind.REWRITTEN for f in before.findings):
            findings += [f for f in await self._compare() if f.kind is Kind.REWRITTEN]
        if self.last is None:
            findings += await self.comparison.beyond(self.source_tip, self.target_tip)
        return self._judged(findings)

    async def _see_tips(self) -> None:
        source, target = await self.comparison.tips()
        self.source_tip, self.target_tip = source.position, target.position
        self.missing = None
        if target.position < source.position:
            glance = await self.source.glance(target.position)
            if glance.next_recorded_at is not None:
                age_s = (glance.clock - glance.next_recorded_at).total_seconds()
                self.missing = Missing(Position(target.position + 1), max(0.0, age_s))

    async def _compare(self) -> list[Finding]:
        """What differs in the range; and where it does not, but is not what was agreed on earlier either."""
        noted = [
            (self.comparison.source_name, {seal.last: seal for seal in await self.source.seals()}),
            (self.comparison.target_name, {seal.last: seal for seal in await self.target.seals()}),
        ]
        findings: list[Finding] = []
        pieces = list(self._pieces({last for _, seals in noted for last in seals}))
        for few in (pieces[at : at + AT_ONCE] for at in range(0, len(pieces), AT_ONCE)):
            values = await asyncio.gather(*(self.comparison.equal(*piece) for piece in few))
            for (start, stop), value in zip(few, values, strict=True):
                if value is None:
                    room = MAX_REPORTED - len(findings)
                    findings += await self.comparison.differing(start, stop, room)
                elif start == segment_of(start)[1]:
                    for name, seals in noted:
                        if stop in seals and seals[stop].value != value:
                            findings.append(Finding(start, Kind.REWRITTEN, node=name))
        return findings

    def _pieces(self, noted: set[Position]) -> Iterator[tuple[Position, Position]]:
        """The range in segments, which are cut where the nodes have noted a part of one."""
        start = self.first
        while start <= self.end:
            _, _, end = segment_of(start)
            stop = min([*(last for last in noted if start <= last < end), end, self.end])
            yield start, stop
            start = Position(stop + 1)

    def _judged(self, findings: Sequence[Finding]) -> Verified:
        found = sorted(findings, key=lambda f: f.position)[:MAX_REPORTED]
        return self.result(Verdict.DIFF if found else Verdict.OK, found)
