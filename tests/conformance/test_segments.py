"""What a node notes of its segments: what was agreed, as long as its rows give it, and no longer."""

from __future__ import annotations

from chain.event import Epoch, Expect, NewEvent, Position
from chain.store import Knowledge, Store
from tests.conformance.stores import ONE, START, TWO, Stores, copy, events, follower, head

SIX = Position(6)
NOTHING = Knowledge(START, None)


async def six(stores: Stores, name: str = "a") -> Store:
    store = await head(stores, name)
    await store.add("s", Expect.ANY, events(5))
    return store


async def agreed(store: Store, last: Position = SIX) -> bytes:
    return (await store.digest(Position(1), last)).value


async def test_a_segment_is_noted_only_if_it_is_agreed_on(stores: Stores) -> None:
    store = await six(stores)
    assert await store.verified() == NOTHING
    for other in (None, b"another"):
        checked = await store.seal(1, SIX, other)
        assert (checked.digest.value, checked.digest.count, checked.intact) == (await agreed(store), 6, True)
        assert (await store.seals(), await store.verified()) == ((), NOTHING)
    await store.seal(1, SIX, await agreed(store))
    assert [(s.number, s.last, s.value) for s in await store.seals()] == [(1, 6, await agreed(store))]
    known = await store.verified()
    assert known.position == 6
    assert known.oldest_check_s is not None
    assert 0 <= known.oldest_check_s < 60


async def test_what_the_node_does_not_have_is_not_noted(stores: Stores) -> None:
    store = await six(stores)
    await store.seal(1, Position(7), await agreed(store, Position(7)))
    assert await store.seals() == ()


async def test_what_is_noted_grows_and_never_shrinks(stores: Stores) -> None:
    store = await six(stores)
    await store.seal(1, Position(4), await agreed(store, Position(4)))
    await store.seal(1, SIX, b"another")
    assert [s.last for s in await store.seals()] == [4]
    await store.seal(1, SIX, await agreed(store))
    await store.seal(1, Position(4), await agreed(store, Position(4)))
    assert [(s.last, s.value) for s in await store.seals()] == [(6, await agreed(store))]


async def test_reading_a_segment_again_is_noted(stores: Stores) -> None:
    store = await six(stores)
    await store.seal(1, SIX, await agreed(store))
    (before,) = await store.seals()
    assert (await store.seal(1, SIX)).intact
    (after,) = await store.seals()
    assert after.value == before.value
    assert after.checked_at > before.checked_at


async def test_giving_up_a_dead_branch_forgets_what_was_noted_of_it(stores: Stores) -> None:
    source, target = await six(stores), await follower(stores, "b")
    await copy(source, target, "a")
    await target.seal(1, Position(4), await agreed(target, Position(4)))
    await target.follow_upstream(TWO, "a", (await target.state()).role)
    await target.give_up(Position(5), await target.tip(), TWO, "a")
    assert [s.last for s in await target.seals()] == [4]
    await target.give_up(Position(3), await target.tip(), TWO, "a")
    assert (await target.seals(), await target.verified()) == ((), NOTHING)


async def test_large_events_are_bound_by_their_own_digests(stores: Stores) -> None:
    store = await head(stores)
    sizes = [(0, 1024), (1024, 0), (1025, 1), (1, 1025), (5000, 5000)]
    await store.add("s", Expect.ANY, [NewEvent("T", b"x" * a, b"x" * b) for a, b in sizes])
    values = {(await store.digest(Position(p), Position(p))).value for p in range(2, 7)}
    assert len(values) == len(sizes)


async def test_a_glance_tells_tip_clock_and_when_the_next_event_was_recorded(stores: Stores) -> None:
    store = await six(stores)
    event = await store.at(Position(3))
    assert event is not None
    glance = await store.glance(Position(2))
    assert (glance.tip, glance.next_recorded_at) == (await store.tip(), event.recorded_at)
    assert glance.clock >= event.recorded_at
    assert (await store.glance(SIX)).next_recorded_at is None
    assert (await store.tip()).epoch == Epoch(1) == ONE
