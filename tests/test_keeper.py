"""The keeper of the lease, on memory stores: by the registry, by promises, or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from math import inf
from uuid import UUID, uuid4

import pytest

from chain.commands import create_chain, grant, start_run
from chain.errors import LeaseLost, Refused, StaleLink, Unavailable
from chain.event import Epoch, Expect, NewEvent, Position, Tip
from chain.lease import NOBODY, Lease, Terms
from chain.memory import MemoryLeases, MemoryLocks, MemoryStore
from chain.registry import Registry
from chain.store import Ground, Identity, Role
from chain.tasks import end
from replicator.keeper import Keeper, Keeping, take_up

ONE, TWO = Epoch(1), Epoch(2)
FIRST = uuid4()
TERMS = Terms(duration_s=0.4, margin_s=0.1)
STRICT = Terms(duration_s=0.4, margin_s=0.1, failsafe=False)
CHAIN = "orders"


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2030, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def pass_s(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


class Wire:
    """What lies between a caller and a peer."""

    def __init__(self) -> None:
        self.state = "up"

    async def cross(self) -> None:
        if self.state == "away":
            raise Unavailable("no way there")
        if self.state == "hung":
            await asyncio.Event().wait()


class FarLeases(MemoryLeases):
    def __init__(self, wire: Wire, clock: Clock) -> None:
        super().__init__()
        self.wire, self.clock, self.takes_s = wire, clock, 0.0

    async def read(self, chain: str) -> Lease | None:
        await self.wire.cross()
        return await super().read(chain)

    async def renew(self, chain: str, epoch: Epoch, holder: str, duration_s: float | None) -> Lease:
        await self.wire.cross()
        self.clock.pass_s(self.takes_s)
        return await super().renew(chain, epoch, holder, duration_s)


class Member(MemoryStore):
    def __init__(self, name: str, clock: Clock) -> None:
        super().__init__(name, clock=clock)
        self.wire, self.asked, self.left = Wire(), 0, 0

    async def promise(self, epoch: Epoch, duration: timedelta) -> None:
        self.asked += 1
        try:
            await self.wire.cross()
            await super().promise(epoch, duration)
        finally:
            self.left += 1


class World:
    """A head `a` with its keeper, followers `b` and `c`, and a registry on a wire."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.wire = Wire()
        self.leases = FarLeases(self.wire, self.clock)
        self.registry = Registry(MemoryStore("registry"), MemoryLocks(), self.leases, CHAIN)
        self.nodes = {name: Member(name, self.clock) for name in "abc"}
        self.head = self.nodes["a"]
        self.keeper = self.keep(TERMS)

    def keep(self, terms: Terms | None) -> Keeper:
        self.keeper = Keeper(
            "a", self.head, lambda name: self.nodes[name], self.registry, terms, _others=("b", "c")
        )
        return self.keeper

    async def begin(self, terms: Terms | None = TERMS) -> None:
        for name, node in self.nodes.items():
            await node.prepare(Identity(CHAIN, name))
        for name in "bc":
            await self.nodes[name].follow_upstream(ONE, "a", Role.MIDDLE)
        await self.registry.open()
        regions = {"a": "east", "b": "west", "c": "east"}
        ground = (await self.head.state()).ground
        await self.registry.decide(create_chain(CHAIN, regions, FIRST, ground), by="a test")
        await take_up(self.registry, self.head, "a", ONE, FIRST, terms)

    async def grant(self, epoch: Epoch, node: str, ground: Ground) -> UUID:
        run = uuid4()
        await self.registry.decide(start_run(run, "switchover", {}, "a test"), by="a test")
        await self.registry.decide(grant(epoch, run, node, ground, run=run), by="a test")
        return run

    async def renew(self) -> None:
        await self.keeper.renew()

    def keeping(self) -> Keeping:
        return self.keeper.keeping

    async def left_s(self) -> float:
        return (await self.head.state()).lease_left_s

    async def promised(self) -> list[bool]:
        return [(await self.nodes[name].state()).promised for name in "bc"]

    async def record(self) -> Lease | None:
        return await MemoryLeases.read(self.leases, CHAIN)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    await made.begin()
    yield made
    await made.keeper.close()


