"""Two logs held against each other: equal digests mean equal events; a difference is bisected to the events.

What stands on the other side is a port: any log that can give the digests of its own events.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from chain.event import Event, Position, Tip
from chain.store import Digest, Page
from replicator.findings import Finding, Kind, compare

LEAF: Final = 16
"""So few events are fetched and compared, where digests differ."""
MAX_REPORTED: Final = 20


class RemoteLog(Protocol):
    """What can be compared with a node: another node, or any copy of its log elsewhere."""

    async def tip(self) -> Tip: ...

    async def digest(self, first: Position, last: Position) -> Digest:
        """Of its own events, as chain/postgres/sql/functions/digest.sql describes it."""

    async def log(self, after: Position, limit: int) -> Page: ...

    async def at(self, position: Position) -> Event | None: ...

    async def strays(self, limit: int) -> tuple[Position, ...]:
        """Positions of what it holds outside of its log."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """A source and its target. Nothing here raises but what the two logs raise."""

    source_name: str
    source: RemoteLog
    target_name: str
    target: RemoteLog

    async def tips(self) -> tuple[Tip, Tip]:
        """Of source and target. The target's is read first: what it had then, the source had, too."""
        target = await self.target.tip()
        return await self.source.tip(), target

    async def equal(self, first: Position, last: Position) -> bytes | None:
        """The digest of the range, if both hold every event of it, and the same; else None."""
        ours, theirs = await asyncio.gather(self.source.digest(first, last), self.target.digest(first, last))
        whole = ours.count == theirs.count == last - first + 1
        return ours.value if whole and ours.value == theirs.value else None

    async def differing(self, first: Position, last: Position, most: int) -> tuple[Finding, ...]:
        """What differs in the range, from its first position on; no more than about `most`."""
        found: list[Position] = []
        await self._bisect(first, last, found, most)
        return await self.at(found)

    async def at(self, positions: Sequence[Position]) -> tuple[Finding, ...]:
        """What differs at these positions. A hole on both sides is one on both: missing, for the source."""
        ours, theirs = await asyncio.gather(_events(self.source, positions), _events(self.target, positions))
        holes = set(positions) - {e.position for e in (*ours, *theirs)}
        return (
            *compare(ours, theirs, positions),
            *(Finding(position, Kind.MISSING) for position in sorted(holes)),
        )

    async def beyond(self, source_tip: Position, target_tip: Position) -> tuple[Finding, ...]:
        """Rows outside of the logs; and where the target's log begins that the source does not have."""
        found = []
        if target_tip > source_tip:
            position = Position(source_tip + 1)
            found.append(Finding(position, Kind.EXTRA, target=await self.target.at(position)))
        for name, log in ((self.source_name, self.source), (self.target_name, self.target)):
            found += [Finding(p, Kind.STRAY, node=name) for p in await log.strays(MAX_REPORTED)]
        return tuple(found)

    async def _bisect(self, first: Position, last: Position, found: list[Position], most: int) -> None:
        """Adds positions of the range that differ, by halving it."""
        if len(found) >= most or await self.equal(first, last) is not None:
            return
        if last - first < LEAF:
            findings = await self.at([Position(p) for p in range(first, last + 1)])
            found.extend(f.position for f in findings)
            return
        middle = Position((first + last) // 2)
        await self._bisect(first, middle, found, most)
        await self._bisect(Position(middle + 1), last, found, most)


async def _events(log: RemoteLog, positions: Sequence[Position]) -> list[Event]:
    """What a log holds at these positions, given in order; read in runs."""
    events: list[Event] = []
    wanted = set(positions)
    runs: list[tuple[Position, Position]] = []
    for position in positions:
        if runs and position - runs[-1][1] <= LEAF:
            runs[-1] = runs[-1][0], position
        else:
            runs.append((position, position))
    for first, last in runs:
        page = await log.log(Position(first - 1), 2 * (last - first + 1))
        events += [e for e in page.events if e.position in wanted]
    return events
