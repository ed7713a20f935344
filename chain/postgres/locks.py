"""Mutual exclusion by advisory locks: held by a session, so gone with its process."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from chain.errors import Busy
from chain.postgres.sessions import DRIVER_ERRORS, Connection, translate
from chain.postgres.store import PostgresStore

_PATIENCE_S: Final = 5.0


class PostgresLocks:
    """Locks in the database of a store."""

    def __init__(self, store: PostgresStore) -> None:
        self._store = store

    @asynccontextmanager
    async def hold(self, name: str) -> AsyncIterator[None]:
        key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big", signed=True)
        async with self._store.session() as connection:
            if not await self._try(connection, key):
                raise Busy(
                    f"another operator or controller is at work on {name}",
                    hint="see what it does: chainctl history",
                )
            yield

    async def _try(self, connection: Connection, key: int) -> bool:
        """Raises Unavailable if the server does not answer."""
        try:
            async with asyncio.timeout(_PATIENCE_S):
                # A process that was killed a moment ago may still have its session: give it that moment.
                for _ in range(10):
                    if await connection.fetchval("select pg_try_advisory_lock($1)", key):
                        return True
                    await asyncio.sleep(0.1)
                return False
        except DRIVER_ERRORS as error:
            raise translate(error, self._store.name) from error