# By the registry.


async def test_taking_it_up_gives_the_duration_less_the_margin(world: World) -> None:
    assert await world.left_s() == pytest.approx(0.3)
    assert await world.record() == Lease(ONE, "a", 0, 0.4)


async def test_a_renewal_counts_from_before_it_was_asked(world: World) -> None:
    world.clock.pass_s(0.2)
    world.leases.takes_s = 0.05
    await world.renew()
    assert await world.left_s() == pytest.approx(0.25)
    assert world.keeping() is Keeping.REGISTRY
    assert await world.record() == Lease(ONE, "a", 1, 0.4)
    assert await world.promised() == [False, False]


async def test_a_lease_that_ran_out_is_renewed_if_nobody_took_it(world: World) -> None:
    world.clock.pass_s(10)
    assert not (await world.head.state()).writable
    await world.renew()
    assert (await world.head.state()).writable


async def test_a_follower_keeps_nothing_and_asks_for_nothing(world: World) -> None:
    keeper = Keeper("b", world.nodes["b"], lambda name: world.nodes[name], world.registry, TERMS)
    keeper.lost_to = ONE
    world.wire.state = "hung"
    await keeper.know(["a", "c"])
    await keeper.renew()
    assert keeper.keeping is Keeping.NOTHING
    assert not keeper.lost_to, "that was another reign's"


@pytest.mark.parametrize("harm", ["fenced", "restarted", "clock"])
async def test_a_head_that_does_not_reign_is_not_renewed(world: World, harm: str) -> None:
    await world.renew()
    if harm == "fenced":
        await world.head.fence(TWO)
    elif harm == "restarted":
        world.head.restart()
    else:
        world.clock.pass_s(-3600)
    before = await world.record()
    await world.renew()
    assert world.keeping() is Keeping.NOTHING
    assert await world.record() == before


# Lost.


@pytest.mark.parametrize(("epoch", "holder"), [(TWO, "b"), (TWO, NOBODY), (ONE, NOBODY)])
@pytest.mark.parametrize("terms", [TERMS, STRICT, None], ids=["failsafe", "strict", "off"])
async def test_a_lease_that_was_taken_is_lost_for_good(
    world: World, epoch: Epoch, holder: str, terms: Terms | None
) -> None:
    """Whoever took it has gone on from there; a head that took it back would write beside the next one."""
    taken = await world.registry.take_lease(epoch, holder, 0.4, await world.record())
    world.keep(terms)
    world.clock.pass_s(0.1)
    for _ in range(2):
        with pytest.raises(LeaseLost):
            await world.renew()
        assert (world.keeper.keeping, world.keeper.lost_to) == (Keeping.NOTHING, epoch)
        assert await world.left_s() == pytest.approx(0.2)
    assert await world.record() == taken
    assert await world.promised() == [False, False]


async def test_a_newer_reign_may_take_it_from_anyone_before(world: World) -> None:
    await world.registry.take_lease(TWO, NOBODY, 0.4, await world.record())
    with pytest.raises(LeaseLost):
        await take_up(world.registry, world.head, "a", ONE, FIRST, TERMS)
    b = world.nodes["b"]
    promotion = await world.grant(TWO, "b", (await b.state()).ground)
    await take_up(world.registry, b, "b", TWO, promotion, TERMS)
    assert (await b.state()).lease_left_s == pytest.approx(0.3)
    with pytest.raises(StaleLink, match="the chain is in epoch 2 now"):
        await take_up(world.registry, world.head, "a", ONE, FIRST, TERMS)


