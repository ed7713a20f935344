"""The head's deadline, its renewals, and the promises of its followers: what every store holds by itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from math import inf
from uuid import uuid4

import pytest

from chain.errors import (
    ChainError,
    Fenced,
    LeaseExpired,
    NotHead,
    NotPrepared,
    Promised,
    Restarted,
    StaleLink,
)
from chain.event import Epoch, Expect
from chain.memory import MemoryStore
from chain.postgres import PostgresStore
from chain.store import Identity, NodeState, Role, Store
from failover.local.postgres import LocalPostgres
from tests.conformance.stores import (
    CHAIN,
    ONE,
    TWO,
    MemoryStores,
    PostgresStores,
    Stores,
    copy,
    empty,
    event,
    events,
    follower,
    head,
)
from tests.conformance.washed import Databases, WashedStores
from tests.databases import connect, new_database

THREE = Epoch(3)
LONG = timedelta(minutes=1)
SHORT = timedelta(milliseconds=400)
PAST = timedelta(milliseconds=-1)
TOLERANCE = timedelta(milliseconds=200)
LITTLE = timedelta(milliseconds=100)


@pytest.fixture(scope="module")
def databases(postgres_server: LocalPostgres) -> Databases:
    return Databases(postgres_server)


@pytest.fixture
async def each_kind(databases: Databases) -> AsyncIterator[dict[str, Stores]]:
    washed = WashedStores(databases)
    yield {"memory": MemoryStores(), "postgres": washed}
    await washed.close()


class Clock:
    """A store's clock in the test's hands."""

    def __init__(self) -> None:
        self.now = datetime(2030, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


async def leased(stores: Stores, left: timedelta, name: str = "a") -> Store:
    """The head of epoch 1, with a lease that runs for as long."""
    store = await empty(stores, name)
    await store.promote(ONE, uuid4(), (await store.state()).clock + left)
    return store


async def clock_back(stores: Stores, by: timedelta, left: timedelta | None = LONG) -> Store:
    """The head of epoch 1, whose clock stepped back after its promotion."""
    if isinstance(stores, PostgresStores):
        store = await head(stores) if left is None else await leased(stores, left)
        behind = await connect(stores.dsn(store))
        await behind.execute(
            "update chain.node set seen = clock_timestamp() + $1, lease_until = lease_until + $1", by
        )
        await behind.close()
        return store
    clock = Clock()
    memory = MemoryStore("a", clock=clock)
    await memory.prepare(Identity(CHAIN, "a"))
    await memory.promote(ONE, uuid4(), None if left is None else clock.now + left)
    clock.now -= by
    return memory


async def wait_for_the_end(store: Store) -> None:
    async with asyncio.timeout(5):
        while (await store.state()).lease_left_s > 0:
            await asyncio.sleep(0.01)


async def takes_writes(store: Store) -> bool:
    """Held against what the store says of itself, on both sides of the attempt."""
    before = await store.state()
    try:
        await store.add("s", Expect.ANY, [event()])
        took = True
    except NotHead:
        took = False
    after = await store.state()
    assert took in {before.writable, after.writable}
    return took


def rights(state: NodeState) -> tuple[bool, bool, bool]:
    return state.reigning, state.writable, state.promised


# The deadline.


async def test_a_head_without_a_lease_writes_for_ever(store: Store) -> None:
    state = await store.state()
    assert state.lease_left_s == inf
    assert rights(state) == (True, True, False)


async def test_a_head_says_how_much_of_its_lease_is_left(stores: Stores) -> None:
    store = await leased(stores, LONG)
    state = await store.state()
    assert 50 < state.lease_left_s <= 60
    assert rights(state) == (True, True, False)
    assert await takes_writes(store)


async def test_a_lease_ends_by_itself(stores: Stores) -> None:
    store = await head(stores)
    new = events(2)
    added = await store.add("s", Expect.ANY, new)
    await store.renew(ONE, (await store.state()).clock, SHORT)
    await wait_for_the_end(store)

    for again in (new, [event()]):
        with pytest.raises(LeaseExpired):
            await store.add("s", Expect.ANY, again)
    with pytest.raises(LeaseExpired):
        await store.append_system("$s", Expect.ANY, [event()])
    with pytest.raises(LeaseExpired):  # not WrongRevision: it may not even say what its log holds
        await store.add("s", Expect.NO_STREAM, [event()])
    assert await store.tip() == added.token

    state = await store.state()
    assert state.lease_left_s < 0
    assert rights(state) == (True, False, False)
    assert (state.role, state.fenced) == (Role.HEAD, False)


async def test_a_promotion_that_comes_too_late_gives_no_right_until_a_renewal(stores: Stores) -> None:
    store = await leased(stores, PAST)
    state = await store.state()
    assert (state.role, state.tip.position) == (Role.HEAD, 1)
    assert rights(state) == (True, False, False)
    assert not await takes_writes(store)

    await store.renew(ONE, state.clock, LONG)
    assert await takes_writes(store)


async def test_the_same_promotion_again_makes_no_lease_longer(stores: Stores) -> None:
    store = await leased(stores, PAST)
    promotion = (await store.state()).promotion
    assert promotion is not None
    for until in ((await store.state()).clock + LONG, None):
        await store.promote(ONE, promotion, until)
        assert not await takes_writes(store)


async def test_the_next_promotion_has_a_lease_of_its_own(stores: Stores) -> None:
    store = await head(stores)
    await store.promote(TWO, uuid4(), (await store.state()).clock + PAST)
    assert not await takes_writes(store)
    await store.promote(THREE, uuid4())
    assert (await store.state()).lease_left_s == inf


async def test_an_expired_head_can_be_fenced_read_copied_and_promoted(stores: Stores) -> None:
    """The lease is about writes alone: a failover needs all the rest."""
    store = await head(stores)
    added = await store.add("s", Expect.ANY, events(3))
    await store.renew(ONE, (await store.state()).clock, PAST)
    assert not await takes_writes(store)
    other = await follower(stores, "b")
    assert await copy(store, other, "a") == added.token
    assert await store.fence(TWO) == added.token
    await store.promote(TWO, uuid4())
    assert await takes_writes(store)


async def test_a_promotion_that_comes_late_is_refused_by_a_server_that_restarted() -> None:
    clock = Clock()
    store = MemoryStore("a", clock=clock)
    await store.prepare(Identity(CHAIN, "a"))
    read_at = (await store.state()).clock
    clock.now += SHORT
    store.restart()
    with pytest.raises(StaleLink, match="restarted since"):
        await store.promote(ONE, uuid4(), read_at)
    await store.promote(ONE, uuid4(), (await store.state()).clock)


async def test_a_reading_from_before_the_server_started_promotes_nothing(databases: Databases) -> None:
    stores = WashedStores(databases)
    store = await empty(stores)
    with pytest.raises(StaleLink, match="restarted"):
        await store.promote(ONE, uuid4(), (await store.state()).clock - timedelta(days=1))
    assert (await store.state()).role is not Role.HEAD
    await stores.close()


# Renewal.


async def test_a_renewal_counts_from_the_reading_not_from_its_arrival(stores: Stores) -> None:
    store = await leased(stores, PAST)
    read_at = (await store.state()).clock
    await store.renew(ONE, read_at - LONG, LONG + PAST)
    assert not await takes_writes(store)
    await store.renew(ONE, read_at - LONG / 2, LONG)
    assert 20 < (await store.state()).lease_left_s <= 30


async def test_a_renewal_never_makes_a_lease_shorter(stores: Stores) -> None:
    store = await leased(stores, LONG)
    read_at = (await store.state()).clock
    for reading, duration in ((read_at, SHORT), (read_at - LONG, SHORT), (read_at, -LONG)):
        await store.renew(ONE, reading, duration)
        assert (await store.state()).lease_left_s > 50
    await store.renew(ONE, read_at, 2 * LONG)
    assert (await store.state()).lease_left_s > 110


async def test_renewals_that_pass_each_other_leave_the_longest(stores: Stores) -> None:
    store = await leased(stores, PAST)
    read_at = (await store.state()).clock
    await asyncio.gather(*(store.renew(ONE, read_at, LONG * n) for n in (1, 5, 2, 4, 3)))
    assert 290 < (await store.state()).lease_left_s <= 300


async def test_for_ever_and_back(stores: Stores) -> None:
    store = await leased(stores, PAST)
    read_at = (await store.state()).clock
    await store.renew(ONE, read_at, None)
    assert (await store.state()).lease_left_s == inf
    assert await takes_writes(store)

    await store.renew(ONE, read_at, LONG)
    assert 50 < (await store.state()).lease_left_s <= 60
    await store.renew(ONE, read_at, None)
    await store.renew(ONE, read_at - LONG, LONG + PAST)
    assert not await takes_writes(store)


async def test_what_has_lapsed_is_over_until_it_is_renewed(stores: Stores) -> None:
    store = await leased(stores, LONG)
    now = (await store.state()).clock
    assert await store.lapse(ONE, now + 2 * LONG), "a minute was left"
    assert not await takes_writes(store)
    assert (await store.state()).reigning
    assert not await store.lapse(ONE, now + 2 * LONG), "nothing was left"
    await store.renew(ONE, (await store.state()).clock, LONG)
    assert await takes_writes(store)


async def test_only_what_is_known_lapses(stores: Stores) -> None:
    """Another daemon may have renewed it since; another epoch, or a lease without end, is not meant."""
    store = await leased(stores, LONG)
    now = (await store.state()).clock
    for epoch, until in ((ONE, now + LONG / 2), (TWO, now + 2 * LONG), (Epoch(0), now + 2 * LONG)):
        assert not await store.lapse(epoch, until)
        assert await takes_writes(store)
    await store.renew(ONE, now, None)
    assert not await store.lapse(ONE, now + 2 * LONG)
    assert (await store.state()).lease_left_s == inf
    other = await follower(stores)
    assert not await other.lapse(ONE, now + 2 * LONG)


async def test_a_follower_renews_nothing(stores: Stores) -> None:
    store = await follower(stores)
    state = await store.state()
    with pytest.raises(NotHead) as refusal:
        await store.renew(ONE, state.clock, LONG)
    assert (type(refusal.value), refusal.value.head) == (NotHead, "a")
    assert (state.lease_left_s, state.writable) == (-inf, False)


async def test_a_detached_node_renews_nothing(stores: Stores) -> None:
    store = await empty(stores)
    state = await store.state()
    assert (state.lease_left_s, *rights(state)) == (-inf, False, False, False)
    with pytest.raises(NotHead):
        await store.renew(Epoch(0), state.clock, None)


async def test_nobody_renews_what_nobody_prepared(postgres_server: LocalPostgres) -> None:
    new: list[Store] = [MemoryStore("a"), PostgresStore(await new_database(postgres_server), name="a")]
    now = datetime.now(UTC)
    for bare in new:
        for call in (bare.renew(ONE, now, LONG), bare.promise(ONE, LONG)):
            with pytest.raises(NotPrepared):
                await call
        await bare.close()


async def test_a_fenced_head_is_not_renewed(stores: Stores) -> None:
    store = await leased(stores, PAST)
    await store.fence(TWO)
    clock = (await store.state()).clock
    for epoch in (ONE, TWO):
        for duration in (LONG, None):
            with pytest.raises(Fenced):
                await store.renew(epoch, clock, duration)
    assert rights(await store.state()) == (False, False, False)


async def test_a_head_whose_server_restarted_is_not_renewed(stores: Stores) -> None:
    store = await leased(stores, LONG)
    await stores.restart(store)
    state = await store.state()
    assert rights(state) == (False, False, False)
    with pytest.raises(Restarted):
        await store.renew(ONE, state.clock, LONG)


@pytest.mark.parametrize("epoch", [Epoch(0), ONE, THREE])
async def test_a_renewal_for_another_epoch_is_refused(stores: Stores, epoch: Epoch) -> None:
    store = await empty(stores)
    await store.promote(TWO, uuid4(), (await store.state()).clock + PAST)
    clock = (await store.state()).clock
    for duration in (LONG, None):
        with pytest.raises(LeaseExpired):
            await store.renew(epoch, clock, duration)
    assert not await takes_writes(store)


async def test_a_former_head_keeps_nothing_of_its_lease(stores: Stores) -> None:
    store = await leased(stores, LONG)
    await store.follow_upstream(TWO, "b", Role.TAIL)
    assert (await store.state()).lease_left_s == -inf
    with pytest.raises(NotHead):
        await store.renew(ONE, (await store.state()).clock, None)
    await store.detach(TWO)
    assert (await store.state()).lease_left_s == -inf
    await store.promote(THREE, uuid4(), (await store.state()).clock + PAST)
    assert not await takes_writes(store)


# A clock that steps back.


async def test_a_reading_from_the_future_renews_nothing(stores: Stores) -> None:
    """The clock was read, and then stepped back: the deadline would be later than what was meant."""
    store = await leased(stores, PAST)
    clock = (await store.state()).clock
    for duration in (LONG, None):
        with pytest.raises(LeaseExpired):
            await store.renew(ONE, clock + LONG, duration)
    assert not await takes_writes(store)
    await store.renew(ONE, clock + LITTLE, LONG)
    assert await takes_writes(store)


@pytest.mark.parametrize("left", [LONG, None], ids=["leased", "for ever"])
async def test_a_head_whose_clock_stepped_back_takes_no_writes_until_its_next_promotion(
    stores: Stores, left: timedelta | None
) -> None:
    store = await clock_back(stores, timedelta(hours=1), left)
    state = await store.state()
    assert state.clock_is_back
    assert rights(state) == (False, False, False)
    with pytest.raises(LeaseExpired):
        await store.add("s", Expect.ANY, [event()])
    for duration in (LONG, None):
        with pytest.raises(LeaseExpired):
            await store.renew(ONE, state.clock, duration)
    assert (await store.tip()).position == 1

    await store.promote(TWO, uuid4(), (await store.state()).clock + LONG)
    state = await store.state()
    assert not state.clock_is_back
    assert state.lease_left_s <= 60, "the deadline by the old clock is gone"
    assert await takes_writes(store)
    await store.renew(TWO, state.clock, LONG)


async def test_a_small_step_back_is_borne(stores: Stores) -> None:
    store = await clock_back(stores, TOLERANCE - LITTLE)
    state = await store.state()
    assert not state.clock_is_back
    assert await takes_writes(store)
    await store.renew(ONE, state.clock, LONG)


async def test_a_write_and_a_renewal_remember_the_clock() -> None:
    """What was seen is the latest reading of any verb, not only the promotion's."""
    clock = Clock()
    for by_a_write in (True, False):
        store = MemoryStore("a", clock=clock)
        await store.prepare(Identity(CHAIN, "a"))
        await store.promote(ONE, uuid4(), clock.now + LONG)
        clock.now += LONG / 2
        if by_a_write:
            await store.add("s", Expect.ANY, [event()])
        else:
            await store.renew(ONE, clock.now, LONG)
        clock.now -= LONG / 4
        assert (await store.state()).clock_is_back


