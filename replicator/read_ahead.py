"""Reading a log in batches, several at a time while there is more, so that a far source costs little waiting.

Positions are dense, so where the next batch begins is known before the last has come. Batches are handed out
in order, each beginning where the one before ended. Nothing beyond the known end of the source is asked for.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

from chain.event import Position
from chain.store import Batch
from chain.tasks import end

FIRST_EVENTS: Final = 2_000
_GROWTH: Final = 4
NEAR: Final = 2
"""Batches that are read at a time from a source that answers at once."""
FURTHER_S: Final = 0.015
"""For so much of a way to it and back, it is one more."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How a link paces itself. It holds at most `ahead` + 3 batches, of `batch_bytes` or one larger event."""

    batch_events: int = 50_000
    batch_bytes: int = 2 * 1024 * 1024
    ahead: int = 8
    """How many batches are read at a time, at the most: from a source that has more, and is far away."""
    idle_s: float = 1.0
    """How often a link that has caught up looks again without a hint."""
    load_events: int = 100_000
    """From so many events on an empty target is loaded: what only lookups need is made afterwards."""
    load_cut_off_s: float = 30.0
    """A load that its source has been away from for so long is ended: the node may be the last with a log."""
    backoff_s: float = 5.0
    """The most that it waits before it tries a peer again."""


@dataclass(frozen=True, slots=True)
class _Asked:
    after: Position
    limit: int
    reading: asyncio.Task[Batch]

    @property
    def last(self) -> Position:
        """Where it ends if as many come as were asked for."""
        return Position(self.after + self.limit)


@dataclass(slots=True)
class ReadAhead:
    """The batches of a source behind `after`. `close` ends what is under way."""

    read: Callable[[Position, int], Awaitable[Batch]]
    """Reads at most so many events behind a position."""
    pace: Pace
    after: Position
    source_tip: Position
    """How far the source is known to go; its owner may set it forward."""
    way_s: Callable[[], float] = lambda: 0.0
    """How long the way to the source and back is, as far as its owner knows."""
    _limit: int = 0
    _asked: deque[_Asked] = field(default_factory=deque)

    def __post_init__(self) -> None:
        self._limit = self._first_limit

    async def next(self) -> Batch:
        """The next batch. What comes behind it is being read when this returns."""
        self._ask()
        asked = self._asked[0]
        batch = await asked.reading
        self._asked.popleft()
        self.after = batch.last
        self.source_tip = max(self.source_tip, batch.last)
        self._limit = self._next_limit(batch)
        if self._asked and self._asked[0].after != batch.last:
            await self.close()  # fewer have come than were asked for: what was asked besides begins elsewhere
        self._ask()
        return batch

    async def close(self) -> None:
        while self._asked:
            await end(self._asked.pop().reading)

    def _ask(self) -> None:
        if not self._asked:
            self._ask_behind(self.after)
        while len(self._asked) < self._window and self._asked[-1].last < self.source_tip:
            self._ask_behind(self._asked[-1].last)

    def _ask_behind(self, after: Position) -> None:
        reading = asyncio.ensure_future(self.read(after, self._limit))
        assert isinstance(reading, asyncio.Task)
        self._asked.append(_Asked(after, self._limit, reading))

    @property
    def _window(self) -> int:
        """How many batches to ask for at a time: of a near source no more than are soon used, since they are
        held; of a far one as many as are under way. A batch of one event may be very large: then one.
        """
        if self._limit == 1:
            return 1
        return min(self.pace.ahead, NEAR + int(self.way_s() / FURTHER_S))

    @property
    def _first_limit(self) -> int:
        return min(FIRST_EVENTS, self.pace.batch_events)

    def _next_limit(self, batch: Batch) -> int:
        """Batches grow while there is more and they fit the bytes; at the tip they are small again."""
        if batch.at_tip or not batch.count:
            return self._first_limit
        fitting = self.pace.batch_bytes * 4 // 5 * batch.count // max(1, batch.size_bytes)
        return max(1, min(self._limit * _GROWTH, fitting, self.pace.batch_events))
