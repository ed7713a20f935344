"""What a link relies on: batches go from any kind of store to any other, bit for bit, or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from uuid import uuid4

import pytest

from chain.encoding import decode, encode
from chain.errors import Corrupt, StaleLink
from chain.event import EMPTY, MAX_EVENT_BYTES, Epoch, Event, Expect, NewEvent, Position, Revision, Tip
from chain.history import fork
from chain.store import Batch, Role, Store
from tests.conformance.stores import (
    ONE,
    START,
    TWO,
    Stores,
    copy,
    event,
    events,
    follower,
    head,
    whole,
)

Pair = tuple[Stores, Stores]


async def varied(store: Store) -> None:
    await store.add("s", Expect.ANY, [NewEvent("T"), NewEvent("Ü\n", bytes(range(256)), b"\xff\x00")])
    await store.add("a 'quoted' stream\\N", Expect.ANY, events(20))
    await store.add("large", Expect.ANY, [event(b"x" * 3_000_000)])
    await store.add("s", Expect.ANY, events(3))


@pytest.mark.parametrize("limit", [1, 4, 1000])
async def test_a_copy_is_equal_bit_for_bit(pair: Pair, limit: int) -> None:
    source, target = await head(pair[0]), await follower(pair[1])
    await varied(source)

    assert await copy(source, target, "a", limit=limit) == await source.tip()
    assert await whole(target) == await whole(source)
    tip = (await source.tip()).position
    assert await target.digest(Position(1), tip) == await source.digest(Position(1), tip)
    assert await target.history() == await source.history()
    assert (await target.get("s")).events == (await source.get("s")).events


async def test_a_target_may_become_head_and_be_copied_itself(pair: Pair) -> None:
    first, second = await head(pair[0]), await follower(pair[1])
    await first.add("s", Expect.ANY, events(3))
    await copy(first, second, "a")

    await first.fence(TWO)
    await second.promote(TWO, uuid4())
    added = await second.add("s", Revision(2), events(2))
    assert added.last_revision == 4

    await first.follow_upstream(TWO, "b", Role.TAIL)
    assert await copy(second, first, "b") == added.token
    assert await whole(first) == await whole(second)


# Reading.


async def test_a_batch_says_what_it_holds(store: Store) -> None:
    await store.add("s", Expect.ANY, events(9))
    batch = await store.read(Position(2), 3, 1 << 20)
    assert (batch.after, batch.count, batch.last, batch.at_tip) == (2, 3, 5, False)
    assert decode(batch.chunks) == (await whole(store))[2:5]
    rest = await store.read(batch.last, 100, 1 << 20)
    assert (rest.count, rest.last, rest.at_tip) == (5, 10, True)
    nothing = await store.read(rest.last, 100, 1 << 20)
    assert (nothing.count, nothing.last, nothing.at_tip) == (0, 10, True)
    assert decode(nothing.chunks) == ()


@pytest.mark.parametrize("max_bytes", [1, 1_000, 2_503, 10_000])
async def test_a_batch_keeps_to_its_bytes_but_holds_an_event_if_there_is_one(
    store: Store, max_bytes: int
) -> None:
    for size in (1, 50, 2_400, 0, 900, 5_000, 10, 10):
        await store.add("s", Expect.ANY, [event(b"x" * size)])
    tip, after = await store.tip(), START
    while after < tip.position:
        batch = await store.read(after, 1000, max_bytes)
        assert batch.count == 1 or (batch.count > 1 and batch.size_bytes <= max_bytes)
        assert len(decode(batch.chunks)) == batch.count
        assert batch.last == tip.position or not batch.at_tip
        if batch.last < tip.position:
            one_more = await store.read(after, batch.count + 1, 1 << 30)
            assert one_more.size_bytes > max_bytes
        after = batch.last


async def test_the_largest_event_goes_through_the_smallest_batch(pair: Pair) -> None:
    source, target = await head(pair[0]), await follower(pair[1])
    await source.add("s", Expect.ANY, [event(b"x" * MAX_EVENT_BYTES)])
    batch = await source.read(Position(0), 100, 1000)
    await target.apply(batch, ONE, "a")
    await target.apply(await source.read(Position(1), 100, 1000), ONE, "a")
    assert await target.tip() == await source.tip()


# Applying.


async def test_an_empty_batch_changes_nothing(stores: Stores) -> None:
    source, target = await head(stores), await follower(stores)
    nothing = await source.read(Position(1), 10, 1000)
    first = replace(nothing, after=START, after_epoch=Epoch(0))
    assert await target.apply(first, ONE, "a") == EMPTY
    await copy(source, target, "a")
    assert await target.apply(nothing, ONE, "a") == Tip(Position(1), ONE)


async def test_a_stale_or_second_link_is_refused(stores: Stores) -> None:
    source, target = await head(stores), await follower(stores)
    await source.add("s", Expect.ANY, events(3))
    batch = await source.read(START, 2, 1 << 20)

    for epoch, upstream in ((TWO, "a"), (Epoch(0), "a"), (ONE, "c")):
        with pytest.raises(StaleLink):
            await target.apply(batch, epoch, upstream)
    await target.apply(batch, ONE, "a")
    with pytest.raises(StaleLink):
        await target.apply(batch, ONE, "a")
    with pytest.raises(StaleLink):
        await target.apply(await source.read(Position(3), 1, 1 << 20), ONE, "a")
    await target.fence(TWO)
    with pytest.raises(StaleLink):
        await target.apply(await source.read(Position(2), 1, 1 << 20), ONE, "a")
    assert (await target.tip()).position == 2


async def test_of_two_links_with_the_same_batch_one_wins(stores: Stores) -> None:
    source, target = await head(stores), await follower(stores)
    await source.add("s", Expect.ANY, events(30))
    batch = await source.read(START, 100, 1 << 20)
    results = await asyncio.gather(*(target.apply(batch, ONE, "a") for _ in range(4)), return_exceptions=True)
    assert sum(isinstance(result, Tip) for result in results) == 1
    assert sum(isinstance(result, StaleLink) for result in results) == 3


async def test_batches_may_be_applied_beside_each_other(stores: Stores) -> None:
    source, target = await head(stores), await follower(stores)
    await source.add("s", Expect.ANY, events(2000))
    applying: list[asyncio.Task[Tip]] = []
    for after in range(0, 2001, 500):
        batch = await source.read(Position(after), 500, 1 << 30)
        behind = applying[-1] if applying else None
        applying.append(asyncio.create_task(target.apply(batch, ONE, "a", behind=behind)))
    assert [tip.position for tip in await asyncio.gather(*applying)] == [500, 1000, 1500, 2000, 2001]
    assert await whole(target) == await whole(source)


@pytest.mark.parametrize("how", ["refused", "ended"])
async def test_what_is_applied_behind_a_batch_that_fails_is_refused(stores: Stores, how: str) -> None:
    source, target = await head(stores), await follower(stores)
    await source.add("s", Expect.ANY, events(600))
    first, second = await source.read(START, 300, 1 << 30), await source.read(Position(300), 300, 1 << 30)
    hanging: asyncio.Future[Tip] = asyncio.get_running_loop().create_future()
    failing = asyncio.ensure_future(target.apply(first, TWO, "a") if how == "refused" else hanging)
    following = asyncio.create_task(target.apply(second, ONE, "a", behind=failing))
    await asyncio.sleep(0.05)
    if how == "ended":
        assert not following.done()
        failing.cancel()
    refusals = await asyncio.gather(failing, following, return_exceptions=True)
    assert isinstance(refusals[1], StaleLink)
    assert await target.tip() == EMPTY
    assert (await copy(source, target, "a")).position == 601


async def test_nobody_applies_to_a_head_or_a_detached_node(stores: Stores) -> None:
    source = await head(stores)
    batch = await source.read(START, 1, 1 << 20)
    other = await head(stores, "b")
    with pytest.raises(StaleLink):
        await other.apply(replace(batch, after=Position(1)), ONE, "a")
    await other.detach(TWO)
    with pytest.raises(StaleLink):
        await other.apply(replace(batch, after=Position(1)), TWO, "a")


async def test_a_batch_of_an_epoch_that_the_node_does_not_know_is_refused(stores: Stores) -> None:
    source, target = await head(stores), await follower(stores)
    await source.promote(TWO, uuid4())
    with pytest.raises(StaleLink):
        await target.apply(await source.read(START, 10, 1 << 20), ONE, "a")
    assert await target.tip() == EMPTY


def _repack(change: Callable[[tuple[Event, ...]], tuple[Event, ...]]) -> Callable[[Batch], Batch]:
    def repack(batch: Batch) -> Batch:
        changed = change(decode(batch.chunks))
        return replace(batch, chunks=encode(changed), count=len(changed))

    return repack


def _bytes(change: Callable[[bytes], bytes]) -> Callable[[Batch], Batch]:
    return lambda batch: replace(batch, chunks=(change(b"".join(batch.chunks)),))


SPOILED = {
    "a hole": _repack(lambda rows: rows[:2] + rows[3:]),
    "a hole at its beginning": _repack(lambda rows: rows[1:]),
    "an event twice": _repack(lambda rows: (*rows, rows[-1])),
    "an id twice": _repack(lambda rows: (*rows[:-1], rows[-1]._replace(id=rows[-2].id))),
    "a revision twice": _repack(lambda rows: (*rows[:-1], rows[-1]._replace(revision=rows[-2].revision))),
    "epochs that fall": _repack(lambda rows: (*rows[:-1], rows[-1]._replace(epoch=Epoch(0)))),
    "fewer than it says": lambda batch: replace(batch, count=batch.count + 1),
    "more than it says": lambda batch: replace(batch, count=batch.count - 1),
    "some but says none": lambda batch: replace(batch, count=0),
    "half of its bytes": _bytes(lambda data: data[: len(data) // 2]),
    "no header": _bytes(lambda data: data[5:]),
    "no bytes": _bytes(lambda data: b""),
    "text": _bytes(lambda data: b"once upon a time"),
    "a column less": _bytes(
        lambda data: data.replace(b"\x00\x09\x00\x00\x00\x08", b"\x00\x08\x00\x00\x00\x08")
    ),
}


@pytest.mark.parametrize("spoil", SPOILED.values(), ids=SPOILED)
async def test_a_batch_that_is_not_what_it_says_is_refused_whole(
    stores: Stores, spoil: Callable[[Batch], Batch]
) -> None:
    source, target = await head(stores), await follower(stores)
    await source.add("s", Expect.ANY, events(4))
    batch = await source.read(START, 100, 1 << 20)

    with pytest.raises(Corrupt):
        await target.apply(spoil(batch), ONE, "a")
    assert await target.tip() == EMPTY
    assert await whole(target) == ()
    assert (await target.apply(batch, ONE, "a")).position == 5


async def test_a_source_that_was_cut_back_and_refilled_is_found_out(stores: Stores) -> None:
    """Raft's check of the previous entry: the same position in another epoch is another log."""
    source, target = await head(stores), await follower(stores)
    await source.add("s", Expect.ANY, events(6))
    await copy(source, target, "a")
    new = await head(stores, "n")
    await new.add("other", Expect.ANY, events(2))
    await target.follow_upstream(TWO, "a", Role.TAIL)
    await source.follow_upstream(TWO, "n", Role.MIDDLE)
    await source.give_up(START, await source.tip(), TWO, "n")
    await new.promote(TWO, uuid4())
    await new.add("other", Expect.ANY, events(8))
    while (batch := await new.read((await source.tip()).position, 100, 1 << 20)).count:
        await source.apply(batch, TWO, "n")

    before = await whole(target)
    with pytest.raises(StaleLink):
        await target.apply(await source.read(Position(len(before)), 100, 1 << 20), TWO, "a")
    assert await whole(target) == before


