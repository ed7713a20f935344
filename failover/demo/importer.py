"""Writes the purchases of the demo with many writers, at a pace, and remembers what happened when."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final
from uuid import UUID

from chain.client import Client
from chain.event import Appended, Expect
from failover.purchases import Line

WRITERS: Final = 64
LINGER_S: Final = 5.0


@dataclass(slots=True)
class Timeline:
    """What happened when, in seconds since the demo's import began."""

    began: float = field(default_factory=time.monotonic)
    rows: list[tuple[str, float, str]] = field(default_factory=list)

    def mark(self, what: str, detail: str = "", *, at: float | None = None) -> float:
        moment = (time.monotonic() if at is None else at) - self.began
        self.rows.append((what, moment, detail))
        return moment


@dataclass(slots=True)
class Importer:
    """Appends lines through the client with many writers, at a pace, and remembers every answer."""

    client: Client
    lines: Sequence[Line]
    per_second: float
    answers: dict[UUID, Appended] = field(default_factory=dict)
    answered_at: list[float] = field(default_factory=list)
    _next: int = 0
    held_open: bool = True
    """Something is to happen under load before the last line."""
    _due: float = 0.0
    _answered: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as writers:
            for _ in range(WRITERS):
                writers.create_task(self._write())

    async def _write(self) -> None:
        while self._next < len(self.lines):
            line = self.lines[self._next]
            self._next += 1
            await asyncio.sleep(self._take_turn() - time.monotonic())
            answer = await self.client.add(line.stream, Expect.ANY, [line.event])
            self.answers[line.event.id] = answer
            self.answered_at.append(time.monotonic())
            self._answered.set()
            self._answered = asyncio.Event()

    def _take_turn(self) -> float:
        """When the next line is due. Held open, the import slows down as it nears its end, never idle."""
        rate = self.per_second
        if self.held_open:
            rate = min(rate, max(20.0, (len(self.lines) - self._next) / LINGER_S))
        self._due = max(self._due, time.monotonic() - 0.1) + 1 / rate
        return self._due

    async def wait_for(self, part: float) -> None:
        """Waits until this part of the lines is answered."""
        goal = int(len(self.lines) * part)
        while len(self.answers) < goal:
            await self._answered.wait()

    def pause_ms(self, start: float, end: float) -> float:
        """The longest time between two answers, in a window."""
        inside = [t for t in self.answered_at if start <= t <= end]
        gaps = [b - a for a, b in pairwise(inside)]
        return max(gaps, default=0.0) * 1000
