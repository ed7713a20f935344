"""A head commits before it flushes, and so does a follower that is behind.

What a crash then takes back, nobody has been told of.

The servers here write their log to disk only when somebody waits for it, and are killed with all that they
had in memory. A committed event that nobody had flushed is then gone, which the first test shows.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID, uuid4

import asyncpg
import pytest

from chain.encoding import decode
from chain.errors import ChainError
from chain.event import Event, Expect, NewEvent, Position
from chain.memory import MemoryStore
from chain.postgres import PostgresStore
from chain.postgres.copying import Copying
from chain.store import Identity, Role
from chain.tasks import end
from failover.local import processes
from failover.local.postgres import LocalPostgres
from tests.conformance.stores import CHAIN, ONE, event
from tests.databases import connect, dsn

LAZY = {"wal_writer_delay": "10s", "wal_writer_flush_after": "1GB", "autovacuum": "off"}


@dataclass(slots=True)
class CrashingHead:
    """A head whose server can be killed with all that it has not flushed."""

    server: LocalPostgres
    database: str = "chain"
    store: PostgresStore = field(init=False)

    async def start(self) -> None:
        await self.server.start(processes.free_port(), settings=LAZY)
        self.open()

    def open(self) -> None:
        self.store = PostgresStore(dsn(self.server, self.database), name="a")

    async def commit_without_flush(self) -> UUID:
        """Appends as `chain.append_and_flush` does, and stops between its commit and its flush."""
        ident = uuid4()
        behind = await connect(dsn(self.server, "chain"))
        async with behind.transaction():
            await behind.execute(
                "select from chain.append_group(array['unflushed'], array[1], array[-2], array[1], array[1],"
                " $1, array['Tested'], array[''::bytea], array[''::bytea])",
                [ident],
            )
            await behind.execute("set local synchronous_commit = off")
        await behind.close()
        return ident

    async def crash(self) -> None:
        """Kills the server, and starts it again with what was on its disk."""
        await self.server.kill()
        await self.store.close()
        await self.start()

    async def survivors(self) -> dict[UUID, Event]:
        page = await self.store.log(Position(0), 100_000)
        assert page.at_tip
        return {e.id: e for e in page.events}


@pytest.fixture
async def head(tmp_path: Path) -> AsyncIterator[CrashingHead]:
    server = LocalPostgres(tmp_path / "server")
    await server.init()
    head = CrashingHead(server)
    try:
        await head.start()
        await server.name_database("chain")
        await head.store.prepare(Identity(CHAIN, "a"))
        await head.store.promote(ONE, uuid4())
        await head.store.add("s", Expect.NO_STREAM, [event()])
        yield head
    finally:
        await head.store.close()
        await server.stop("immediate")


async def test_what_nobody_flushed_is_lost_in_a_crash(head: CrashingHead) -> None:
    """Else the tests below would show nothing."""
    for _ in range(3):  # a checkpoint may come in between
        ident = await head.commit_without_flush()
        await head.crash()
        if ident not in await head.survivors():
            return
        await head.store.promote(ONE, uuid4())
    pytest.fail("a committed event that was not flushed outlived three crashes")


async def _at(store: PostgresStore) -> set[UUID]:
    found = await store.at((await store.tip()).position)
    return {found.id} if found else set()


async def _log(store: PostgresStore) -> set[UUID]:
    return {e.id for e in (await store.log()).events}


async def _get(store: PostgresStore) -> set[UUID]:
    return {e.id for e in (await store.get("unflushed")).events}


async def _followed(store: PostgresStore) -> set[UUID]:
    async for page in store.follow():
        return {e.id for e in page.events}
    raise AssertionError


async def _read(store: PostgresStore) -> set[UUID]:
    return {e.id for e in decode((await store.read(Position(0), 100, 1_000_000)).chunks)}


@pytest.mark.parametrize("seen_by", [_at, _log, _get, _followed, _read])
async def test_what_a_reader_was_handed_outlives_a_crash(
    head: CrashingHead, seen_by: Callable[[PostgresStore], Awaitable[set[UUID]]]
) -> None:
    ident = await head.commit_without_flush()
    assert ident in await seen_by(head.store)
    await head.crash()
    assert ident in await head.survivors()


async def test_a_tip_that_was_told_outlives_a_crash(head: CrashingHead) -> None:
    await head.commit_without_flush()
    tip = await head.store.tip()
    await head.crash()
    assert await head.store.tip() == tip


async def test_a_conflict_that_was_told_over_sql_outlives_a_crash(head: CrashingHead) -> None:
    """It tells of an event that was not flushed yet."""
    ident = await head.commit_without_flush()
    behind = await connect(dsn(head.server, "chain"))
    with pytest.raises(asyncpg.PostgresError) as refusal:
        await behind.execute(
            "select chain.append('unflushed', -1, array[gen_random_uuid()], array['Tested'],"
            " array[''::bytea], array[''::bytea])"
        )
    assert refusal.value.sqlstate == "GC001"
    await head.crash()
    await behind.close()
    assert ident in await head.survivors()


BATCH = Copying.few + 50
"""So many events are applied by COPY."""


@pytest.fixture
async def source() -> MemoryStore:
    source = MemoryStore("a")
    await source.prepare(Identity(CHAIN, "a"))
    await source.promote(ONE, uuid4())
    await source.add("s", Expect.NO_STREAM, [event() for _ in range(4 * BATCH)])
    return source


@pytest.fixture
async def follower(head: CrashingHead) -> CrashingHead:
    """The same server with an empty follower on it instead."""
    async with head.store.session() as connection:
        await connection.execute("create database follower")
    head.database = "follower"
    await head.store.close()
    head.open()
    await head.store.prepare(Identity(CHAIN, "b"))
    await head.store.follow_upstream(ONE, "a", Role.TAIL)
    return head


async def test_a_batch_that_others_follow_is_not_flushed_for_itself(
    follower: CrashingHead, source: MemoryStore
) -> None:
    """What a crash takes back is a whole batch, and a link goes on before it."""
    for _ in range(3):  # a checkpoint may come in between
        before = await follower.store.tip()
        batch = await source.read(before.position, BATCH, 1 << 20)
        assert (batch.count, batch.at_tip) == (BATCH, False)
        applied = await follower.store.apply(batch, ONE, "a")
        await follower.crash()
        if await follower.store.tip() == before:
            assert await follower.store.apply(batch, ONE, "a") == applied
            return
    pytest.fail("a batch that was not flushed outlived three crashes")


@pytest.mark.parametrize("is_last", [False, True], ids=["a tip that was told", "the last batch"])
async def test_of_a_follower_outlives_a_crash(
    follower: CrashingHead, source: MemoryStore, is_last: bool
) -> None:
    batch = await source.read(Position(0), 10 * BATCH if is_last else BATCH, 1 << 20)
    assert batch.at_tip is is_last
    applied = await follower.store.apply(batch, ONE, "a")
    if not is_last:
        assert await follower.store.tip() == applied
    await follower.crash()
    assert await follower.store.tip() == applied


async def test_what_was_acknowledged_or_followed_outlives_crashes_under_load(head: CrashingHead) -> None:
    acknowledged: dict[UUID, Position] = {}
    followed: list[Event] = []
    enough = asyncio.Event()

    async def write(number: int) -> None:
        while True:
            new = NewEvent("Tested", b"")
            answer = await head.store.add(f"s-{number}", Expect.ANY, [new])
            acknowledged[new.id] = answer.first_position
            if len(acknowledged) >= 500 and len(followed) >= 500:
                enough.set()

    async def follow() -> None:
        async for page in head.store.follow():
            followed.extend(page.events)

    tasks = [asyncio.create_task(write(n)) for n in range(16)] + [asyncio.create_task(follow())]
    try:
        async with asyncio.timeout(60):
            await enough.wait()
        await head.server.kill()
        for ended in await asyncio.gather(*tasks, return_exceptions=True):
            assert isinstance(ended, ChainError), ended
    finally:
        for task in tasks:
            await end(task)
    await head.store.close()
    await head.start()
    kept = await head.survivors()
    assert {ident: kept[ident].position for ident in acknowledged} == acknowledged
    assert [kept[e.id] for e in followed] == followed
