"""What holds while many write and read at once."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from chain.errors import WrongRevision
from chain.event import Appended, Event, Expect, Position, Revision
from chain.store import Store
from tests.conformance.stores import event, events, whole

CALLERS = 64


async def all_events_are_dense(store: Store) -> tuple[Event, ...]:
    log = await whole(store)
    assert [e.position for e in log] == list(range(1, len(log) + 1))
    seen: Counter[str] = Counter()
    for e in log:
        assert e.revision == seen[e.stream]
        seen[e.stream] += 1
    return log


async def test_callers_on_their_own_streams_all_succeed(store: Store) -> None:
    async def write(caller: int) -> None:
        for revision in range(4):
            await store.add(f"s-{caller}", Revision(revision - 1), [event()])

    await asyncio.gather(*map(write, range(CALLERS)))
    assert len(await all_events_are_dense(store)) == 1 + 4 * CALLERS


async def test_callers_on_one_stream_who_expect_nothing_all_succeed(store: Store) -> None:
    results = await asyncio.gather(*(store.add("s", Expect.ANY, events(1 + n % 3)) for n in range(CALLERS)))
    log = await all_events_are_dense(store)
    for added in results:
        assert log[added.last_position - 1].revision == added.last_revision
    assert sum(a.last_position - a.first_position + 1 for a in results) == len(log) - 1


async def test_of_callers_who_expect_the_same_revision_exactly_one_wins(store: Store) -> None:
    for revision in range(-1, 3):
        results = await asyncio.gather(
            *(store.add("s", Revision(revision), [event()]) for _ in range(CALLERS)),
            return_exceptions=True,
        )
        assert sum(isinstance(result, Appended) for result in results) == 1
        losers = [result for result in results if isinstance(result, WrongRevision)]
        assert {loser.current for loser in losers} == {revision + 1}
        assert len(losers) == CALLERS - 1
    await all_events_are_dense(store)


async def test_one_callers_conflict_fails_only_that_caller(store: Store) -> None:
    results = await asyncio.gather(
        *(
            store.add(f"s-{n}", Revision(7) if n % 10 == 0 else Expect.NO_STREAM, events(2))
            for n in range(CALLERS)
        ),
        return_exceptions=True,
    )
    for n, result in enumerate(results):
        assert isinstance(result, WrongRevision if n % 10 == 0 else Appended)
    await all_events_are_dense(store)


async def test_two_callers_with_the_same_event_get_the_same_position(store: Store) -> None:
    same = event()
    results = await asyncio.gather(
        *(store.add("s", Expect.ANY, [same]) for _ in range(8)),
        *(store.add(f"t-{n}", Expect.ANY, [event()]) for n in range(8)),
    )
    assert len({added.first_position for added in results[:8]}) == 1
    assert [added.repeated for added in results[:8]].count(False) == 1
    assert len(await all_events_are_dense(store)) == 1 + 1 + 8


async def test_one_caller_may_send_ahead_of_the_answers_and_keeps_the_order(store: Store) -> None:
    async with asyncio.timeout(60):
        await asyncio.gather(
            *(store.add("hot", Revision(n - 1), [event()]) for n in range(3000)),
            *(store.add(f"s-{n % 7}", Expect.ANY, events(2)) for n in range(200)),
        )
    assert len(await all_events_are_dense(store)) == 1 + 3000 + 400


async def test_who_shares_an_event_with_others_waits_for_them_and_no_longer(store: Store) -> None:
    shared = events(4)
    async with asyncio.timeout(60):
        results = await asyncio.gather(
            *(store.add(f"s-{n % 5}", Expect.ANY, [shared[n % 4]]) for n in range(100)),
            *(store.add(f"s-{n % 5}", Expect.ANY, [event()]) for n in range(100)),
            return_exceptions=True,
        )
    assert all(isinstance(r, Appended) for r in results[100:])
    assert all(isinstance(r, Appended | WrongRevision) for r in results[:100])
    assert sum(isinstance(r, Appended) and not r.repeated for r in results[:100]) == 4
    await all_events_are_dense(store)


async def test_a_caller_who_goes_away_hurts_nobody(store: Store) -> None:
    async with asyncio.TaskGroup() as group:
        callers = [
            group.create_task(store.add(f"s-{n}", Expect.NO_STREAM, [event()])) for n in range(CALLERS)
        ]
        group.create_task(cancel_every_third(callers))
    for n, caller in enumerate(callers):
        assert caller.cancelled() or caller.result().last_revision == 0
        assert n % 3 == 0 or not caller.cancelled()
    await store.add("after", Expect.NO_STREAM, [event()])
    await all_events_are_dense(store)


async def cancel_every_third(callers: list[asyncio.Task[Appended]]) -> None:
    for caller in callers[::3]:
        caller.cancel()
        await asyncio.sleep(0)


async def test_a_hole_is_never_visible(store: Store) -> None:
    done = asyncio.Event()

    async def read() -> int:
        last = looks = 0
        while not done.is_set():
            page = await store.log(Position(last), 1000)
            assert [e.position for e in page.events] == list(range(last + 1, page.next + 1))
            last, looks = page.next, looks + 1
            await asyncio.sleep(0)
        return looks

    async def write(caller: int) -> None:
        for _ in range(6):
            await store.add(f"s-{caller}", Expect.ANY, events(1 + caller % 4))

    async with asyncio.TaskGroup() as group:
        readers = [group.create_task(read()) for _ in range(3)]
        await asyncio.gather(*map(write, range(50)))
        done.set()
    assert all(reader.result() > 0 for reader in readers)
    await all_events_are_dense(store)


async def test_follow_yields_everything_once_in_order_while_others_write(store: Store) -> None:
    total = 1 + 20 * 10
    seen: list[Position] = []

    async def follow() -> None:
        async for page in store.follow():
            assert page.events
            seen.extend(e.position for e in page.events)
            if len(seen) >= total:
                return

    async def write(caller: int) -> None:
        for _ in range(5):
            await store.add(f"s-{caller}", Expect.ANY, events(2))
            await asyncio.sleep(0.002)

    async with asyncio.timeout(20):
        await asyncio.gather(follow(), *map(write, range(20)))
    assert seen == list(range(1, total + 1))


async def test_wait_ends_when_the_log_grows(store: Store) -> None:
    tip = await store.tip()
    await store.wait(tip.position, 0.05)  # from now on it listens
    waiting = asyncio.create_task(store.wait(tip.position, 30))
    await asyncio.sleep(0)
    await store.add("s", Expect.ANY, [event()])
    async with asyncio.timeout(2):
        await waiting
        await store.wait(tip.position, 30)


async def test_wait_ends_with_its_time(store: Store) -> None:
    tip = await store.tip()
    await store.wait(tip.position, 0.05)
    clock = asyncio.get_running_loop().time
    start = clock()
    await store.wait(tip.position, 0.2)
    assert 0.15 < clock() - start < 2


@pytest.mark.parametrize("limit", [1, 7])
async def test_small_pages_are_as_complete_as_large_ones(store: Store, limit: int) -> None:
    await store.add("s", Expect.ANY, events(20))
    got: list[Event] = []
    while (page := await store.log(Position(len(got)), limit)).events:
        got += page.events
    assert tuple(got) == await whole(store)