async def test_to_take_it_up_again_renews_it(world: World) -> None:
    await take_up(world.registry, world.head, "a", ONE, FIRST, TERMS)
    assert await world.record() == Lease(ONE, "a", 1, 0.4)


# The registry is away.


@pytest.mark.parametrize("state", ["away", "hung"])
async def test_without_the_registry_it_rests_on_the_promises_of_all(world: World, state: str) -> None:
    before = await world.record()
    world.wire.state = state
    world.clock.pass_s(0.2)
    await world.renew()
    assert world.keeping() is Keeping.PROMISES
    assert await world.left_s() == pytest.approx(0.3)
    assert await world.promised() == [True, True]
    world.clock.pass_s(0.3)
    assert await world.left_s() <= 0
    assert await world.promised() == [True, True], "the promise outlives the right that rests on it"
    assert await world.record() == before

    world.wire.state = "up"
    await world.renew()
    assert world.keeping() is Keeping.REGISTRY


@pytest.mark.parametrize("harm", ["away", "hung", "fenced", "detached"])
async def test_one_member_without_a_promise_is_one_too_many(world: World, harm: str) -> None:
    c = world.nodes["c"]
    world.wire.state = "away"
    if harm == "fenced":
        await c.fence(TWO)
    elif harm == "detached":
        await c.detach(ONE)
    else:
        c.wire.state = harm
    world.clock.pass_s(0.2)
    with pytest.raises(Unavailable):
        await world.renew()
    assert world.keeping() is Keeping.NOTHING
    assert await world.left_s() == pytest.approx(0.1)


async def test_nobody_is_still_asked_when_it_has_given_up(world: World) -> None:
    world.wire.state = world.nodes["b"].wire.state = "away"
    world.nodes["c"].wire.state = "hung"
    with pytest.raises(Unavailable):
        await world.renew()
    assert all(node.asked == node.left for node in world.nodes.values())


async def test_all_that_hangs_costs_two_renewal_times_and_no_more(world: World) -> None:
    world.wire.state = world.nodes["b"].wire.state = world.nodes["c"].wire.state = "hung"
    clock = asyncio.get_running_loop().time
    began = clock()
    with pytest.raises(Unavailable):
        await world.renew()
    assert 2 * TERMS.renew_s - 0.01 <= clock() - began < 2 * TERMS.renew_s + 0.5


async def test_without_the_failsafe_nobody_is_asked(world: World) -> None:
    world.keep(STRICT)
    world.wire.state = "away"
    with pytest.raises(Unavailable):
        await world.renew()
    assert [node.asked for node in world.nodes.values()] == [0, 0, 0]


# Off, on.


async def test_off_is_for_ever_and_needs_no_registry() -> None:
    world = World()
    await world.begin(None)
    assert (await world.left_s(), await world.record()) == (inf, None)
    world.keep(None)
    world.wire.state = "hung"
    await world.renew()
    assert world.keeping() is Keeping.OFF


async def test_turned_off_the_registry_knows_first(world: World) -> None:
    world.keep(None)
    world.wire.state = "away"
    with pytest.raises(Unavailable):
        await world.renew()
    assert await world.left_s() == pytest.approx(0.3)
    world.wire.state = "up"
    await world.renew()
    assert (await world.left_s(), world.keeper.keeping) == (inf, Keeping.OFF)
    assert await world.record() == Lease(ONE, "a", 1, None)


