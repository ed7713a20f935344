"""An append whose server freezes: nobody hears that it was stored once another head may have taken over."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from uuid import uuid4

import pytest

from chain.errors import LeaseExpired, OutcomeUnknown
from chain.event import Appended, Expect, NewEvent
from chain.postgres import PostgresStore
from chain.postgres.sessions import Connection
from chain.store import Identity
from failover.local.postgres import LocalPostgres
from tests.conformance.stores import CHAIN, ONE, event, events
from tests.databases import connect, new_database

LEASE = timedelta(milliseconds=500)
GATE = 7
"""The advisory lock that stands for whatever a backend waits for."""

_PASS_THE_GATE = f"""
    create function pass_the_gate() returns trigger language plpgsql as $$
    begin
        perform pg_advisory_xact_lock_shared({GATE});
        return new;
    end
    $$;
"""
BEFORE_ITS_LAST_CHECK = (
    _PASS_THE_GATE
    + "create trigger gate before insert on chain.event for each row execute function pass_the_gate()"
)
AT_ITS_COMMIT = (
    _PASS_THE_GATE
    + "create constraint trigger gate after insert on chain.event deferrable initially deferred"
    " for each row execute function pass_the_gate()"
)


@dataclass(frozen=True, slots=True)
class Head:
    """The head of epoch 1, and two connections behind its back."""

    store: PostgresStore
    behind: Connection
    watching: Connection

    async def lease(self, duration: timedelta | None) -> None:
        await self.store.renew(ONE, (await self.store.state()).clock, duration)

    async def wait_for_the_end(self) -> None:
        await self._until(
            lambda: self.watching.fetchval("select clock_timestamp() >= lease_until from chain.node")
        )

    async def waiting_backend(self) -> int:
        """The process that waits for a lock."""
        pid: int = await self._until(
            lambda: self.watching.fetchval(
                "select pid from pg_stat_activity"
                " where wait_event_type = 'Lock' and datname = current_database()"
            )
        )
        return pid

    async def _until(self, ask: Callable[[], Awaitable[int | None]]) -> int:
        async with asyncio.timeout(10):
            while not (answer := await ask()):
                await asyncio.sleep(0.005)
        return answer


@pytest.fixture
async def head(postgres_server: LocalPostgres) -> AsyncIterator[Head]:
    dsn = await new_database(postgres_server)
    store = PostgresStore(dsn, name="a")
    await store.prepare(Identity(CHAIN, "a"))
    await store.promote(ONE, uuid4())
    await store.add("s", Expect.NO_STREAM, [event()])  # it is connected, and its plans are made
    behind, watching = await connect(dsn), await connect(dsn)
    yield Head(store, behind, watching)
    behind.terminate()
    watching.terminate()
    await store.close()


async def freeze_beyond_the_lease(head: Head, adding: asyncio.Task[Appended], release: str) -> None:
    """Stops the backend of `adding`, lets it go on when its lease has ended; meanwhile nobody is answered."""
    pid = await head.waiting_backend()
    os.kill(pid, signal.SIGSTOP)
    try:
        await head.wait_for_the_end()
        await head.behind.execute(release)
        assert not adding.done()
    finally:
        os.kill(pid, signal.SIGCONT)


def add(head: Head, new: list[NewEvent]) -> asyncio.Task[Appended]:
    return asyncio.create_task(head.store.add("s", Expect.ANY, new))


async def test_frozen_while_it_waits_for_the_node_it_stores_nothing(head: Head) -> None:
    before = await head.store.tip()
    await head.behind.execute("begin; select from chain.node for update")
    # The deadline is put there by who holds the row: nobody else could.
    await head.behind.execute("update chain.node set lease_until = clock_timestamp() + $1", LEASE)
    adding = add(head, events(2))
    pid = await head.waiting_backend()
    os.kill(pid, signal.SIGSTOP)
    try:
        async with asyncio.timeout(10):
            while not await head.behind.fetchval("select clock_timestamp() >= lease_until from chain.node"):
                await asyncio.sleep(0.005)
        await head.behind.execute("commit")
        assert not adding.done()
    finally:
        os.kill(pid, signal.SIGCONT)
    with pytest.raises(LeaseExpired):
        await adding
    assert await head.store.tip() == before


async def test_frozen_before_its_last_check_it_stores_nothing(head: Head) -> None:
    await head.behind.execute(BEFORE_ITS_LAST_CHECK)
    await head.behind.execute(f"select pg_advisory_lock({GATE})")
    before = await head.store.tip()
    await head.lease(LEASE)
    adding = add(head, events(2))
    await freeze_beyond_the_lease(head, adding, f"select pg_advisory_unlock({GATE})")
    with pytest.raises(LeaseExpired):
        await adding
    assert await head.store.tip() == before


async def test_frozen_after_its_last_check_nobody_knows(head: Head) -> None:
    await head.behind.execute(AT_ITS_COMMIT)
    await head.behind.execute(f"select pg_advisory_lock({GATE})")
    before = await head.store.tip()
    await head.lease(LEASE)
    new = events(2)
    adding = add(head, new)
    await freeze_beyond_the_lease(head, adding, f"select pg_advisory_unlock({GATE})")
    with pytest.raises(OutcomeUnknown) as unknown:
        await adding
    assert unknown.value.retriable
    assert (await head.store.tip()).position == before.position + 2, "it was stored, which proves nothing"

    with pytest.raises(LeaseExpired):  # nor is it told to who asks again, as long as there is no lease
        await head.store.add("s", Expect.ANY, new)
    await head.lease(LEASE)
    again = await head.store.add("s", Expect.ANY, new)
    assert (again.repeated, again.first_position) == (True, before.position + 1)


async def test_a_slow_commit_within_the_lease_or_without_one_is_an_answer(head: Head) -> None:
    await head.behind.execute(AT_ITS_COMMIT)
    for duration in (timedelta(minutes=1), None):
        await head.lease(duration)
        await head.behind.execute(f"select pg_advisory_lock({GATE})")
        adding = add(head, events(2))
        await head.waiting_backend()
        await head.behind.execute(f"select pg_advisory_unlock({GATE})")
        assert (await adding).token == await head.store.tip()
