"""A node that is filled with very many events is loaded: what only lookups need is made afterwards."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest

from chain.encoding import decode, encode
from chain.errors import Corrupt, StaleLink, Unavailable
from chain.event import Expect, Position, Revision
from chain.store import Batch, NodeState, Role, Store
from chain.tasks import end
from chain.topology import Follow
from replicator.link import Link, LinkState
from replicator.read_ahead import Pace
from tests.conformance.stores import CHAIN, ONE, START, TWO, Stores, copy, events, follower, head, whole

Pair = tuple[Stores, Stores]


async def test_a_loaded_node_is_like_any_other_afterwards(pair: Pair) -> None:
    source, target = await head(pair[0]), await follower(pair[1])
    await source.add("s", Expect.ANY, events(5))
    await target.begin_load(ONE, "a")
    await target.begin_load(ONE, "a")
    assert (await target.state()).loading
    await copy(source, target, "a", limit=2)
    with pytest.raises(StaleLink, match="being loaded"):
        await target.promote(TWO, uuid4())
    await target.end_load()
    await target.end_load()
    assert not (await target.state()).loading
    assert await whole(target) == await whole(source)
    assert await target.history() == await source.history()

    new = events(1)
    await target.promote(TWO, uuid4())
    assert (await target.add("s", Revision(4), new)).last_revision == 5
    assert (await target.add("s", Revision(4), new)).repeated


async def test_only_an_empty_follower_is_loaded(pair: Pair) -> None:
    source, target = await head(pair[0]), await follower(pair[1])
    with pytest.raises(StaleLink):
        await target.begin_load(TWO, "a")
    with pytest.raises(StaleLink):
        await target.begin_load(ONE, "x")
    await copy(source, target, "a")
    with pytest.raises(StaleLink):
        await target.begin_load(ONE, "a")
    assert not (await target.state()).loading


async def test_an_event_that_comes_twice_ends_the_load(pair: Pair) -> None:
    source, target = await head(pair[0]), await follower(pair[1])
    await source.add("s", Expect.ANY, events(2))
    batch = await source.read(START, 10, 1_000_000)
    *others, last = decode(batch.chunks)
    twice = encode((*others, last._replace(id=others[-1].id)))
    await target.begin_load(ONE, "a")
    with pytest.raises(Corrupt):
        await _apply_and_end_load(target, replace(batch, chunks=twice))
    if (await target.state()).loading:  # its storage is used again
        await target.follow_upstream(ONE, "a", Role.TAIL)
        await target.give_up(START, await target.tip(), ONE, "a")
        await target.end_load()


async def test_a_link_loads_an_empty_target_and_streams_on(pair: Pair) -> None:
    source, target = await head(pair[0]), await follower(pair[1])
    await source.add("s", Expect.ANY, events(20))
    states: list[LinkState] = []
    link = Link(
        CHAIN,
        "a",
        "b",
        source,
        target,
        Follow(ONE, "a", Role.TAIL),
        Pace(batch_events=3, idle_s=0.05, load_events=10),
        on_change=lambda _, after: states.append(after.state),
    )
    running = asyncio.create_task(link.run())
    try:
        await _wait_equal(source, target)
        assert not (await target.state()).loading
        assert states == [LinkState.LOADING, LinkState.STREAMING]
        await source.add("s", Expect.ANY, events(3))
        await _wait_equal(source, target)
    finally:
        await end(running)
    assert await whole(target) == await whole(source)


class _Source:
    """A source that goes away once it has given a batch, until it is `back`."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._given = False
        self.back = asyncio.Event()

    async def read(self, after: Position, limit: int, max_bytes: int) -> Batch:
        if self._given and not self.back.is_set():
            raise Unavailable("a is away")
        self._given = True
        return await self._store.read(after, limit, max_bytes)

    async def state(self) -> NodeState:
        if self._given and not self.back.is_set():
            raise Unavailable("a is away")
        return await self._store.state()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


async def test_a_load_whose_source_stays_away_is_ended_so_that_the_node_can_be_head(pair: Pair) -> None:
    store, target = await head(pair[0]), await follower(pair[1])
    await store.add("s", Expect.ANY, events(20))
    source: Any = _Source(store)
    pace = Pace(batch_events=3, ahead=1, idle_s=0.05, load_events=10, load_cut_off_s=0.2, backoff_s=0.05)
    running = asyncio.create_task(
        Link(CHAIN, "a", "b", source, target, Follow(ONE, "a", Role.TAIL), pace).run()
    )
    try:
        async with asyncio.timeout(20):
            while (await target.tip()).position == 0 or (await target.state()).loading:
                await asyncio.sleep(0.01)
        assert (await target.tip()).position < 20
        source.back.set()
        await _wait_equal(store, target)
    finally:
        await end(running)
    assert await whole(target) == await whole(store)
    await target.promote(TWO, uuid4())


async def _apply_and_end_load(target: Store, batch: Batch) -> None:
    """Refused at once, or when the index is made."""
    await target.apply(batch, ONE, "a")
    await target.end_load()


async def _wait_equal(source: Store, target: Store) -> None:
    tip = await source.tip()
    async with asyncio.timeout(20):
        while await target.tip() != tip or (await target.state()).loading:
            await asyncio.sleep(0.01)