# Giving up a dead branch.


async def forked(pair: Pair) -> tuple[Store, Store, Tip]:
    """A new head `b`, and the old head `a` that follows it and holds 4 events that `b` has not."""
    old, new = await head(pair[0]), await follower(pair[1])
    await old.add("s", Expect.ANY, events(3))
    await copy(old, new, "a")
    await old.add("s", Expect.ANY, events(2))
    await old.add("t", Expect.ANY, events(2))
    await new.promote(TWO, uuid4())
    await new.add("s", Revision(2), events(2))
    await old.follow_upstream(TWO, "b", Role.TAIL)
    return old, new, await old.tip()


async def test_the_fork_is_where_the_logs_part(pair: Pair) -> None:
    old, new, _ = await forked(pair)
    common = fork(await new.history(), await old.history())
    ours, theirs = await whole(old), await whole(new)
    assert common == 4
    assert ours[:common] == theirs[:common]
    assert ours[common] != theirs[common]


async def test_what_is_given_up_is_kept_and_the_log_goes_on(pair: Pair) -> None:
    old, new, tip = await forked(pair)
    lost = (await whole(old))[4:]

    assert await old.give_up(Position(4), tip, TWO, "b") == 4
    assert await old.tip() == Tip(Position(4), ONE)
    dead = await old.dead_branch()
    assert tuple(d.event for d in dead) == lost
    assert {(d.node, d.fork) for d in dead} == {("a", 4)}
    assert (await old.get("t")).events == ()
    assert await old.holds([e.id for e in lost]) == frozenset()

    await copy(new, old, "b")
    assert await whole(old) == await whole(new)


