"""Applying batches in their order, each beside the one before it: a target has no pause between two."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from chain.event import Tip
from chain.store import Batch
from chain.tasks import end

T = TypeVar("T")

BESIDE: Final = 2
"""How many batches are applied at a time."""

Apply = Callable[[Batch, "asyncio.Task[Tip] | None"], Awaitable[Tip]]
"""Applies a batch, given the applying of the one before it if that has not ended."""


@dataclass(slots=True)
class Applying:
    """At most BESIDE batches under way. The oldest one's error is raised, and no other: what came behind a
    batch that failed fails, too. `close` ends what is under way.
    """

    apply: Apply
    _under_way: deque[asyncio.Task[Tip]] = field(default_factory=deque)

    async def begin(self, batch: Batch) -> None:
        """Begins with a batch, as soon as there is room."""
        while len(self._under_way) >= BESIDE:
            await self._wait_oldest()
        behind = self._under_way[-1] if self._under_way else None
        applying = asyncio.ensure_future(self.apply(batch, behind))
        assert isinstance(applying, asyncio.Task)
        self._under_way.append(applying)

    async def beside(self, work: Coroutine[Any, Any, T]) -> T:
        """Does something else meanwhile; gives it up if a batch fails."""
        doing = asyncio.ensure_future(work)
        try:
            while not doing.done():
                oldest = [self._under_way[0]] if self._under_way else []
                await asyncio.wait({doing, *oldest}, return_when=asyncio.FIRST_COMPLETED)
                if oldest and oldest[0].done():
                    await self._wait_oldest()
            return doing.result()
        finally:
            await end(doing)

    async def wait(self) -> None:
        """Waits until all are applied."""
        while self._under_way:
            await self._wait_oldest()

    async def close(self) -> None:
        """Ends the newest first: none is to go on without the one before it."""
        while self._under_way:
            await end(self._under_way.pop())

    async def _wait_oldest(self) -> None:
        oldest = self._under_way[0]
        await asyncio.wait({oldest})  # which is not ended with whoever waits for it
        oldest.result()
        self._under_way.popleft()
