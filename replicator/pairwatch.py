"""One neighbouring pair under watch: what is new is compared as it comes, and noted on both nodes.

What differs is only told once it has stood for a while on a pair that is settled: a target that is being
re-pointed, and gives up a dead branch, differs for a moment from its new source, and that is no fault.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from chain.errors import ChainError
from chain.event import EMPTY, Position, Tip
from chain.store import Store
from replicator.comparison import MAX_REPORTED, Comparison
from replicator.findings import Finding, Kind
from replicator.scan import NodeScan
from replicator.throttle import Throttle
from replicator.verify import START, Verdict, agreed, segment_of

OPEN_S: Final = 10.0
"""How often the newest segment, which is not whole yet, is noted as far as it goes."""
FRESH_S: Final = 15.0
"""How old a comparison may be that still says OK."""


@dataclass(frozen=True, slots=True)
class PairWord:
    """What is known of a pair now."""

    source: str
    target: str
    verdict: Verdict
    verified: Position
    """Everything up to here is equal on both, and was read."""
    source_tip: Position
    target_tip: Position
    age_s: float | None
    """How long ago everything that both had was compared; None if that was never finished."""
    oldest_check_s: float | None
    """How long ago the part was read that was read longest ago."""
    findings: tuple[Finding, ...]
    reason: str


@dataclass(slots=True)
class PairWatch:
    """Watches `source` and its follower `target`. `advance` is called again and again, by one task."""

    comparison: Comparison
    source: Store
    target: Store
    scans: tuple[NodeScan, NodeScan]
    throttle: Throttle
    stale_s: float
    """A part that was not read for so long is not known to be well."""
    settles_s: float = 1.0
    events: int = 0
    """Compared so far."""
    _looked: Position = START
    _source_tip: Tip = EMPTY
    _target_tip: Tip = EMPTY
    _as_of: float | None = None
    _reason: str = "nothing was compared yet"
    _findings: tuple[Finding, ...] = ()
    _suspects: dict[tuple[Position, Kind, str], float] = field(default_factory=dict)
    """What differs, and since when, of what is not told yet."""
    _found: dict[tuple[Position, Kind, str], Finding] = field(default_factory=dict)
    _noted: Position = START
    """Up to where the newest segment was noted."""
    _noted_at: float = float("-inf")
    _known: tuple[Position, Position] = (START, START)
    """How far the two nodes' own notes went."""

    @property
    def settled(self) -> bool:
        """Whether nothing is waiting to be looked at again."""
        return not self._suspects

    def word(self) -> PairWord:
        now = asyncio.get_running_loop().time()
        age_s = None if self._as_of is None else now - self._as_of
        oldest = [age for scan in self.scans if (age := scan.oldest_s(now)) is not None]
        findings = self._told()
        reason = "" if findings else self._why_unknown(age_s, max(oldest, default=None))
        differs = [f.position for f in (*findings, *self._found.values()) if f.kind is not Kind.STRAY]
        return PairWord(
            self.comparison.source_name,
            self.comparison.target_name,
            Verdict.DIFF if findings else Verdict.UNKNOWN if reason else Verdict.OK,
            Position(max(0, min([self._looked, *(p - 1 for p in differs)]))),
            self._source_tip.position,
            self._target_tip.position,
            age_s,
            max(oldest, default=None),
            findings,
            reason or (self._reason if self._as_of is not None else ""),
        )

    async def advance(self) -> None:
        """Compares what is new. What keeps it from that is in its word; raises nothing."""
        start = asyncio.get_running_loop().time()
        try:
            goal = await self._see_tips()
            await self._look_again()
            await self._compare_up_to(goal)
            await self._suspect(await self._beyond())
            self._as_of, self._reason = start, ""
        except ChainError as error:
            self._reason = error.message

    async def examine(self, first: Position, last: Position) -> bool:
        """Looks for what differs in a range that was compared before. Says whether there is anything."""
        last = min(last, self._source_tip.position, self._target_tip.position)
        if first > last:
            return False
        found = await self.comparison.differing(first, last, MAX_REPORTED)
        await self._suspect(found)
        return bool(found)

    async def _see_tips(self) -> Position:
        """Up to where both have the log now. Goes back to what is noted if either may have been cut back."""
        source, target = await self.comparison.tips()
        known = (self.scans[0].position, self.scans[1].position)
        # Of a node that came back as an old copy, and was filled up since, only its notes tell.
        forgot = known[0] < self._known[0] or known[1] < self._known[1]
        cut = _cut(self._source_tip, source) or _cut(self._target_tip, target)
        if self._as_of is None or cut or forgot:
            await self._begin_again()
        self._source_tip, self._target_tip, self._known = source, target, known
        return min(source.position, target.position)

    async def _beyond(self) -> tuple[Finding, ...]:
        return await self.comparison.beyond(self._source_tip.position, self._target_tip.position)

    async def _begin_again(self) -> None:
        seals = await asyncio.gather(self.source.seals(), self.target.seals())
        self._looked = self._noted = agreed(*seals)

    async def _compare_up_to(self, goal: Position) -> None:
        loop = asyncio.get_running_loop()
        self._looked = min(self._looked, goal)
        while self._looked < goal:
            start = loop.time()
            first = Position(self._looked + 1)
            number, begin, end = segment_of(first)
            stop = min(end, goal)
            if (first, stop) == (begin, end):
                await self._note(number, begin, end)
            else:
                if await self.comparison.equal(first, stop) is None:
                    await self._suspect(await self.comparison.differing(first, stop, self._room()))
                if stop == end:
                    await self._note(number, begin, end)
            self.events += stop - first + 1
            self._looked = stop
            self._reason = f"compared up to {stop:,} of {goal:,} so far" if self._as_of is None else ""
            await self.throttle.wait_turn(loop.time() - start)
        number, begin, end = segment_of(max(self._looked, Position(1)))
        is_new = begin <= self._looked < end and self._looked != self._noted
        if is_new and loop.time() - self._noted_at >= OPEN_S:
            await self._note(number, begin, self._looked)
            self._noted, self._noted_at = self._looked, loop.time()

    async def _note(self, number: int, first: Position, last: Position) -> None:
        """Each node reads the segment itself, and notes its digest if the other has the same."""
        theirs = (await self.target.digest(first, last)).value
        ours, again = await asyncio.gather(
            self.source.seal(number, last, theirs), self.target.seal(number, last, theirs)
        )
        whole = ours.digest.count == again.digest.count == last - first + 1
        if not (whole and ours.digest.value == again.digest.value):
            await self._suspect(await self.comparison.differing(first, last, self._room()))

    def _room(self) -> int:
        return max(0, MAX_REPORTED - len(self._found))

    async def _suspect(self, findings: Iterable[Finding]) -> None:
        now = asyncio.get_running_loop().time()
        for finding in findings:
            key = (finding.position, finding.kind, finding.node)
            self._found[key] = finding
            if key not in {(f.position, f.kind, f.node) for f in self._findings}:
                self._suspects.setdefault(key, now)

    async def _look_again(self) -> None:
        """What still differs, of what did. If all is well again, it begins anew behind what is noted."""
        if not self._found:
            return
        now = asyncio.get_running_loop().time()
        before = set(self._found)
        goal = min(self._source_tip.position, self._target_tip.position)
        within = sorted({p for p, kind, _ in before if kind is not Kind.STRAY and p <= goal})
        found = [
            *await self.comparison.at(within),
            *await self._beyond(),
        ]
        settled = await self._is_settled()
        added = {key: f for key, f in self._found.items() if key not in before}  # by `examine`, meanwhile
        self._found = {(f.position, f.kind, f.node): f for f in found} | added
        since = {key: self._suspects.get(key, now) for key in self._found}
        told = {(f.position, f.kind, f.node) for f in self._findings}
        stands = {key for key, at in since.items() if key in told or (settled and now - at >= self.settles_s)}
        self._suspects = {key: at for key, at in since.items() if key not in stands}
        self._findings = tuple(sorted((self._found[key] for key in stands), key=lambda f: f.position))
        if not self._found:
            await self._begin_again()

    async def _is_settled(self) -> bool:
        """Whether the target follows this source, and both know the same epoch."""
        source, target = await asyncio.gather(self.source.state(), self.target.state())
        return target.upstream == self.comparison.source_name and target.epoch == source.epoch

    def _told(self) -> tuple[Finding, ...]:
        rewritten = [
            Finding(position, Kind.REWRITTEN, node=scan.name)
            for scan in self.scans
            for position in scan.rewritten
            if not self._found
        ]
        return tuple(sorted((*self._findings, *rewritten), key=lambda f: f.position))[:MAX_REPORTED]

    def _why_unknown(self, age_s: float | None, oldest_s: float | None) -> str:
        if self._suspects:
            position = min(position for position, _, _ in self._suspects)
            return f"position {position:,} differs, and is looked at again before it is told"
        if age_s is None:
            return self._reason
        if age_s > FRESH_S:
            return self._reason or f"the last comparison is {age_s:.0f} s old"
        if self._reason and age_s > self.settles_s * 3:
            return self._reason
        for scan in self.scans:
            if scan.reason:
                return f"{scan.name} can't be read again: {scan.reason}"
        if oldest_s is not None and oldest_s > self.stale_s:
            return f"a part was last read {oldest_s:,.0f} s ago: give the verifier more time (verify.share)"
        return ""


def _cut(before: Tip, now: Tip) -> bool:
    """Whether a log may have been cut back in between: only a new epoch's events can come behind a cut."""
    return now.position < before.position or (now.epoch != before.epoch and before != EMPTY)
