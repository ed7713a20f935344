"""Mutual exclusion within a process: what is held ends with the block, as a lock ends with its process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from chain.errors import Busy


class MemoryLocks:
    """As long-lived as its object."""

    def __init__(self) -> None:
        self._held: set[str] = set()

    @asynccontextmanager
    async def hold(self, name: str) -> AsyncIterator[None]:
        if name in self._held:
            raise Busy(f"another operator or controller is at work on {name}")
        self._held.add(name)
        try:
            yield
        finally:
            self._held.discard(name)
