"""The link and the salvage, on memory stores: what they promise where two logs differ."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from uuid import UUID, uuid4

import pytest

from chain.errors import Diverged, StaleLink, WrongIdentity
from chain.event import LEDGER_STREAM, Epoch, Expect, NewEvent, Position
from chain.ledger import fold
from chain.memory import MemoryStore
from chain.store import Identity, Role, Store
from chain.tasks import end
from chain.topology import Follow
from replicator.link import Link, LinkState
from replicator.read_ahead import Pace
from replicator.salvage import Salvage

ONE, TWO, THREE = Epoch(1), Epoch(2), Epoch(3)
PACE = Pace(idle_s=0.02, backoff_s=0.05)


async def store(name: str, chain: str = "shop") -> MemoryStore:
    made = MemoryStore(name=name)
    await made.prepare(Identity(chain, name))
    return made


async def head(name: str, promotion: UUID | None = None) -> MemoryStore:
    made = await store(name)
    await made.promote(ONE, promotion or uuid4())
    return made


async def follower(name: str, upstream: str, epoch: Epoch = ONE) -> MemoryStore:
    made = await store(name)
    await made.follow_upstream(epoch, upstream, Role.TAIL)
    return made


async def write(log: Store, count: int, data: bytes = b"") -> None:
    for _ in range(count):
        await log.add("s", Expect.ANY, [NewEvent("Tested", data)])


def link(source: MemoryStore, target: MemoryStore, epoch: Epoch = ONE) -> Link:
    follow = Follow(epoch, source.name, Role.TAIL)
    return Link("shop", source.name, target.name, source, target, follow, PACE)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


async def copy_all(source: MemoryStore, target: MemoryStore, epoch: Epoch = ONE) -> Link:
    """Runs a link until the two tips are equal."""
    running = link(source, target, epoch)
    task = asyncio.create_task(running.run())
    goal = await source.tip()
    await until(lambda: running.status.target_tip == goal)
    await end(task)
    return running


async def test_a_link_copies_what_there_is_and_then_what_comes() -> None:
    a, b = await head("a"), await follower("b", "a")
    await write(a, 20)
    running = link(a, b)
    task = asyncio.create_task(running.run())
    await until(lambda: running.status.target_tip.position == 21)
    await write(a, 5)
    await until(lambda: running.status.target_tip.position == 26)
    assert running.status.state is LinkState.STREAMING
    assert (await b.log()).events == (await a.log()).events
    await end(task)


async def test_a_dead_branch_is_given_up_and_the_log_follows_the_newer_epoch() -> None:
    a, b = await head("a"), await follower("b", "a")
    await write(a, 5)
    await copy_all(a, b)
    await write(a, 3, b"dead")
    await b.promote(TWO, uuid4())
    await write(b, 4)
    await a.follow_upstream(TWO, "b", Role.TAIL)
    ran = await copy_all(b, a, TWO)
    assert ran.status.given_up == 3
    assert [d.event.data for d in await a.dead_branch()] == [b"dead"] * 3
    assert (await a.log()).events == (await b.log()).events


async def test_a_target_that_is_only_ahead_of_its_source_gives_nothing_up() -> None:
    """Re-linked to a slower node, it waits; its events are no dead branch."""
    a, b, c = await head("a"), await follower("b", "a"), await follower("c", "a")
    await write(a, 10)
    await copy_all(a, c)
    batch = await a.read(Position(0), 5, 1 << 20)
    await b.apply(batch, ONE, "a")
    await c.follow_upstream(ONE, "b", Role.TAIL)
    running = link(b, c)
    task = asyncio.create_task(running.run())
    await until(lambda: "is behind c" in running.status.last_error)
    assert (await c.tip()).position == 11
    assert await c.dead_branch() == ()
    await copy_all(a, b)
    await until(lambda: running.status.state is LinkState.STREAMING)
    assert await c.dead_branch() == ()
    await end(task)


async def test_a_source_that_has_not_come_to_the_epoch_overrules_nobody() -> None:
    a, b, c = await head("a"), await follower("b", "a"), await follower("c", "a")
    await write(a, 4)
    await copy_all(a, b)
    await copy_all(a, c)
    await write(a, 3)
    await copy_all(a, c)
    # b's log has not come to epoch 2 yet, though b is c's upstream there; it will bring c's own events.
    await c.follow_upstream(TWO, "b", Role.TAIL)
    running = link(b, c, TWO)
    task = asyncio.create_task(running.run())
    await until(lambda: running.status.state is LinkState.PAUSED)
    assert (await c.tip()).position == 8
    await end(task)


async def test_logs_that_were_never_one_chain_give_nothing_up() -> None:
    a, b = await head("a"), await head("b")
    await write(a, 3)
    await write(b, 9)
    await a.promote(TWO, uuid4())
    await b.follow_upstream(TWO, "a", Role.TAIL)
    with pytest.raises(Diverged, match="no event in common") as refused:
        await link(a, b, TWO).run()
    assert "wipe b" in refused.value.hint
    assert ((await b.tip()).position, await b.dead_branch()) == (10, ())


async def test_a_head_that_never_took_a_write_can_always_be_overruled() -> None:
    """It was lost right after its promotion; another began in its stead, from nothing."""
    a, b = await follower("a", "b"), await head("b")
    await a.promote(TWO, uuid4())
    await write(a, 3)
    await b.follow_upstream(TWO, "a", Role.TAIL)
    await copy_all(a, b, TWO)
    assert (await b.log()).events == (await a.log()).events


async def test_a_link_ends_when_its_assignment_does() -> None:
    a, b = await head("a"), await follower("b", "a")
    running = link(a, b)
    task = asyncio.create_task(running.run())
    await until(lambda: running.status.state is LinkState.STREAMING)
    await b.fence(TWO)
    await write(a, 1)
    with pytest.raises(StaleLink):
        await asyncio.wait_for(task, 5)
    assert running.status.state is LinkState.FENCED


async def test_another_chains_node_is_refused_at_the_probe() -> None:
    other = await store("a", chain="stall")
    await other.promote(ONE, uuid4())
    b = await follower("b", "a")
    with pytest.raises(WrongIdentity):
        await asyncio.wait_for(link(other, b).run(), 5)
    assert (await b.tip()).position == 0


async def test_a_dead_branch_is_kept_until_its_ledger_has_come_back() -> None:
    a, b = await head("a"), await follower("b", "a")
    await write(a, 2)
    await copy_all(a, b)
    await write(a, 3, b"dead")
    await b.promote(TWO, uuid4())
    await a.follow_upstream(TWO, "b", Role.TAIL)
    await copy_all(b, a, TWO)
    salvage = Salvage("a", a, {"b": b}.__getitem__)

    assert await salvage.publish("b", TWO) == 3
    assert await salvage.publish("b", TWO) == 0
    assert len(await a.dead_branch()) == 3  # on the head alone: not safe enough
    await copy_all(b, a, TWO)
    await salvage.publish("b", TWO)
    assert await a.dead_branch() == ()
    entries = fold((await a.get(LEDGER_STREAM)).events)
    assert [entry.event.data for entry in entries.values()] == [b"dead"] * 3


async def test_a_ledger_that_is_lost_with_its_head_is_written_again_on_the_next() -> None:
    a, b, c = await head("a"), await follower("b", "a"), await follower("c", "b")
    await write(a, 2)
    await copy_all(a, b)
    await c.follow_upstream(ONE, "b", Role.TAIL)
    await copy_all(b, c)
    await write(a, 3, b"dead")
    await b.promote(TWO, uuid4())
    await c.follow_upstream(TWO, "b", Role.TAIL)
    await copy_all(b, c, TWO)
    await a.follow_upstream(TWO, "b", Role.TAIL)
    await copy_all(b, a, TWO)
    salvage = Salvage("a", a, {"b": b, "c": c}.__getitem__)
    assert await salvage.publish("b", TWO) == 3  # and b is lost before c has it
    await c.promote(THREE, uuid4())
    assert await salvage.publish("c", THREE) == 3
    assert len(fold((await c.get(LEDGER_STREAM)).events)) == 3


async def test_entries_that_came_back_on_a_branch_that_dies_too_are_written_again() -> None:
    """The node lets go of what it kept, hears of another epoch, and only then loses the entries for it."""
    a, b, c = await head("a"), await follower("b", "a"), await follower("c", "b")
    await write(a, 2)
    await copy_all(a, b)
    await c.follow_upstream(ONE, "b", Role.TAIL)
    await copy_all(b, c)
    await write(a, 3, b"dead")
    await b.promote(TWO, uuid4())
    await a.follow_upstream(TWO, "b", Role.TAIL)
    await copy_all(b, a, TWO)
    salvage = Salvage("a", a, {"b": b, "c": c}.__getitem__)
    assert await salvage.publish("b", TWO) == 3
    await copy_all(b, a, TWO)
    await c.promote(THREE, uuid4())  # which has nothing of epoch 2
    await a.follow_upstream(THREE, "c", Role.TAIL)
    assert await salvage.publish("c", THREE) == 0
    assert await a.dead_branch() == ()

    await copy_all(c, a, THREE)
    assert await salvage.publish("c", THREE) == 4  # the entries, and the promotion that lay before them
    await copy_all(c, a, THREE)
    await salvage.publish("c", THREE)
    assert await a.dead_branch() == ()
    assert [e.event.data for e in fold((await a.get(LEDGER_STREAM)).events).values()].count(b"dead") == 3
