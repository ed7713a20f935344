"""Mutual exclusion by advisory locks: held by a session, so gone with its process.

A process that is frozen, or cut off, must not hold for ever either: the holder pings, and the server ends a
session that has been silent for too long.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from chain.errors import Busy
from chain.postgres.sessions import DRIVER_ERRORS, Connection, translate
from chain.postgres.store import PostgresStore
from chain.tasks import end

log = logging.getLogger(__name__)

_PATIENCE_S: Final = 5.0
_PING_S: Final = 1.0
_SILENT_S: Final = 6.0


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
            pinging = asyncio.create_task(self._ping(connection), name=f"hold {name}")
            try:
                yield
            finally:
                await end(pinging)

    async def _ping(self, connection: Connection) -> None:
        """What is done without the lock does no harm, so its loss is only said."""
        try:
            await connection.execute(f"set idle_session_timeout = '{_SILENT_S:g}s'")
            while True:
                await asyncio.sleep(_PING_S)
                async with asyncio.timeout(_SILENT_S):
                    await connection.execute("select 1")
        except DRIVER_ERRORS as error:
            log.warning("the lock at %s is lost: %s", self._store.name, error)

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
