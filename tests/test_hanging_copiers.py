"""A link's daemon that froze, or whose machine vanished, while it copied: nothing waits for what it left."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

import asyncpg
import pytest

from chain.encoding import COLUMNS
from chain.errors import OutcomeUnknown, StaleLink
from chain.event import Epoch, Expect, Position, Tip
from chain.postgres import PostgresStore
from chain.store import Batch, Ground, Identity, Role
from failover.local.postgres import LocalPostgres
from tests.conformance.stores import CHAIN, ONE, TWO, MemoryStores, events, head, whole
from tests.databases import new_database

SOON_S = 1.0
EVENTS = 5000
WITHIN = "within its batch"
MANY_ROWS = "select coalesce(max(tuples_processed), 0) >= 4000 from pg_stat_progress_copy"


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
    for _ in range(4):
        await source.add("s", Expect.ANY, events(EVENTS // 2))
    return [await source.read(Position(after), EVENTS, 1 << 30) for after in (0, EVENTS)]


@asynccontextmanager
async def hanging(follower: PostgresStore, batch: Batch, where: str) -> AsyncIterator[asyncio.Task[str]]:
    """A copier that goes no further: within its batch, or behind it."""

    async def rows() -> AsyncIterator[bytes]:
        data = b"".join(batch.chunks)
        yield data[:-100] if where == WITHIN else data
        if where == WITHIN:
            await never

    never: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    async with follower.session() as copier, follower.session() as watch:
        # As Sessions has it: a transaction that is idle is ended, and one that copies is not idle.
        await copier.execute("begin; select chain.apply_begin(1, 'a', 0, 0)")
        copying = asyncio.create_task(
            copier.copy_to_table(
                "event", schema_name="chain", source=rows(), format="binary", columns=COLUMNS
            )
        )
        async with asyncio.timeout(5):
            while not (copying.done() or await watch.fetchval(MANY_ROWS)):
                await asyncio.sleep(0.005)
        yield copying
        never.cancel()
        await asyncio.gather(copying, return_exceptions=True)


async def gone(follower: PostgresStore) -> bool:
    """Is there nobody who copies?"""
    async with follower.session() as watch:
        return not await watch.fetchval(
            "select exists (select from pg_locks where relation = 'chain.copying'::regclass)"
        )


hangs = pytest.mark.parametrize("where", [WITHIN, "behind its batch"])


@hangs
async def test_a_fence_does_not_wait_for_it(
    follower: PostgresStore, batches: list[Batch], where: str
) -> None:
    async with hanging(follower, batches[0], where):
        start = time.monotonic()
        await follower.fence(TWO)
        assert time.monotonic() - start < SOON_S
        assert not await gone(follower)


@hangs
async def test_a_promotion_ends_it_and_the_new_head_writes(
    follower: PostgresStore, batches: list[Batch], where: str
) -> None:
    async with hanging(follower, batches[0], where):
        start = time.monotonic()
        await follower.promote(TWO, uuid4())
        written = await follower.add("s", Expect.NO_STREAM, events(1))
        assert time.monotonic() - start < SOON_S
        assert await gone(follower)
    assert written.first_position == 2
    assert [e.epoch for e in await whole(follower)] == [TWO, TWO]


@hangs
async def test_another_link_ends_it_and_copies_the_same(
    follower: PostgresStore, batches: list[Batch], where: str
) -> None:
    async with hanging(follower, batches[0], where):
        start = time.monotonic()
        await follower.follow_upstream(TWO, "c", Role.TAIL)
        assert await gone(follower)
        for batch in batches:
            await follower.apply(batch, TWO, "c")
        assert time.monotonic() - start < SOON_S
    assert (await follower.tip()).position == 2 * EVENTS


async def test_a_link_of_the_same_assignment_ends_it_when_it_could_not_go_on(
    postgres_server: LocalPostgres, batches: list[Batch]
) -> None:
    """The first daemon is frozen, and a second one does its work."""
    second = PostgresStore(await new_database(postgres_server), name="b", timeout_s=0.5)
    await second.prepare(Identity(CHAIN, "b"))
    await second.follow_upstream(ONE, "a", Role.TAIL)
    async with hanging(second, batches[0], WITHIN):
        with pytest.raises(OutcomeUnknown):
            await second.apply(batches[0], ONE, "a")
        assert (await second.apply(batches[0], ONE, "a")).position == EVENTS
    await second.close()


@hangs
async def test_a_load_begins_and_ends_although_one_hangs(
    follower: PostgresStore, batches: list[Batch], where: str
) -> None:
    start = time.monotonic()
    async with hanging(follower, batches[0], where):
        await follower.begin_load(ONE, "a")
    async with hanging(follower, batches[0], where):
        await follower.end_load()
    assert time.monotonic() - start < 3 * SOON_S
    assert not (await follower.state()).loading


async def test_what_is_refused_leaves_a_link_in_peace(follower: PostgresStore, batches: list[Batch]) -> None:
    """The same assignment again, and whatever is stale."""
    async with hanging(follower, batches[0], WITHIN):
        await follower.follow_upstream(ONE, "a", Role.TAIL)
        with pytest.raises(StaleLink):
            await follower.follow_upstream(Epoch(0), "z", Role.TAIL)
        with pytest.raises(StaleLink):
            await follower.promote(Epoch(0), uuid4())
        elsewhere = Ground(Tip(Position(7), ONE), (await follower.state()).clock)
        with pytest.raises(StaleLink):
            await follower.promote(TWO, uuid4(), ground=elsewhere)
        assert not await gone(follower)


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


async def test_who_may_not_write_here_holds_up_nobody_and_who_may_end_nobody_waits_as_for_any_lock(
    follower: PostgresStore, batches: list[Batch]
) -> None:
    async with hanging(follower, batches[0], WITHIN), follower.session() as connection:
        await connection.execute("create role weak")
        try:
            await connection.execute("grant usage on schema chain to weak")
            await connection.execute("grant execute on function chain.end_copies() to weak")
            await connection.execute("set lock_timeout = '100ms'; set role weak")
            for mode in ("row exclusive", "share row exclusive", "access exclusive"):
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    async with connection.transaction():
                        await connection.execute(f"lock table chain.copying in {mode} mode")
            await connection.execute("reset role; grant update on chain.copying to weak; set role weak")
            with pytest.raises(asyncpg.LockNotAvailableError):
                await connection.execute("select chain.end_copies()")
        finally:
            await connection.execute("reset role; drop owned by weak; drop role weak")
        assert not await gone(follower)
