"""Databases that are used again: emptied in a few milliseconds, where making one takes hundreds."""

from __future__ import annotations

from chain.postgres import PostgresStore
from chain.store import Identity, Store
from failover.local.postgres import LocalPostgres
from tests.conformance.stores import PostgresStores
from tests.databases import connect, new_database

_WASH = """
    truncate chain.event, chain.progress, chain.dead, chain.alive, chain.lease, chain.segment,
        chain.node;
    insert into chain.node default values;
"""


class Databases:
    """Prepared databases, of which nobody uses the `free` ones."""

    def __init__(self, server: LocalPostgres) -> None:
        self.server = server
        self.free: list[str] = []

    async def take(self) -> str:
        if not self.free:
            dsn = await new_database(self.server)
            store = PostgresStore(dsn, name="first")
            await store.prepare(Identity("first", "first"))
            await store.close()
            self.free.append(dsn)
        dsn = self.free.pop()
        behind = await connect(dsn)
        await behind.execute(_WASH)
        await behind.close()
        return dsn


class WashedStores(PostgresStores):
    """Stores with the schema, but without a name."""

    def __init__(self, databases: Databases) -> None:
        super().__init__(databases.server)
        self._databases = databases

    async def bare(self, name: str = "a") -> Store:
        dsn = await self._databases.take()
        store = PostgresStore(dsn, name=name)
        self._made.append((store, dsn))
        return store

    async def close(self) -> None:
        await super().close()
        self._databases.free += (dsn for _, dsn in self._made)
