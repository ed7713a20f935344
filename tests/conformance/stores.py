"""Empty stores of each adapter, and a few words that the suite is written in."""

from __future__ import annotations

from typing import Protocol
from uuid import UUID, uuid4

from chain.event import Epoch, Event, NewEvent, Position, Tip
from chain.memory import MemoryStore
from chain.postgres import PostgresStore
from chain.store import Identity, Role, Store
from failover.local.postgres import LocalPostgres
from tests.databases import connect, new_database

CHAIN = "orders"
ONE = Epoch(1)
TWO = Epoch(2)
START = Position(0)


class Stores(Protocol):
    """Makes stores of one kind, each with its own storage."""

    async def bare(self, name: str = "a") -> Store:
        """A store that nobody prepared."""

    async def restart(self, store: Store) -> None:
        """Does to the store what a restart of its server does."""

    async def close(self) -> None: ...


class MemoryStores:
    async def bare(self, name: str = "a") -> Store:
        return MemoryStore(name)

    async def restart(self, store: Store) -> None:
        assert isinstance(store, MemoryStore)
        store.restart()

    async def close(self) -> None: ...


class CopyingStore(PostgresStore):
    """Applies every batch by COPY, however few its events are."""

    few = 0


class PostgresStores:
    make: type[PostgresStore] = PostgresStore

    def __init__(self, server: LocalPostgres) -> None:
        self._server = server
        self._made: list[tuple[Store, str]] = []

    async def bare(self, name: str = "a") -> Store:
        dsn = await new_database(self._server)
        store = self.make(dsn, name=name)
        self._made.append((store, dsn))
        return store

    async def restart(self, store: Store) -> None:
        connection = await connect(self.dsn(store))
        await connection.execute("update chain.alive set started = started - interval '1 second'")
        await connection.close()

    def dsn(self, store: Store) -> str:
        return next(dsn for made, dsn in self._made if made is store)

    async def close(self) -> None:
        for store, _ in self._made:
            await store.close()


class CopyingStores(PostgresStores):
    make = CopyingStore


async def empty(stores: Stores, name: str = "a") -> Store:
    store = await stores.bare(name)
    await store.prepare(Identity(CHAIN, name))
    return store


async def head(stores: Stores, name: str = "a") -> Store:
    """The head of epoch 1. Its log holds one event, its promotion."""
    store = await empty(stores, name)
    await store.promote(ONE, uuid4())
    return store


async def follower(stores: Stores, name: str = "b", *, of: str = "a", epoch: Epoch = ONE) -> Store:
    store = await empty(stores, name)
    await store.follow_upstream(epoch, of, Role.MIDDLE)
    return store


async def copy(source: Store, target: Store, upstream: str, *, limit: int = 1000) -> Tip:
    """Brings the target to the source's tip, as a link would."""
    epoch = (await target.state()).epoch
    while (batch := await source.read((await target.tip()).position, limit, 1 << 20)).count:
        await target.apply(batch, epoch, upstream)
    return await target.tip()


async def whole(store: Store) -> tuple[Event, ...]:
    events: list[Event] = []
    while (page := await store.log(Position(len(events)), 5000)).events:
        events += page.events
    return tuple(events)


def event(data: bytes = b"{}", ident: UUID | None = None) -> NewEvent:
    return NewEvent("Placed", data, b"", ident or uuid4())


def events(count: int) -> list[NewEvent]:
    return [event(b"%d" % number) for number in range(count)]