async def test_dead_events_are_read_in_pages_and_kept_until_they_are_released(stores: Stores) -> None:
    old, _, tip = await forked((stores, stores))
    await old.give_up(Position(4), tip, TWO, "b")

    first = await old.dead_branch(limit=3)
    last = first[-1].event
    rest = await old.dead_branch(Tip(last.position, last.epoch), 3)
    assert [d.event.position for d in first + rest] == [5, 6, 7, 8]
    assert await old.dead_branch(Tip(Position(8), ONE)) == ()

    await old.release(first)
    assert await old.dead_branch() == rest


async def test_repeated_give_ups_add_to_what_is_kept(stores: Stores) -> None:
    old, new, tip = await forked((stores, stores))
    await old.give_up(Position(6), tip, TWO, "b")
    await old.give_up(Position(4), Tip(Position(6), ONE), TWO, "b")
    kept = await old.dead_branch()
    assert [d.event.position for d in kept] == [5, 6, 7, 8]

    await copy(new, old, "b")
    await old.give_up(Position(5), await old.tip(), TWO, "b")
    assert [(d.event.epoch, d.event.position) for d in await old.dead_branch()] == [
        (1, 5), (1, 6), (1, 7), (1, 8), (2, 6), (2, 7),
    ]  # fmt: skip
    await copy(new, old, "b")
    assert await old.give_up(Position(5), await old.tip(), TWO, "b") == 2
    assert len(await old.dead_branch()) == 6


