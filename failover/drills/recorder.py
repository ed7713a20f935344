"""Records a workload's calls while it runs: bounded, and with the figures that a drill samples."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil

from chain.event import Tip
from failover.drills.history import Followed, History, Read, Result, Write


@dataclass(frozen=True, slots=True)
class Interval:
    """What came of the writes that ended within an interval."""

    seconds: float
    acknowledged: int
    failed: int
    """Without an answer that says whether the event is stored."""
    latency_p50_s: float | None
    """Of the acknowledged ones."""
    latency_p99_s: float | None

    @property
    def acknowledged_per_s(self) -> float:
        return self.acknowledged / self.seconds if self.seconds > 0 else 0.0

    @property
    def failed_per_s(self) -> float:
        return self.failed / self.seconds if self.seconds > 0 else 0.0


class Recorder:
    """Takes about `limit` calls and pages; then it is full, and says since when."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._writes: list[Write] = []
        self._reads: list[Read] = []
        self._followed: list[Followed] = []
        self._full_at_s: float | None = None
        self._latencies: list[float] = []
        self._failed = 0
        self._taken_at = now()
        self._acknowledged_to = 0
        """The last position acknowledged."""
        self._seen_to = 0
        """The last position that a follower of the tail was given."""
        self._changed = asyncio.Event()

    @property
    def full(self) -> bool:
        return self._full_at_s is not None

    def note_write(self, write: Write) -> None:
        self._writes.append(write)
        if write.acknowledged and write.appended is not None and write.completed_s is not None:
            self._latencies.append(write.completed_s - write.invoked_s)
            self._acknowledged_to = max(self._acknowledged_to, write.appended.last_position)
        elif write.result is Result.UNKNOWN:  # a conflict on a shared stream is an answer
            self._failed += 1
        self._note()

    def note_read(self, read: Read) -> None:
        self._reads.append(read)
        self._note()

    def note_followed(self, page: Followed) -> None:
        self._followed.append(page)
        if page.tail:
            self._seen_to = max(self._seen_to, page.seen[-1].position)
        self._note()

    async def wait_running(self) -> None:
        """Returns when a write has been acknowledged from now on, and a follower was given something."""
        writes, pages = len(self._writes), len(self._followed)
        await self._wait(
            lambda: len(self._followed) > pages and any(write.acknowledged for write in self._writes[writes:])
        )

    async def wait_followed(self) -> None:
        """Returns when the last acknowledged position has been seen at the tail."""
        await self._wait(lambda: self._seen_to >= self._acknowledged_to)

    def take(self) -> Interval:
        """What ended since the last `take`."""
        latencies, self._latencies = sorted(self._latencies), []
        failed, self._failed = self._failed, 0
        since, self._taken_at = self._taken_at, now()
        return Interval(
            self._taken_at - since,
            len(latencies),
            failed,
            quantile(latencies, 0.5),
            quantile(latencies, 0.99),
        )

    def history(self, prefix: str, start: Tip) -> History:
        return History(
            prefix, start, tuple(self._writes), tuple(self._reads), tuple(self._followed), self._full_at_s
        )

    async def _wait(self, reached: Callable[[], bool]) -> None:
        while not reached():
            await self._changed.wait()

    def _note(self) -> None:
        count = len(self._writes) + len(self._reads) + len(self._followed)
        if count >= self._limit and self._full_at_s is None:
            self._full_at_s = now()
        self._changed.set()
        self._changed = asyncio.Event()


def quantile(ordered: Sequence[float], share: float) -> float | None:
    """By the nearest rank; None of nothing."""
    return ordered[max(0, ceil(share * len(ordered)) - 1)] if ordered else None


def now() -> float:
    return asyncio.get_running_loop().time()
