"""How far ahead a log is read: by how far away it is, and by how large its events are. In virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from chain.event import Epoch, Position
from chain.store import Batch
from replicator.read_ahead import FURTHER_S, NEAR, Pace, ReadAhead
from tests.simulation.loop import simulate

EVENTS = 100_000


class Source:
    """A log of EVENTS events of one size, `way_s` away there and back."""

    def __init__(self, way_s: float, event_bytes: int = 400) -> None:
        self.way_s = way_s
        self.event_bytes = event_bytes
        self.under_way = 0
        self.most_under_way = 0

    async def read(self, after: Position, limit: int) -> Batch:
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        await asyncio.sleep(self.way_s)
        self.under_way -= 1
        count = min(limit, EVENTS - after)
        chunks = (bytes(count * self.event_bytes),)
        return Batch(after, Epoch(1), count, chunks, at_tip=after + count == EVENTS)


def all_of(source: Source, use: Callable[[Batch], None] = lambda batch: None) -> None:
    async def read() -> None:
        ahead = ReadAhead(source.read, Pace(), Position(0), Position(EVENTS), lambda: source.way_s)
        after = 0
        while True:
            batch = await ahead.next()
            assert batch.after == after
            after = batch.last
            use(batch)
            await asyncio.sleep(0.005)
            if batch.at_tip:
                break
        await ahead.close()
        assert after == EVENTS

    simulate(read())


@pytest.mark.parametrize("way_s", [0.0, 0.001, FURTHER_S * 0.9])
def test_of_a_near_source_few_batches_are_held(way_s: float) -> None:
    source = Source(way_s)
    all_of(source)
    assert source.most_under_way == NEAR


@pytest.mark.parametrize(("way_s", "most"), [(0.02, 3), (0.08, 7), (0.2, 8), (5.0, 8)])
def test_of_a_far_one_as_many_as_are_on_their_way(way_s: float, most: int) -> None:
    source = Source(way_s)
    all_of(source)
    assert source.most_under_way == most <= Pace().ahead


def test_a_source_that_was_slow_once_is_not_taken_for_a_far_one() -> None:
    source = Source(2.0)

    def comes_nearer(batch: Batch) -> None:
        if batch.after > 20_000:
            source.way_s = 0.0
        if batch.after < 60_000:  # what was asked for before that has come
            source.most_under_way = 0

    all_of(source, comes_nearer)
    assert source.most_under_way <= NEAR


def test_large_events_are_read_one_at_a_time() -> None:
    source = Source(0.2, event_bytes=4 * 1024 * 1024)
    sizes: list[int] = []

    async def read() -> None:
        ahead = ReadAhead(
            source.read, Pace(batch_events=1), Position(EVENTS - 5), Position(EVENTS), lambda: 1.0
        )
        while not sizes or sum(sizes) < 5:
            sizes.append((await ahead.next()).count)
        await ahead.close()

    simulate(read())
    assert sizes == [1] * 5
    assert source.most_under_way == 1
