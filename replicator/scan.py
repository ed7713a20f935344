"""The round over what a node has noted: each segment is read again and again, and held against its note.

So a row that changes after it was verified is found within one round, whatever its neighbours do. The note of
when a segment was last read is on the node: a round goes on where it was, whoever goes it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

from chain.errors import ChainError
from chain.event import Position
from chain.store import Seal, Store
from replicator.throttle import Throttle
from replicator.verify import START, segment_of

Found = Callable[[str, Position, Position], Awaitable[bool]]
"""Looks for what differs between a node and its neighbours in a range; says whether anything does."""

REST_S: Final = 1.0


@dataclass(slots=True)
class NodeScan:
    """The round over one node's segments."""

    name: str
    store: Store
    throttle: Throttle
    again_s: float
    """No segment is read again sooner."""
    found: Found
    position: Position = START
    """Up to which the node's log is verified without a hole, by its own notes."""
    oldest_check_s: float | None = None
    """How long ago the part was read that was read longest ago, as of `as_of`."""
    as_of: float | None = None
    rewritten: tuple[Position, ...] = ()
    """Where segments begin that are not what was agreed on, though the neighbours have the same."""
    segments: int = 0
    """Read so far."""
    rounds: int = 0
    reason: str = ""
    _broken: dict[int, Position] = field(default_factory=dict)

    def oldest_s(self, now: float) -> float | None:
        """How long ago the part was read that was read longest ago."""
        if self.oldest_check_s is None or self.as_of is None:
            return None
        return self.oldest_check_s + now - self.as_of

    async def run(self) -> None:
        """Goes round for ever; ends by cancellation."""
        while True:
            await self.go_round()
            await asyncio.sleep(REST_S)

    async def go_round(self) -> None:
        """Reads each segment that is due. What keeps it from that is in `reason`. Raises nothing."""
        try:
            await self._look_up()
            for seal in await self._due():
                await self._read(seal)
            await self._look_up()
            self.reason = ""
            self.rounds += 1
        except ChainError as error:
            self.reason = error.message

    async def _due(self) -> list[Seal]:
        """Those read longest ago come first; what was broken is always due."""
        seals = await self.store.seals()
        known = {seal.number for seal in seals}
        self._broken = {number: at for number, at in self._broken.items() if number in known}
        self.rewritten = tuple(sorted(self._broken.values()))
        clock = (await self.store.glance(START)).clock
        due = [
            seal
            for seal in seals
            if seal.number in self._broken or (clock - seal.checked_at).total_seconds() >= self.again_s
        ]
        return sorted(due, key=lambda seal: seal.checked_at)

    async def _read(self, seal: Seal) -> None:
        loop = asyncio.get_running_loop()
        start = loop.time()
        checked = await self.store.seal(seal.number, seal.last)
        spent_s = loop.time() - start
        self.segments += 1
        _, first, _ = segment_of(seal.last)
        if checked.intact:
            self._broken.pop(seal.number, None)
        elif await self.found(self.name, first, seal.last):
            self._broken.pop(seal.number, None)  # the pairs say what differs, and where
        else:
            self._broken[seal.number] = first
        self.rewritten = tuple(sorted(self._broken.values()))
        await self.throttle.wait_turn(spent_s)

    async def _look_up(self) -> None:
        loop = asyncio.get_running_loop()
        start = loop.time()
        known = await self.store.verified()
        self.throttle.answered(loop.time() - start)
        self.position, self.oldest_check_s, self.as_of = known.position, known.oldest_check_s, start
