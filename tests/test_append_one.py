"""The short way of one event: what it looked up before it got the node's row may have changed by then."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from uuid import uuid4

import pytest

from chain.errors import Fenced, LeaseExpired, NotHead, WrongRevision
from chain.event import Appended, Expect, NewEvent, Position, Revision
from chain.postgres import PostgresStore
from chain.postgres.sessions import Connection
from chain.store import Identity, Role
from failover.local.postgres import LocalPostgres
from tests.conformance.stores import CHAIN, ONE, TWO, event, whole
from tests.databases import connect, new_database

BESIDE = "select * from chain.append($1, $2, $3, $4, $5, $6)"
PROMOTE = "select chain.promote($1, gen_random_uuid(), '', null, null, null, null)"


@dataclass(frozen=True, slots=True)
class Head:
    """The head of epoch 1 with one event in stream `s`, and a connection behind its back."""

    store: PostgresStore
    behind: Connection
    watch: Connection
    dsn: str

    async def append_beside(self, stream: str, expected: int, new: NewEvent) -> None:
        await self.behind.fetchrow(BESIDE, stream, expected, [new.id], [new.type], [new.data], [new.metadata])

    @asynccontextmanager
    async def waiting(self, new: NewEvent) -> AsyncIterator[asyncio.Task[Appended]]:
        """An append to `s`, while it waits for the node's row; the block may change what it has looked up."""
        async with self.behind.transaction():
            await self.behind.execute("select from chain.node for no key update")
            adding = asyncio.create_task(self.store.add("s", Revision(0), [new]))
            await self._until_it_waits()
            yield adding

    async def _until_it_waits(self) -> None:
        async with asyncio.timeout(5):
            while not await self.watch.fetchval(
                "select exists (select from pg_stat_activity where wait_event_type = 'Lock'"
                " and datname = current_database() and query like '%append_one%')"
            ):
                await asyncio.sleep(0.005)


@pytest.fixture
async def head(postgres_server: LocalPostgres) -> AsyncIterator[Head]:
    dsn = await new_database(postgres_server)
    store = PostgresStore(dsn, name="a")
    await store.prepare(Identity(CHAIN, "a"))
    await store.promote(ONE, uuid4())
    await store.add("s", Expect.NO_STREAM, [event()])
    behind, watch = await connect(dsn), await connect(dsn)
    yield Head(store, behind, watch, dsn)
    behind.terminate()
    watch.terminate()
    await store.close()


async def test_it_needs_no_other_way(head: Head) -> None:
    await head.behind.execute("drop procedure chain.append_and_flush")
    new = event()
    answer = await head.store.add("s", Revision(0), [new])
    begun = await head.store.add("t", Expect.NO_STREAM, [event()])

    assert answer == Appended(Position(3), Position(3), Revision(1), ONE, repeated=False)
    assert begun == Appended(Position(4), Position(4), Revision(0), ONE, repeated=False)
    stored = (await whole(head.store))[2]
    assert (stored.id, stored.type, stored.data) == (new.id, new.type, new.data)
    assert (await head.store.tip()).position == 4


async def test_a_stream_that_moved_on_meanwhile_is_a_conflict(head: Head) -> None:
    async with head.waiting(event()) as adding:
        await head.append_beside("s", 0, event())
    with pytest.raises(WrongRevision) as refusal:
        await adding
    assert refusal.value.current == 1
    assert [e.position for e in await whole(head.store)] == [1, 2, 3]


async def test_what_another_stored_meanwhile_is_its_answer(head: Head) -> None:
    new = event()
    async with head.waiting(new) as adding:
        await head.append_beside("s", 0, new)
    assert await adding == Appended(Position(3), Position(3), Revision(1), ONE, repeated=True)


async def test_an_id_that_another_took_meanwhile_for_another_stream_is_a_conflict(head: Head) -> None:
    new = event()
    async with head.waiting(new) as adding:
        await head.append_beside("t", -1, new)
    with pytest.raises(WrongRevision):
        await adding
    assert [e.stream for e in await whole(head.store)][1:] == ["s", "t"]


async def test_other_streams_may_grow_meanwhile(head: Head) -> None:
    async with head.waiting(event()) as adding:
        await head.append_beside("t", -1, event())
    assert (await adding).first_position == 4


async def test_a_fence_that_came_first_holds(head: Head) -> None:
    async with head.waiting(event()) as adding:
        await head.behind.execute("select chain.fence(2)")
    with pytest.raises(Fenced):
        await adding
    assert (await head.store.tip()).position == 2


async def test_a_lease_that_ran_out_in_the_queue_is_over(head: Head) -> None:
    clock = (await head.store.state()).clock
    await head.behind.execute("update chain.node set lease_until = $1::timestamptz + interval '0.3 s'", clock)
    async with head.waiting(event()) as adding:
        await asyncio.sleep(0.4)
    with pytest.raises(LeaseExpired):
        await adding
    assert (await head.store.tip()).position == 2


async def test_a_log_that_was_cut_back_meanwhile_is_looked_at_again(head: Head) -> None:
    """Between two reigns the stream's event may have gone, with its place in the log."""
    async with head.waiting(event()) as adding:
        await head.behind.execute("select chain.fence(2)")
        await head.behind.execute("select chain.follow_upstream(2, 'b', 'tail')")
        await head.behind.execute("delete from chain.event where position = 2")
        await head.behind.execute("update chain.node set tip_position = 1, tip_epoch = 1")
        await head.behind.execute(PROMOTE, 3)
    with pytest.raises(WrongRevision) as refusal:
        await adding
    assert refusal.value.current == -1
    assert [e.epoch for e in await whole(head.store)] == [1, 3]


async def test_a_new_reign_of_the_same_node_takes_it(head: Head) -> None:
    async with head.waiting(event()) as adding:
        await head.behind.execute(PROMOTE, 2)
    answer = await adding
    assert (answer.epoch, answer.first_position) == (TWO, 4)


async def test_a_follower_refuses_it(head: Head) -> None:
    await head.store.fence(TWO)
    await head.store.follow_upstream(TWO, "b", Role.TAIL)
    with pytest.raises(NotHead):
        await head.store.add("s", Revision(0), [event()])


async def test_of_many_who_expect_the_same_one_wins(head: Head) -> None:
    """Each on a store of its own: they meet in the server."""
    others = [PostgresStore(head.dsn, name="a") for _ in range(8)]
    for revision in range(5):
        results = await asyncio.gather(
            *(store.add("s", Revision(revision), [event()]) for store in others), return_exceptions=True
        )
        won = [r for r in results if isinstance(r, Appended)]
        lost = [r for r in results if isinstance(r, WrongRevision)]
        assert (len(won), len(lost)) == (1, 7), results
        assert {r.current for r in lost} == {revision + 1}
    log = await whole(head.store)
    assert [e.position for e in log] == list(range(1, 8))
    for store in others:
        await store.close()
