"""Nodes of ours to measure: heads, followers, and logs that are filled in the shortest way.

A filled log is what the product itself would have written: dense positions and revisions, the tip in the
node's row. `verify` holds on it, and links copy it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from bench.data import FIRST_POSITION, ROWS
from bench.servers import Servers, connected
from chain.event import Epoch, Position
from chain.postgres import PostgresStore
from chain.store import Identity, Role

CHAIN: Final = "bench"
EPOCH: Final = Epoch(1)
_CHUNK: Final = 50_000
"""Rows that are filled in one transaction."""

_FILL: Final = f"""
    insert into chain.event (position, epoch, stream, revision, id, type, data, metadata, recorded_at)
    select position, 1, stream, revision, id, type, data, metadata, recorded_at from ({ROWS}) as filled
"""


def promotion() -> UUID:
    """Of the one epoch that a bench's chain has."""
    return UUID(int=1)


@dataclass(frozen=True, slots=True)
class Node:
    """A database with a node of ours in it."""

    name: str
    server: str
    dsn: str

    def store(self) -> PostgresStore:
        """Who opens it closes it."""
        return PostgresStore(self.dsn, name=self.name, timeout_s=120.0)


@asynccontextmanager
async def opened(node: Node) -> AsyncIterator[PostgresStore]:
    store = node.store()
    try:
        yield store
    finally:
        await store.close()


@dataclass(frozen=True, slots=True)
class FullLog:
    """A node whose log holds rows of `bench.data`."""

    node: Node
    tip: Position

    @property
    def events(self) -> int:
        return self.tip - FIRST_POSITION + 1


async def make_head(servers: Servers, server: str) -> Node:
    """A head without a lease, with an empty log."""
    node = Node(server, server, await servers.new_database(server))
    async with opened(node) as store:
        await store.prepare(Identity(CHAIN, node.name))
        await store.promote(EPOCH, promotion())
    return node


@asynccontextmanager
async def new_head(servers: Servers, server: str) -> AsyncIterator[Node]:
    """The same, for the time of the block."""
    node = await make_head(servers, server)
    try:
        yield node
    finally:
        await servers.drop(server, node.dsn)


@asynccontextmanager
async def new_follower(servers: Servers, source: Node, server: str = "target") -> AsyncIterator[Node]:
    """An empty tail of `source`, for the time of the block."""
    async with servers.database(server) as dsn:
        node = Node(server, server, dsn)
        async with opened(node) as store:
            await store.prepare(Identity(CHAIN, node.name))
            await store.follow_upstream(EPOCH, source.name, Role.TAIL)
        yield node


async def fill(dsn: str, events: int, *, after: int = 0) -> Position:
    """Puts rows into the log of the head at `dsn`, so that it has `events` of them; gives the tip.

    `after` is how many it has already.
    """
    async with connected(dsn) as connection:
        for first in range(after, events, _CHUNK):
            last = min(first + _CHUNK, events) - 1
            async with connection.transaction():
                await connection.execute("select from chain.node for no key update")
                await connection.execute(_FILL, first, last, timeout=600)
                await connection.execute(
                    "update chain.node set tip_position = $1, tip_epoch = 1", last + FIRST_POSITION
                )
        # No reader is to pay for what the writer left to do.
        await connection.execute("vacuum (analyze) chain.event", timeout=600)
        await connection.execute("checkpoint", timeout=600)
    return Position(events + FIRST_POSITION - 1)