async def test_turned_on_the_head_knows_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a daemon that dies in between leaves an expiring record, and a head that never stops."""
    world = World()
    await world.begin(None)
    ends: list[float] = []

    async def take(*_: object) -> Lease:
        ends.append(await world.left_s())
        return await MemoryLeases.take(world.leases, *_)  # type: ignore[arg-type]

    monkeypatch.setattr(world.leases, "take", take)
    await world.renew()
    assert ends == [pytest.approx(0.3)]
    assert await world.record() == Lease(ONE, "a", 0, 0.4)
    await world.keeper.close()


async def test_a_reign_that_is_on_record_is_not_begun_a_second_time(world: World) -> None:
    """The daemon may not know yet that it began; the store went back, and knows nothing of it."""
    gone = Member("a", world.clock)
    await gone.prepare(Identity(CHAIN, "a"))
    with pytest.raises(Refused, match="has begun, and its store knows nothing of it"):
        await take_up(world.registry, gone, "a", ONE, FIRST, TERMS)
    assert (await gone.state()).role is not Role.HEAD
    await take_up(world.registry, world.head, "a", ONE, FIRST, TERMS)


async def test_an_epoch_is_taken_up_only_where_it_was_granted(world: World) -> None:
    """A log that went back would give the place of its lost promotion to another event."""
    ground = (await world.head.state()).ground
    longer = replace(ground, tip=Tip(Position(ground.tip.position + 1), ONE))
    promotion = await world.grant(TWO, "a", longer)
    with pytest.raises(StaleLink, match="was granted epoch 2 at 2@1"):
        await take_up(world.registry, world.head, "a", TWO, promotion, TERMS)
    assert await world.head.tip() == ground.tip
    await world.head.add("s", Expect.ANY, [NewEvent("T")])
    await take_up(world.registry, world.head, "a", TWO, promotion, TERMS)


# When its time is over.


async def test_a_clock_that_is_set_back_makes_no_right_longer(world: World) -> None:
    guarding = asyncio.create_task(world.keeper.guard())
    await world.renew()
    world.wire.state = world.nodes["b"].wire.state = "away"
    world.clock.pass_s(-0.15)  # less than the store itself would notice
    await asyncio.sleep(0.5)
    assert await world.left_s() < 0
    assert (await world.head.state()).reigning

    world.wire.state = "up"
    await world.renew()
    assert await world.left_s() == pytest.approx(0.3)
    await end(guarding)


async def test_nobody_ends_a_right_that_is_renewed(world: World) -> None:
    guarding = asyncio.create_task(world.keeper.guard())
    for _ in range(8):
        await world.renew()
        await asyncio.sleep(0.1)
        world.clock.pass_s(0.1)
        assert await world.left_s() == pytest.approx(0.2)
    await end(guarding)


async def test_a_right_that_another_process_gave_is_guarded_too(world: World) -> None:
    """Whoever took it up for this node, or the daemon that was here before."""
    guarding = asyncio.create_task(world.keeper.guard())
    world.wire.state = world.nodes["b"].wire.state = "away"
    with pytest.raises(Unavailable):
        await world.renew()
    assert await world.left_s() == pytest.approx(0.3)
    await asyncio.sleep(0.5)  # while the store's clock stands still
    assert await world.left_s() < 0
    await end(guarding)


# Who the others are.


async def test_who_does_not_know_the_others_asks_for_no_promises(world: World) -> None:
    keeper = Keeper("a", world.head, lambda name: world.nodes[name], world.registry, TERMS)

    def settled() -> bool:
        return keeper.settled

    await keeper.renew()
    world.wire.state = "away"
    with pytest.raises(Unavailable, match="who the members are was not heard yet"):
        await keeper.renew()
    await keeper.know(["b", "c"])
    assert not settled()
    await keeper.renew()
    assert (keeper.keeping, keeper.settled) == (Keeping.PROMISES, True)
    await keeper.know(["b", "c"])
    assert settled()
    await keeper.know(["b", "c", "d"])
    assert not settled()
    await keeper.close()


async def test_new_members_are_said_between_two_renewals_not_within_one(world: World) -> None:
    world.wire.state, world.nodes["b"].wire.state = "away", "hung"
    renewing = asyncio.create_task(world.renew())
    await asyncio.sleep(0.01)
    knowing = asyncio.create_task(world.keeper.know(["b"]))
    await asyncio.sleep(0.01)
    assert not knowing.done()
    with pytest.raises(Unavailable):
        await renewing
    await knowing
    assert not world.keeper.settled