async def test_in_postgres_a_write_and_a_renewal_remember_the_clock(each_kind: dict[str, Stores]) -> None:
    stores = each_kind["postgres"]
    assert isinstance(stores, PostgresStores)
    store = await leased(stores, LONG)
    behind = await connect(stores.dsn(store))
    for verb in ("write", "renewal"):
        await behind.execute("update chain.node set seen = clock_timestamp() - interval '1 hour'")
        if verb == "write":
            await store.add("s", Expect.ANY, [event()])
        else:
            await store.renew(ONE, (await store.state()).clock, LONG)
        seen = await behind.fetchval(
            "select seen > clock_timestamp() - interval '10 seconds' from chain.node"
        )
        assert seen, verb
    await behind.close()


async def test_a_clock_that_is_back_means_nothing_to_a_follower(stores: Stores) -> None:
    store = await clock_back(stores, timedelta(hours=1))
    await store.follow_upstream(TWO, "b", Role.TAIL)
    assert not (await store.state()).clock_is_back
    await store.promise(TWO, LONG)


# Promises.


async def test_a_promise_keeps_a_promotion_away_and_ends_by_itself(stores: Stores) -> None:
    store = await follower(stores)
    assert not (await store.state()).promised
    await store.promise(ONE, SHORT)
    state = await store.state()
    assert rights(state) == (False, False, True)
    with pytest.raises(Promised) as refusal:
        await store.promote(TWO, uuid4())
    assert refusal.value.retriable
    state = await store.state()
    assert (state.role, state.epoch, state.tip.position) == (Role.MIDDLE, 1, 0), "nothing has changed"

    async with asyncio.timeout(5):
        while (await store.state()).promised:
            await asyncio.sleep(0.01)
    await store.promote(TWO, uuid4())
    assert await takes_writes(store)


