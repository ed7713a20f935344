"""Who may write, and how a node changes its role: fence, promote, follow, detach, restart."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from chain.errors import Fenced, NotHead, NotPrepared, Restarted, StaleLink, WrongIdentity
from chain.event import EMPTY, EPOCH_STREAM, Epoch, Expect, Position, Tip
from chain.history import EPOCH_STARTED
from chain.store import Ground, Identity, Role, Store
from tests.conformance.stores import CHAIN, ONE, TWO, Stores, empty, event, events, follower, head

THREE = Epoch(3)


async def test_a_new_node_is_detached_and_empty(stores: Stores) -> None:
    state = await (await empty(stores)).state()
    assert (state.identity, state.role, state.tip) == (Identity(CHAIN, "a"), Role.DETACHED, EMPTY)
    assert (state.epoch, state.reign, state.promotion, state.upstream) == (0, 0, None, None)
    assert (state.writable, state.fenced, state.restarted) == (False, False, False)


async def test_a_store_that_nobody_prepared_says_so(stores: Stores) -> None:
    bare = await stores.bare()
    with pytest.raises(NotPrepared):
        await bare.state()
    with pytest.raises(NotPrepared):
        await bare.add("s", Expect.ANY, [event()])


async def test_preparing_twice_changes_nothing(store: Store) -> None:
    before = await store.state()
    await store.prepare(Identity(CHAIN, "a"))
    after = await store.state()
    assert (after.tip, after.promotion, after.writable) == (before.tip, before.promotion, True)


@pytest.mark.parametrize("other", [Identity(CHAIN, "b"), Identity("payments", "a")], ids=str)
async def test_a_store_keeps_its_name(store: Store, other: Identity) -> None:
    with pytest.raises(WrongIdentity):
        await store.prepare(other)
    assert (await store.state()).identity == Identity(CHAIN, "a")


# Who may write.


async def test_a_detached_node_takes_no_writes(stores: Stores) -> None:
    store = await empty(stores)
    with pytest.raises(NotHead) as refusal:
        await store.add("s", Expect.ANY, [event()])
    assert refusal.value.head is None


@pytest.mark.parametrize("role", [Role.MIDDLE, Role.TAIL])
async def test_a_follower_takes_no_writes_and_says_whom_it_follows(stores: Stores, role: Role) -> None:
    store = await empty(stores, "b")
    await store.follow_upstream(ONE, "a", role)
    with pytest.raises(NotHead) as refusal:
        await store.add("s", Expect.ANY, [event()])
    assert type(refusal.value) is NotHead
    assert refusal.value.head == "a"


async def test_a_fenced_head_takes_no_writes_not_even_repeats(store: Store) -> None:
    new = events(2)
    await store.add("s", Expect.ANY, new)
    await store.fence(TWO)
    for again in (new, [event()]):
        with pytest.raises(Fenced):
            await store.add("s", Expect.ANY, again)
    state = await store.state()
    assert (state.fenced, state.writable, state.epoch, state.reign) == (True, False, 2, 1)


async def test_a_head_whose_server_restarted_takes_no_writes_until_its_next_promotion(
    stores: Stores, store: Store
) -> None:
    promotion = (await store.state()).promotion
    assert promotion is not None
    await stores.restart(store)
    with pytest.raises(Restarted):
        await store.add("s", Expect.ANY, [event()])
    await store.promote(ONE, promotion)
    with pytest.raises(Restarted):
        await store.add("s", Expect.ANY, [event()])
    assert (await store.state()).restarted

    await store.promote(TWO, uuid4())
    await store.add("s", Expect.ANY, [event()])
    assert not (await store.state()).restarted


async def test_a_restart_means_nothing_to_a_follower(stores: Stores) -> None:
    store = await follower(stores)
    await stores.restart(store)
    assert not (await store.state()).restarted


# Fence.


async def test_a_fence_gives_the_final_tip_again_and_again(store: Store) -> None:
    added = await store.add("s", Expect.ANY, events(3))
    for _ in range(2):
        assert await store.fence(TWO) == added.token
    with pytest.raises(Fenced):
        await store.add("s", Expect.ANY, [event()])
    assert await store.tip() == added.token


async def test_a_fence_never_goes_down(store: Store) -> None:
    await store.fence(THREE)
    await store.fence(TWO)
    assert (await store.state()).epoch == 3
    with pytest.raises(StaleLink):
        await store.promote(TWO, uuid4())


async def test_a_fence_of_its_own_epoch_does_not_stop_a_head(store: Store) -> None:
    await store.fence(ONE)
    await store.add("s", Expect.ANY, [event()])


# Promote.


async def test_a_promotion_is_written_into_the_log(store: Store) -> None:
    promotion = uuid4()
    tip = await store.promote(TWO, promotion)
    assert tip == Tip(Position(2), TWO) == await store.tip()

    last = (await store.get(EPOCH_STREAM)).events[-1]
    assert (last.position, last.epoch, last.revision, last.type) == (2, 2, 1, EPOCH_STARTED)
    assert last.id == promotion
    assert json.loads(last.data) == {"epoch": 2, "node": "a", "promotion": str(promotion)}

    state = await store.state()
    assert (state.role, state.epoch, state.reign, state.promotion) == (Role.HEAD, 2, 2, promotion)
    added = await store.add("s", Expect.NO_STREAM, [event()])
    assert added.epoch == 2


async def test_a_promotion_counts_once(store: Store) -> None:
    promotion = uuid4()
    await store.promote(TWO, promotion)
    added = await store.add("s", Expect.ANY, [event()])
    assert await store.promote(TWO, promotion) == added.token


async def test_another_promotion_of_the_same_epoch_is_refused(store: Store) -> None:
    with pytest.raises(StaleLink):
        await store.promote(ONE, uuid4())
    assert (await store.tip()).position == 1


async def test_an_older_promotion_is_refused_even_its_own(store: Store) -> None:
    first = (await store.state()).promotion
    assert first is not None
    await store.promote(THREE, uuid4())
    for epoch, promotion in ((ONE, first), (TWO, uuid4())):
        with pytest.raises(StaleLink):
            await store.promote(epoch, promotion)


async def test_its_own_promotion_is_refused_once_it_follows(store: Store) -> None:
    first = (await store.state()).promotion
    assert first is not None
    await store.follow_upstream(TWO, "b", Role.MIDDLE)
    with pytest.raises(StaleLink):
        await store.promote(ONE, first)


async def test_a_promotion_stands_where_the_epoch_was_granted_or_nowhere(store: Store) -> None:
    ground = (await store.state()).ground
    added = await store.add("s", Expect.ANY, events(2))
    for tip in (ground.tip, Tip(added.last_position, TWO), Tip(Position(9), ONE)):
        with pytest.raises(StaleLink, match="was granted epoch 2 at"):
            await store.promote(TWO, uuid4(), ground=replace(ground, tip=tip))
    assert await store.tip() == added.token
    await store.promote(TWO, uuid4(), ground=replace(ground, tip=added.token))
    assert await store.tip() == Tip(Position(added.last_position + 1), TWO)


async def test_a_promotion_is_the_same_event_whenever_it_is_written(stores: Stores) -> None:
    """A store that goes back before its reign is on record writes it a second time."""
    promotion, written = uuid4(), []
    ground = Ground(EMPTY, datetime(2026, 1, 1, 12, tzinfo=UTC))
    for _ in range(2):
        store = await empty(stores)
        await store.promote(ONE, promotion, ground=ground)
        await store.promote(ONE, promotion, ground=ground)
        written.append((await store.log()).events)
    assert written[0] == written[1]
    assert written[0][0].recorded_at == ground.clock


# Follow, detach.


async def test_a_head_follows_nobody_in_its_own_epoch(store: Store) -> None:
    with pytest.raises(StaleLink):
        await store.follow_upstream(ONE, "b", Role.MIDDLE)
    with pytest.raises(StaleLink):
        await store.detach(ONE)
    assert (await store.state()).writable


async def test_a_head_follows_in_a_newer_epoch(store: Store) -> None:
    await store.follow_upstream(TWO, "b", Role.TAIL)
    state = await store.state()
    assert (state.role, state.epoch, state.upstream) == (Role.TAIL, 2, "b")
    with pytest.raises(NotHead):
        await store.add("s", Expect.ANY, [event()])


async def test_words_from_older_epochs_are_refused(stores: Stores) -> None:
    store = await follower(stores, epoch=TWO)
    with pytest.raises(StaleLink):
        await store.follow_upstream(ONE, "c", Role.MIDDLE)
    with pytest.raises(StaleLink):
        await store.detach(ONE)
    assert (await store.state()).upstream == "a"


async def test_a_follower_may_be_re_pointed_in_its_epoch(stores: Stores) -> None:
    store = await follower(stores)
    for _ in range(2):
        await store.follow_upstream(ONE, "c", Role.TAIL)
    state = await store.state()
    assert (state.upstream, state.role) == ("c", Role.TAIL)


async def test_detaching_takes_a_node_out(stores: Stores) -> None:
    store = await follower(stores)
    for _ in range(2):
        await store.detach(TWO)
    state = await store.state()
    assert (state.role, state.upstream, state.epoch) == (Role.DETACHED, None, 2)


# Progress.


async def test_progress_is_what_was_told_last(store: Store) -> None:
    assert await store.progress() == {}
    await store.tell({"b": Tip(Position(5), ONE), "c": Tip(Position(3), ONE)})
    await store.tell({"c": Tip(Position(4), ONE)})
    await store.tell({})
    told = await store.progress()
    assert {node: p.tip for node, p in told.items()} == {
        "b": Tip(Position(5), ONE),
        "c": Tip(Position(4), ONE),
    }
    now = (await store.state()).clock
    assert all(timedelta(0) <= now - p.told_at < timedelta(minutes=1) for p in told.values())


async def test_a_promotion_forgets_what_was_told_before(stores: Stores) -> None:
    store = await head(stores)
    await store.tell({"b": Tip(Position(5), ONE)})
    await store.promote(TWO, uuid4())
    assert await store.progress() == {}
