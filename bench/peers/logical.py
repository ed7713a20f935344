"""Postgres's own logical replication of the log's table: the copy that begins it, and the changes after that.

A follower that is behind is brought up by the changes, which the source decodes from its write-ahead log. One
slot is made before the rows are written, and copied for each run, so each run gets the same changes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from bench.servers import Servers, connected

COPY: Final = "logical replication, its initial copy"
CHANGES: Final = "logical replication, changes"
_BASE: Final = "bench_base"


async def publish(dsn: str) -> None:
    """To be called before the source's rows are written."""
    async with connected(dsn) as connection:
        await connection.execute("create publication bench for table chain.event")
        await connection.execute("select pg_create_logical_replication_slot($1, 'pgoutput')", _BASE)


async def unpublish(dsn: str) -> None:
    """A slot that is left keeps the source's write-ahead log for ever."""
    async with connected(dsn) as connection:
        await connection.execute(
            "select pg_drop_replication_slot(slot_name) from pg_replication_slots"
            " where slot_name = $1 and database = current_database()",
            _BASE,
        )


@asynccontextmanager
async def subscribed(servers: Servers, source: str, target: str, *, changes: bool) -> AsyncIterator[None]:
    """Subscribes `target` to `source` for the time of the block: to all that is there, or to all changes."""
    slot = f"bench_{target.rpartition('/')[2].partition('?')[0]}"
    options = "copy_data = true"
    if changes:
        await servers.execute(source, f"select pg_copy_logical_replication_slot('{_BASE}', '{slot}')")
        options = "copy_data = false, create_slot = false"
    await servers.execute(
        target,
        f"create subscription {slot} connection '{source}' publication bench"
        f" with ({options}, slot_name = '{slot}')",
    )
    try:
        yield
    finally:
        await servers.execute(target, f"drop subscription {slot}")


async def wait_copied(target: str, rows: int, *, wait_s: float = 600.0) -> None:
    """Waits until the target holds so many rows. Raises TimeoutError."""
    async with connected(target) as connection, asyncio.timeout(wait_s):
        # Positions are dense, and a transaction's rows appear together.
        while (await connection.fetchval("select max(position) from chain.event") or 0) < rows:
            await asyncio.sleep(0.01)
