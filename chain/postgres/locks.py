"""Mutual exclusion by advisory locks: held by a session, so gone with its process."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from chain.errors import Busy
from chain.postgres.store import PostgresStore


class PostgresLocks:
    """Locks in the database of a store."""

    def __init__(self, store: PostgresStore) -> None:
        self._store = store

    @asynccontextmanager
    async def hold(self, name: str) -> AsyncIterator[None]:
        key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big", signed=True)
        async with self._store.session() as connection:
            # A process that was killed a moment ago may still have its session: give the server a moment.
            for _ in range(10):
                if await connection.fetchval("select pg_try_advisory_lock($1)", key):
                    break
                await asyncio.sleep(0.1)
            else:
                raise Busy(
                    f"another operator or controller is at work on {name}",
                    hint="see what it does: chainctl history",
                )
            yield
