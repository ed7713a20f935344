"""What the Postgres store promises when its server hangs, dies, restarts, or is used without us."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from uuid import uuid4

import asyncpg
import pytest

from chain.errors import ChainError, Corrupt, OutcomeUnknown, Restarted, StaleLink, Unavailable
from chain.event import Appended, Epoch, Expect, NewEvent, Position, Revision
from chain.postgres import PostgresStore
from chain.postgres.sessions import Connection
from chain.store import Identity, Role
from failover.local import processes
from failover.local.postgres import LocalPostgres
from tests.conformance.stores import CHAIN, ONE, TWO, event, events, whole
from tests.databases import connect, new_database

APPEND = "select * from chain.append($1, $2, $3, $4, $5, $6)"


@pytest.fixture(scope="module")
async def own_server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LocalPostgres]:
    """A server that may be hurt."""
    server = LocalPostgres(tmp_path_factory.mktemp("own"))
    await server.init()
    await server.start(processes.free_port(), settings={"fsync": "off"})
    yield server
    processes.signal_all(server.data, signal.SIGCONT)
    await server.stop("immediate")


async def _head(server: LocalPostgres, *, timeout_s: float = 10.0) -> tuple[PostgresStore, str]:
    dsn = await new_database(server)
    patient = PostgresStore(dsn, name="a")
    await patient.prepare(Identity(CHAIN, "a"))
    await patient.promote(ONE, uuid4())
    await patient.close()
    return PostgresStore(dsn, name="a", timeout_s=timeout_s), dsn


@dataclass(frozen=True, slots=True)
class Head:
    """The head of epoch 1, and a connection behind its back."""

    store: PostgresStore
    behind: Connection
    dsn: str


@pytest.fixture
async def head(postgres_server: LocalPostgres) -> AsyncIterator[Head]:
    store, dsn = await _head(postgres_server)
    connection = await connect(dsn)
    yield Head(store, connection, dsn)
    connection.terminate()
    await store.close()


@pytest.fixture
async def fragile(own_server: LocalPostgres) -> AsyncIterator[PostgresStore]:
    """A head of epoch 1, on the server that may be hurt."""
    store, _ = await _head(own_server, timeout_s=1.0)
    yield store
    await store.close()


async def until_it_answers(ask: Callable[[], Awaitable[object]]) -> None:
    async with asyncio.timeout(30):
        while True:
            try:
                await ask()
                return
            except Unavailable:
                await asyncio.sleep(0.05)


# A server that fails.


async def test_a_hung_server_costs_the_timeout_and_no_more(
    own_server: LocalPostgres, fragile: PostgresStore
) -> None:
    clock = asyncio.get_running_loop().time
    new = [event()]
    await fragile.add("s", Expect.NO_STREAM, events(1))

    processes.signal_all(own_server.data, signal.SIGSTOP)
    try:
        began = clock()
        results = await asyncio.gather(
            fragile.tip(),
            fragile.state(),
            fragile.read(Position(0), 10, 1000),
            fragile.add("t", Expect.NO_STREAM, new),
            return_exceptions=True,
        )
        took_s = clock() - began
    finally:
        processes.signal_all(own_server.data, signal.SIGCONT)

    assert [type(result) for result in results] == [Unavailable, Unavailable, Unavailable, OutcomeUnknown]
    assert took_s < 2.0
    await until_it_answers(fragile.tip)
    await until_it_answers(lambda: fragile.add("t", Expect.NO_STREAM, new))
    assert [e.id for e in (await fragile.get("t")).events] == [new[0].id]


async def test_nobody_there_is_unavailable() -> None:
    store = PostgresStore(f"postgresql://x@127.0.0.1:{processes.free_port()}/x?sslmode=disable", name="a")
    for call in (store.tip(), store.add("s", Expect.ANY, [event()]), store.fence(ONE)):
        with pytest.raises(Unavailable) as refusal:
            await call
        assert type(refusal.value) is Unavailable
    await store.wait(Position(0), 0.05)
    await store.close()


async def test_a_backend_killed_in_mid_append_leaves_the_outcome_unknown_and_a_retry_safe(
    head: Head,
) -> None:
    store, behind = head.store, head.behind
    killer = await connect(head.dsn)
    new = events(2)
    async with behind.transaction():
        await behind.execute("select from chain.node for update")
        adding = asyncio.create_task(store.add("s", Expect.NO_STREAM, new))
        async with asyncio.timeout(5):
            while not await killer.fetchval(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where wait_event_type = 'Lock' and datname = current_database()"
            ):
                await asyncio.sleep(0.01)
        with pytest.raises(OutcomeUnknown):
            await adding
    await killer.close()

    first = await store.add("s", Expect.NO_STREAM, new)
    again = await store.add("s", Expect.NO_STREAM, new)
    assert (first.first_position, again.first_position, again.repeated) == (2, 2, True)


async def test_a_head_that_crashed_takes_no_writes_until_it_is_promoted_again(
    own_server: LocalPostgres, fragile: PostgresStore
) -> None:
    """One killed backend makes the server go through crash recovery, without a new postmaster."""
    before = await fragile.add("s", Expect.NO_STREAM, events(3))
    victim = next(
        p for p in processes.find(own_server.data) if not p.is_postmaster and "geochain" in str(p.command)
    )
    os.kill(victim.pid, signal.SIGKILL)
    await until_it_answers(fragile.tip)
    await expect_restarted(fragile, before)


async def test_a_head_that_was_restarted_takes_no_writes_until_it_is_promoted_again(
    own_server: LocalPostgres, fragile: PostgresStore
) -> None:
    before = await fragile.add("s", Expect.NO_STREAM, events(3))
    port = own_server.port
    await own_server.stop()
    with pytest.raises(Unavailable):
        await fragile.tip()
    await own_server.start(port, settings={"fsync": "off"})
    await until_it_answers(fragile.tip)
    await expect_restarted(fragile, before)


async def expect_restarted(store: PostgresStore, before: Appended) -> None:
    assert await store.tip() == before.token
    with pytest.raises(Restarted):
        await store.add("s", Expect.ANY, [event()])
    assert (await store.state()).restarted
    await store.promote(TWO, uuid4())
    assert (await store.add("s", Revision(2), [event()])).first_position == before.last_position + 2


async def test_hints_come_again_after_the_listening_connection_was_cut(
    head: Head,
) -> None:
    store, behind = head.store, head.behind
    await store.wait(Position(1), 0.01)
    await behind.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity"
        " where query ilike 'listen%' and datname = current_database()"
    )
    await store.add("s", Expect.ANY, [event()])
    async with asyncio.timeout(5):
        async for page in store.follow(Position(1)):
            assert page.events[0].stream == "s"
            break
        else:
            pytest.fail("follow ended")


# Several processes.


async def test_writers_over_many_connections_leave_no_hole_that_any_reader_sees(
    postgres_server: LocalPostgres,
) -> None:
    first, dsn = await _head(postgres_server)
    stores = [first, *(PostgresStore(dsn, name="a") for _ in range(9))]
    done = asyncio.Event()

    async def read(store: PostgresStore) -> None:
        last = 0
        while not done.is_set():
            page = await store.log(Position(last), 1000)
            assert [e.position for e in page.events] == list(range(last + 1, page.next + 1))
            last = page.next

    async def write(store: PostgresStore, number: int) -> None:
        for n in range(8):
            await store.add(f"s-{(number + n) % 20}", Expect.ANY, events(1 + n % 3))

    async with asyncio.TaskGroup() as group:
        for store in stores[:3]:
            group.create_task(read(store))
        await asyncio.gather(*(write(stores[n % 10], n) for n in range(50)))
        done.set()

    log = await whole(first)
    assert [e.position for e in log] == list(range(1, len(log) + 1))
    assert len(log) == 1 + 50 * (3 * 1 + 3 * 2 + 2 * 3)
    for store in stores:
        await store.close()


async def test_a_fence_and_an_append_never_pass_each_other(postgres_server: LocalPostgres) -> None:
    first, dsn = await _head(postgres_server)
    second = PostgresStore(dsn, name="a")
    for epoch in range(2, 12):
        adding = [asyncio.create_task(first.add(f"{epoch}-{n}", Expect.ANY, [event()])) for n in range(20)]
        final = await second.fence(Epoch(epoch))
        for result in await asyncio.gather(*adding, return_exceptions=True):
            assert isinstance(result, ChainError) or (
                isinstance(result, Appended) and result.last_position <= final.position
            )
        assert await second.tip() == final
        await second.promote(Epoch(epoch), uuid4())
    await first.close()
    await second.close()


async def test_an_event_that_can_not_be_stored_fails_its_caller_alone(
    head: Head,
) -> None:
    store = head.store
    poison = NewEvent("T", "text, not bytes")  # type: ignore[arg-type]
    results = await asyncio.gather(
        *(store.add(f"s-{n}", Expect.ANY, [poison if n == 5 else event()]) for n in range(10)),
        return_exceptions=True,
    )
    assert [n for n, result in enumerate(results) if not isinstance(result, Appended)] == [5]
    assert isinstance(results[5], ChainError)


async def test_appends_stay_fast_while_a_new_log_grows(head: Head) -> None:
    """Plans are kept by a connection: one from when the log was short must not scan it when it is long."""
    store, behind = head.store, head.behind
    for _ in range(10):
        await store.add("s", Expect.ANY, [event()])
    await behind.execute("analyze chain.event")
    for _ in range(10):
        await store.add("s", Expect.ANY, [event()])
        await store.get("s", limit=1)
        await store.log(Position(3), 1)
    await store.add("t", Expect.ANY, events(500))
    await behind.execute("select pg_stat_clear_snapshot()")
    await store.close()  # so that its counts are written down
    async with asyncio.timeout(5):
        while not (
            counts := await behind.fetchrow(
                "select seq_scan from pg_stat_user_tables where relname = 'event' and idx_scan > 500"
            )
        ):
            await asyncio.sleep(0.05)
    assert counts["seq_scan"] <= 4  # `analyze`, and what made the table and its indexes


# SQL, without us.


async def test_sql_is_enough_to_append(head: Head) -> None:
    store, behind = head.store, head.behind
    ids = [uuid4(), uuid4()]
    call = (APPEND, "s", -1, ids, ["T", "U"], [b"1", b"2"], [b"", b"{}"])
    assert tuple(await behind.fetchrow(*call) or ()) == (2, 1, 1, False)
    assert tuple(await behind.fetchrow(*call) or ()) == (2, 1, 1, True)
    assert [(e.id, e.type, e.data, e.metadata) for e in (await store.get("s")).events] == [
        (ids[0], "T", b"1", b""),
        (ids[1], "U", b"2", b"{}"),
    ]


async def test_a_conflict_in_sql_is_gc001_and_tells_the_current_revision(
    head: Head,
) -> None:
    store, behind = head.store, head.behind
    await store.add("s", Expect.NO_STREAM, events(3))
    with pytest.raises(asyncpg.PostgresError) as refusal:
        await behind.execute(APPEND, "s", 7, [uuid4()], ["T"], [b""], [b""])
    assert refusal.value.sqlstate == "GC001"
    assert json.loads(str(refusal.value.as_dict()["detail"])) == {"current": 2}


@pytest.mark.parametrize(
    ("stream", "ids", "types", "data"),
    [
        ("$mine", 1, ["T"], [b""]),
        ("", 1, ["T"], [b""]),
        (None, 1, ["T"], [b""]),
        ("x" * 513, 1, ["T"], [b""]),
        ("s", 0, [], []),
        ("s", 4097, ["T"] * 4097, [b""] * 4097),
        ("s", 1, [""], [b""]),
        ("s", 1, [None], [b""]),
        ("s", 1, ["T"], [None]),
        ("s", 1, ["T"], [b"x" * (16 * 1024 * 1024 + 1)]),
        ("s", 2, ["T"], [b""]),
        ("s", 1, None, [b""]),
    ],
)
async def test_sql_refuses_what_breaks_a_rule(
    head: Head,
    stream: str | None,
    ids: int,
    types: list[str | None] | None,
    data: list[bytes | None],
) -> None:
    behind = head.behind
    with pytest.raises(asyncpg.PostgresError) as refusal:
        await behind.execute(APPEND, stream, -2, [uuid4() for _ in range(ids)], types, data, [b""] * ids)
    assert refusal.value.sqlstate == "GC006"


async def test_no_session_can_make_an_append_or_a_fence_less_durable(
    head: Head,
) -> None:
    behind = head.behind
    await behind.execute("set synchronous_commit = off")
    for call in (
        "select chain.append('s', -2, '{00000000-0000-0000-0000-000000000001}', '{T}', '{x}', '{x}')",
        "select chain.fence(1)",
        "select chain.promote(2, gen_random_uuid(), '', null, null, null, null)",
        "select chain.detach(3)",
        "select chain.follow_upstream(3, 'b', 'tail')",
        "select chain.apply_end(3, 'b', 3, 2, 0, true)",
    ):
        async with behind.transaction():
            await behind.execute(call)
            await behind.execute("select chain.tell(array['x'], array[1], array[1])")
            assert await behind.fetchval("show synchronous_commit") == "on", call


async def test_a_branch_that_waits_to_be_given_up_holds_up_nobody(head: Head) -> None:
    """It waits for a verifier that reads a segment; meanwhile the node hears of epochs and takes fences."""
    await head.store.follow_upstream(TWO, "b", Role.TAIL)
    tip = await head.store.tip()
    async with head.behind.transaction():
        await head.behind.execute("lock table chain.segment in row exclusive mode")  # as chain.seal does
        giving_up = asyncio.create_task(head.store.give_up(Position(0), tip, TWO, "b"))
        await until_waiting(head.behind)
        async with asyncio.timeout(5):
            await head.store.fence(Epoch(3))
        assert not giving_up.done()
    with pytest.raises(StaleLink):  # what was decided meanwhile holds
        await giving_up
    assert await head.store.tip() == tip


async def until_waiting(behind: Connection) -> None:
    async with asyncio.timeout(5):
        while not await behind.fetchval(
            "select exists (select from pg_locks where not granted and relation = 'chain.segment'::regclass)"
        ):
            await asyncio.sleep(0.01)


async def test_nobody_applies_with_no_upstream(head: Head) -> None:
    behind = head.behind
    with pytest.raises(asyncpg.PostgresError) as refusal:
        await behind.execute("select chain.apply_begin(1, null, 1, 1)")
    assert refusal.value.sqlstate == "GC007"


async def test_others_may_not_call_what_they_were_not_granted(head: Head) -> None:
    behind = head.behind
    await behind.execute("drop role if exists stranger; create role stranger")
    await behind.execute("set role stranger")
    for query in ("select * from chain.event", "select chain.fence(9)"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await behind.execute(query)


@pytest.mark.parametrize(
    "change",
    [
        "position = 99 where position = 3",
        "epoch = 2 where position = 2",
        "stream = 'sT', type = '' || left(type, 0) || 'x' where position = 2",
        "revision = 9 where position = 2",
        "id = gen_random_uuid() where position = 2",
        "type = type || 'x' where position = 2",
        "data = data || '\\x00' where position = 2",
        "data = 'x', metadata = '' where position = 2",
        "recorded_at = recorded_at + interval '1 microsecond' where position = 2",
    ],
)
async def test_a_change_of_any_column_changes_the_digest(head: Head, change: str) -> None:
    store, behind = head.store, head.behind
    await store.add("s", Expect.ANY, [NewEvent("T", b"", b"x"), NewEvent("T", b"x", b"")])
    before = await store.digest(Position(1), Position(3))
    assert await store.digest(Position(1), Position(3)) == before
    await behind.execute(f"update chain.event set {change}")
    assert await store.digest(Position(1), Position(3)) != before


async def test_a_lost_node_row_is_corruption_not_a_crash(head: Head) -> None:
    store, behind = head.store, head.behind
    await behind.execute("delete from chain.node")
    for call in (store.tip(), store.state(), store.fence(ONE)):
        with pytest.raises(Corrupt):
            await call
    with pytest.raises(ChainError):
        await store.add("s", Expect.ANY, [event()])