async def test_an_event_that_died_twice_is_let_go_of_once_at_a_time(stores: Stores) -> None:
    """Requeued under its own id, it can be on a second dead branch while the first is still kept."""
    old, new, tip = await forked((stores, stores))
    await old.give_up(Position(4), tip, TWO, "b")
    first = await old.dead_branch()
    dead = first[0].event
    await new.add(dead.stream, Expect.ANY, [NewEvent(dead.type, dead.data, dead.metadata, dead.id)])
    await copy(new, old, "b")
    await old.give_up(Position(4), await old.tip(), TWO, "b")
    await old.release(first)
    kept = await old.dead_branch()
    assert dead.id in {d.event.id for d in kept}
    assert {d.event.epoch for d in kept} == {TWO}


@pytest.mark.parametrize("keep", [0, 8])
async def test_all_or_nothing_of_a_log_may_be_given_up(stores: Stores, keep: int) -> None:
    old, _, tip = await forked((stores, stores))
    assert await old.give_up(Position(keep), tip, TWO, "b") == 8 - keep
    assert await old.tip() == (tip if keep else EMPTY)
    assert len(await whole(old)) == keep


async def test_nothing_is_given_up_for_a_stale_link_or_a_fork_that_is_none(stores: Stores) -> None:
    old, _, tip = await forked((stores, stores))
    before = await whole(old)
    for at, known, epoch, upstream in (
        (4, tip, ONE, "b"),
        (4, tip, TWO, "c"),
        (4, Tip(Position(7), ONE), TWO, "b"),
        (9, tip, TWO, "b"),
        (-1, tip, TWO, "b"),
    ):
        with pytest.raises(StaleLink):
            await old.give_up(Position(at), known, epoch, upstream)
    assert await whole(old) == before
    assert await old.tip() == tip
    assert await old.dead_branch() == ()


async def test_an_id_that_was_given_up_may_be_appended_again(stores: Stores) -> None:
    store = await head(stores)
    new = event()
    await store.add("s", Expect.ANY, [new])
    await store.follow_upstream(TWO, "b", Role.TAIL)
    await store.give_up(Position(1), await store.tip(), TWO, "b")
    await store.promote(Epoch(3), uuid4())
    added = await store.add("s", Expect.NO_STREAM, [new])
    assert (added.repeated, added.last_revision) == (False, 0)
    assert await store.holds([new.id, uuid4()]) == {new.id}


# Digests.


async def test_digests_are_equal_if_the_events_are(pair: Pair) -> None:
    source, target = await head(pair[0]), await follower(pair[1])
    await varied(source)
    await copy(source, target, "a")
    for first, last in ((1, 5), (2, 2), (20, 27), (26, 27), (30, 40), (5, 4)):
        ours = await source.digest(Position(first), Position(last))
        assert await target.digest(Position(first), Position(last)) == ours
    assert (await source.digest(Position(26), Position(99))).count == 2
    assert (await source.digest(Position(50), Position(99))).count == 0


async def test_digests_of_different_events_differ(stores: Stores) -> None:
    store = await head(stores)
    same = [NewEvent("T", b"x", b"y") for _ in range(20)]
    await store.add("s", Expect.ANY, same)
    ranges = [(n, n) for n in range(1, 22)] + [(1, n) for n in range(2, 22)]
    digests = [(await store.digest(Position(a), Position(b))).value for a, b in ranges]
    assert len(set(digests)) == len(ranges)
