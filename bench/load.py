"""Writers at a pace, through the client; every answer is remembered."""

from __future__ import annotations

import asyncio
import random
import sys
import time
from dataclasses import dataclass, field
from itertools import pairwise
from uuid import UUID

from chain.client import Ack, Client
from chain.errors import ChainError
from chain.event import Appended, Expect, NewEvent


@dataclass(slots=True)
class Load:
    """Writers at a pace; every answer is remembered, by the level that was asked for."""

    client: Client
    per_second: float
    writers: int = 20
    answers: dict[Ack, dict[UUID, Appended]] = field(default_factory=lambda: {a: {} for a in Ack})
    answered: list[tuple[float, int]] = field(default_factory=list)
    """When, and in which epoch."""
    failed: int = 0
    ending: bool = False

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for number in range(self.writers):
                tasks.create_task(self._write(number))

    async def _write(self, number: int) -> None:
        ack = Ack.REGION if number % 2 else Ack.HEAD
        pause_s = self.writers / self.per_second
        due = time.monotonic() + random.uniform(0, pause_s)
        while not self.ending:
            due = max(due + pause_s, time.monotonic())
            await asyncio.sleep(due - time.monotonic())
            event = NewEvent("Measured", b"%d" % number)
            try:
                answer = await self.client.add(f"w-{number}", Expect.ANY, [event], ack=ack)
            except ChainError as error:
                self.failed += 1
                print(f"a write failed: {error}", file=sys.stderr)  # noqa: T201
                continue
            self.answers[ack][event.id] = answer
            self.answered.append((time.monotonic(), answer.epoch))

    def longest_pause_s(self, start: float, end: float) -> float:
        times = [start, *(t for t, _ in self.answered if start <= t <= end), end]
        return max(b - a for a, b in pairwise(times))

    async def first_in(self, epoch: int, wait_s: float) -> float:
        """When the first write of an epoch was acknowledged."""
        seen = 0
        async with asyncio.timeout(wait_s):
            while True:
                for at, in_epoch in self.answered[seen:]:
                    if in_epoch >= epoch:
                        return at
                seen = len(self.answered)
                await asyncio.sleep(0.002)
