"""A link's daemon that froze, or whose machine vanished, while it copied: nothing waits for what it left."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

import asyncpg
import pytest

from chain.errors import OutcomeUnknown, StaleLink
from chain.event import Expect, Position, Tip
from chain.postgres import PostgresStore
from chain.store import Batch, Identity, Role
from failover.local.postgres import LocalPostgres
from tests.conformance.stores import CHAIN, ONE, TWO, MemoryStores, events, head, whole
from tests.databases import new_database

SOON_S = 1.0
EVENTS = 500


@pytest.fixture
async def follower(postgres_server: LocalPostgres) -> AsyncIterator[PostgresStore]:
    store = PostgresStore(await new_database(postgres_server), name="b")
    await store.prepare(Identity(CHAIN, "b"))
    await store.follow_upstream(ONE, "a", Role.TAIL)
    yield store
    await store.close()


@pytest.fixture
async def batches() -> list[Batch]:
    source = await head(MemoryStores())
    await source.add("s", Expect.ANY, events(2 * EVENTS))
    return [await source.read(Position(after), EVENTS, 1 << 30) for after in (0, EVENTS)]


@asynccontextmanager
async def hanging(follower: PostgresStore, batch: Batch) -> AsyncIterator[asyncio.Task[Tip]]:
    """A batch whose rows are all there, and whose link does not go on; one behind it waits, too."""
    never: asyncio.Future[Tip] = asyncio.get_running_loop().create_future()
    copying = asyncio.create_task(follower.apply(batch, ONE, "a", behind=never))
    async with asyncio.timeout(5), follower.session() as connection:
        while not await connection.fetchval(
            "select exists (select from pg_stat_activity where datname = current_database()"
            " and state = 'idle in transaction' and query ilike 'copy%')"
        ):
            await asyncio.sleep(0.005)
    yield copying
    never.cancel()
    await asyncio.gather(copying, return_exceptions=True)


async def test_a_fence_does_not_wait_for_a_batch(follower: PostgresStore, batches: list[Batch]) -> None:
    async with hanging(follower, batches[0]) as copying:
        start = time.monotonic()
        await follower.fence(TWO)
        assert time.monotonic() - start < SOON_S
        assert not copying.done()


async def test_a_promotion_ends_it_and_the_new_head_writes(
    follower: PostgresStore, batches: list[Batch]
) -> None:
    async with hanging(follower, batches[0]) as copying:
        start = time.monotonic()
        await follower.promote(TWO, uuid4())
        written = await follower.add("s", Expect.NO_STREAM, events(1))
        assert time.monotonic() - start < SOON_S
    with pytest.raises(OutcomeUnknown):
        copying.result()
    assert written.first_position == 2
    assert [e.epoch for e in await whole(follower)] == [TWO, TWO]


async def test_another_link_ends_it_and_copies_the_same(
    follower: PostgresStore, batches: list[Batch]
) -> None:
    async with hanging(follower, batches[0]) as copying:
        start = time.monotonic()
        await follower.follow_upstream(TWO, "c", Role.TAIL)
        for batch in batches:
            await follower.apply(batch, TWO, "c")
        assert time.monotonic() - start < SOON_S
    with pytest.raises(OutcomeUnknown):
        copying.result()
    assert (await follower.tip()).position == 2 * EVENTS


async def test_a_load_begins_although_one_hangs(follower: PostgresStore, batches: list[Batch]) -> None:
    async with hanging(follower, batches[0]):
        start = time.monotonic()
        await follower.begin_load(ONE, "a")
        assert time.monotonic() - start < SOON_S
    await follower.end_load()


async def test_the_same_assignment_again_leaves_its_link_in_peace(
    follower: PostgresStore, batches: list[Batch]
) -> None:
    async with hanging(follower, batches[0]) as copying:
        await follower.follow_upstream(ONE, "a", Role.TAIL)
        assert not copying.done()


async def test_none_begins_while_the_node_becomes_something_else(
    follower: PostgresStore, batches: list[Batch]
) -> None:
    """What was checked before would let rows in that the next writer waits for."""
    async with follower.session() as connection:
        async with connection.transaction():
            await connection.execute("select chain.follow_upstream(2, 'c', 'tail')")
            copying = asyncio.create_task(follower.apply(batches[0], ONE, "a"))
            await asyncio.sleep(0.1)
            assert not await connection.fetchval(
                "select exists (select from pg_locks where relation = 'chain.event'::regclass"
                " and mode = 'RowExclusiveLock' and pid <> pg_backend_pid())"
            )
        with pytest.raises(StaleLink):
            await copying


async def test_a_role_that_may_end_nobody_waits_as_long_as_for_any_lock(
    follower: PostgresStore, batches: list[Batch]
) -> None:
    async with hanging(follower, batches[0]) as copying, follower.session() as connection:
        await connection.execute("create role weak")
        try:
            await connection.execute("grant usage on schema chain to weak")
            await connection.execute("grant execute on function chain.end_copies() to weak")
            await connection.execute("set lock_timeout = '100ms'; set role weak")
            with pytest.raises(asyncpg.LockNotAvailableError):
                await connection.execute("select chain.end_copies()")
        finally:
            await connection.execute("reset role; drop owned by weak; drop role weak")
        assert not copying.done()