async def test_a_shorter_promise_takes_nothing_back(stores: Stores) -> None:
    store = await follower(stores)
    await store.promise(ONE, LONG)
    for duration in (PAST, -LONG, timedelta(0)):
        await store.promise(ONE, duration)
        assert (await store.state()).promised


async def test_a_promise_outlives_a_fence_a_new_upstream_a_detachment_and_a_restart(stores: Stores) -> None:
    store = await follower(stores)
    await store.promise(ONE, LONG)
    await stores.restart(store)
    await store.fence(TWO)
    assert (await store.state()).promised
    await store.follow_upstream(TWO, "c", Role.TAIL)
    assert (await store.state()).promised
    await store.detach(TWO)
    assert (await store.state()).promised
    with pytest.raises(Promised):
        await store.promote(THREE, uuid4())


async def test_a_promised_follower_still_follows(stores: Stores) -> None:
    source = await head(stores)
    await source.add("s", Expect.ANY, events(3))
    target = await follower(stores)
    await target.promise(ONE, LONG)
    assert await copy(source, target, "a") == await source.tip()


async def test_a_promise_to_an_old_head_is_refused(stores: Stores) -> None:
    """A fence is word that a newer head is wanted: from then on the old one gets no more promises."""
    fenced = await follower(stores)
    await fenced.fence(TWO)
    newer = await follower(stores, "c", epoch=TWO)
    for store in (fenced, newer):
        with pytest.raises(StaleLink):
            await store.promise(ONE, LONG)
        assert not (await store.state()).promised
        await store.promise(TWO, SHORT)


async def test_who_follows_nobody_promises_nothing(stores: Stores) -> None:
    detached = await empty(stores, "b")
    out = await follower(stores, "c")
    await out.detach(ONE)
    former = await head(stores, "d")
    await former.fence(TWO)
    for store in (detached, out, await head(stores, "a"), former):
        for epoch in (ONE, TWO):
            with pytest.raises(StaleLink):
                await store.promise(epoch, LONG)
        assert not (await store.state()).promised


async def test_a_promise_and_a_promotion_never_pass_each_other(stores: Stores) -> None:
    for first in ("promise", "promotion"):
        store = await follower(stores)
        calls = [store.promise(ONE, LONG), store.promote(TWO, uuid4())]
        if first == "promotion":
            calls.reverse()
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        refused = [type(outcome) for outcome in outcomes if isinstance(outcome, ChainError)]
        assert len(refused) == 1, "exactly one of them holds"
        state = await store.state()
        assert state.promised != state.writable
        assert refused == ([Promised] if state.promised else [StaleLink])
