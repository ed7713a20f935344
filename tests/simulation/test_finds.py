"""What the swarm found in the product, each as a short life of its own.

Two more finds are kept as broken variants that undo their mending: see `variants.py`.
"""

from __future__ import annotations

import asyncio
import random
from unittest import mock
from uuid import UUID, uuid4

import pytest

from chain.commands import finish_run, finish_step, start_join, start_run, start_step
from chain.errors import ChainError, Refused
from chain.event import EMPTY, Epoch
from failover.playbook import load_playbook
from failover.runner import abort, resume
from tests.simulation.invariants import Invariants
from tests.simulation.loop import simulate
from tests.simulation.network import Process
from tests.simulation.test_crash_points import append, run, settled
from tests.simulation.world import World


def test_a_restored_head_does_not_wait_for_a_node_that_is_only_joining() -> None:
    async def life() -> None:
        world = World(random.Random(1), nodes={"east-1": "east"}, spares={"west-2": "west"})
        await world.start()
        await settled(world)
        run, registry = uuid4(), world.registry()
        await registry.decide(start_run(run, "bootstrap-tail", {}, "a test"), by="a test")
        await registry.decide(start_join("west-2", "west", run=run), by="a test")
        head, joining = world.machines["east-1"].store, world.machines["west-2"].store
        await append(head, 5, "a")
        backup = head.snapshot()
        await append(head, 5, "b")
        await _until(lambda: joining.last == head.last)
        world.crash("east-1")
        world.lose_disk("east-1", backup)
        world.revive("east-1")
        await _until(lambda: world.writable() == ["east-1"] and joining.last == head.last)
        assert (await world.topology()).epoch == 2
        await _until(lambda: len([e for e in head.events if e.type == "LedgerKept"]) == 5)

    simulate(life())


def test_a_head_that_lost_its_whole_log_does_not_go_on_before_it_has_asked_its_successor() -> None:
    async def life() -> None:
        world = World(random.Random(1), nodes={"east-1": "east", "west-2": "west"})
        head, successor = world.machines["east-1"].store, world.machines["west-2"].store
        nothing = head.snapshot()
        await world.start()
        await settled(world)
        await append(head, 5, "a")
        await _until(lambda: successor.last == head.last)
        world.crash("east-1", "west-2")
        world.lose_disk("east-1", nothing)
        world.revive("east-1")
        await asyncio.sleep(10)
        assert (await world.topology()).epoch == 1
        assert head.last == EMPTY
        world.revive("west-2")
        world.start_controller("one")
        topology = await settled(world)
        assert topology.head == "west-2"
        assert successor.has(next(e.id for e in successor.events if e.data == b"a4"))

    simulate(life())


@pytest.mark.parametrize("back_to", ["where it was granted the epoch", "before that"])
def test_a_promotion_that_is_lost_before_it_is_on_record_gives_no_place_twice(back_to: str) -> None:
    """Found by old-backup 50873: promoted again at an earlier place, it gave the first place once more."""

    async def life() -> None:
        world = World(random.Random(1), nodes={"east-1": "east", "west-2": "west"})
        await world.start()
        await settled(world)
        old, new = world.machines["east-1"].store, world.machines["west-2"].store
        await append(old, 5, "a")
        await _until(lambda: new.last == old.last)
        earlier = new.snapshot()
        await append(old, 5, "b")
        await _until(lambda: new.last == old.last)
        world.crash("east-1")

        promoted: list[str] = []

        def lose_registry(node: str, epoch: Epoch, promotion: UUID) -> None:
            Invariants.promoted(world.invariants, node, epoch, promotion)
            if epoch == 2 and not promoted:
                world.crash_registry()
            promoted.append(node)

        with mock.patch.object(world.invariants, "promoted", lose_registry, create=True):
            world.start_controller("one")
            await _until(lambda: new.last.epoch == 2)
            promotion = new.events[-1]
            world.crash("west-2")
            lost = back_to == "before that"
            world.lose_disk("west-2", earlier if lost else world.at_grant["west-2"])
            world.revive_registry()
            world.revive("west-2")
            await _until(lambda: world.writable() == ["west-2"])
        world.revive("east-1")
        topology = await settled(world)
        await append(new, 5, "c")
        await settled(world)
        if lost:
            assert topology.epoch > 2
            assert promotion not in new.events
        else:
            assert new.events[promotion.position - 1] == promotion
            assert world.invariants.met["a promotion written again"] == 1
        assert not world.invariants.broken

    simulate(life())


@pytest.mark.parametrize("seed", range(8))
def test_a_head_that_got_its_place_back_does_not_take_itself_for_lost(seed: int) -> None:
    """Found by freeze 200155: it fenced itself to ask for one more epoch, and the undoing never ended."""

    async def life() -> None:
        world = World(random.Random(seed), nodes={"east-1": "east", "west-2": "west"})
        await world.start()
        await settled(world)
        started, registry = uuid4(), world.registry()
        await registry.decide(start_run(started, "failover", {}, "a test", text=_TEXT), by="a test")
        chosen = {"node": "west-2", "head": "east-1"}
        for step, result in (("choose-candidate", chosen), ("end-lease", None)):
            await registry.decide(start_step(started, step), by="a test")
            if result is not None:
                await registry.decide(finish_step(started, step, result), by="a test")
        await registry.take_lease(Epoch(2), "", 3.0, await registry.lease())
        await _until(lambda: world.machines["east-1"].daemon._keeper.lost_to == 2)  # type: ignore[union-attr]
        await abort(world.fleet(Process("an operator")), by="a test")
        topology = await settled(world)
        assert (topology.head, topology.epoch) == ("east-1", 2)

    simulate(life(), rng=random.Random(seed))


_TEXT = load_playbook("failover").model_dump_json()


def test_a_head_that_a_lost_operation_has_fenced_goes_on_by_itself() -> None:
    """Found by the model (`docs/model.md`): nobody was left who would take the fence back."""

    async def life() -> None:
        world = World(random.Random(1), nodes={"east-1": "east", "west-2": "west"})
        await world.start()
        await settled(world)
        head = world.machines["east-1"].store
        await append(head, 5, "a")
        await head.fence(Epoch(2))  # late: the run that asked for it has ended
        await _until(lambda: world.writable() == ["east-1"])
        assert (await world.topology()).epoch == 2
        await append(head, 5, "b")
        await settled(world)

    simulate(life())


def test_a_fenced_head_waits_for_a_run_that_moves_the_head() -> None:
    async def life() -> None:
        world = World(random.Random(1), nodes={"east-1": "east", "west-2": "west"})
        await world.start()
        await settled(world)
        run, registry = uuid4(), world.registry()
        await registry.decide(start_run(run, "switchover", {}, "a test"), by="a test")
        await registry.decide(start_step(run, "fence-head"), by="a test")
        await world.machines["east-1"].store.fence(Epoch(2))
        await asyncio.sleep(30)
        assert (await world.topology()).epoch == 1
        await registry.decide(finish_run(run, "failed"), by="a test")
        await settled(world)
        assert (await world.topology()).epoch == 2

    simulate(life())


def test_a_registry_that_has_lost_everything_moves_no_head() -> None:
    """Found by hand: a daemon created the chain anew, and granted epochs until one was the head's own."""

    async def life() -> None:
        world = World(random.Random(1))
        control, leases = world._registry_store, world._leases
        nothing = control.snapshot()
        await world.start()
        await settled(world)
        await run(world, "switchover", {"node": "west-1"})
        head = world.machines["west-1"].store
        await append(head, 5, "a")
        await settled(world)
        await asyncio.sleep(5)
        whole, records = control.snapshot(), dict(leases._records)

        world.invariants.met.clear()
        control.go_back(nothing)
        leases._records.clear()
        for name in ("east-1", "east-2"):
            await world.kill_daemon(name)
            world.start_daemon(name)
        world.start_controller("one")
        for _ in range(300):
            await asyncio.sleep(0.1)
            assert world.writable() == ["west-1"]
        with pytest.raises(Refused, match="does not know"):
            await world.topology()
        assert "has been in it up to epoch 2" in world.machines["east-1"].daemon._last_error  # type: ignore[union-attr]
        assert {m.store.knows for m in world.machines.values()} == {2}
        await append(head, 5, "b")

        control.go_back(whole)
        leases._records.update(records)
        topology = await settled(world)
        assert (topology.head, topology.epoch) == ("west-1", 2)
        await append(head, 5, "c")
        await settled(world)

    simulate(life())


def test_a_node_that_knows_more_than_the_registry_does_as_it_says_in_nothing() -> None:
    async def life() -> None:
        world = World(random.Random(1))
        control = world._registry_store
        await world.start()
        await settled(world)
        old = control.snapshot()
        for node in ("west-1", "east-1", "west-1"):
            await run(world, "switchover", {"node": node})
        control.go_back(old)
        for name in world.machines:
            await world.kill_daemon(name)
            world.start_daemon(name)
        await asyncio.sleep(30)
        assert (await world.topology()).epoch == 1
        assert {m.store.knows for m in world.machines.values()} == {4}
        said = world.machines["east-1"].daemon._last_error  # type: ignore[union-attr]
        assert "knows epoch 4; the registry is in epoch 1" in said

    simulate(life())


def test_a_run_with_a_step_of_another_version_ends_and_says_which() -> None:
    async def life() -> None:
        world = World(random.Random(1))
        await world.start()
        await settled(world)
        text = load_playbook("detach").model_dump_json(exclude_none=True).replace("leave", "leave-by-air")
        started = start_run(uuid4(), "detach", {"node": "west-1"}, "a newer one", text=text)
        await world.registry().decide(started, by="a test")
        fleet = world.fleet(Process("an operator"))
        with pytest.raises(ChainError, match="leave-by-air"):
            await resume(fleet, None, by="an operator")
        assert (await world.topology()).run is None

    simulate(life())


async def _until(true: object) -> None:
    assert callable(true)
    async with asyncio.timeout(60):
        while not true():
            await asyncio.sleep(0.05)


def test_a_follower_that_goes_back_under_its_daemon_is_filled_again_though_nothing_new_is_written() -> None:
    """Seed 8083 of old-backup: the link believed its own last word, and no batch came that would fail."""

    async def life() -> None:
        world = World(random.Random(1), nodes={"east-1": "east", "west-2": "west"})
        await world.start()
        await settled(world)
        head, follower = world.machines["east-1"].store, world.machines["west-2"].store
        backup = follower.snapshot()
        await append(head, 5, "a")
        await _until(lambda: follower.last == head.last)
        world.lose_disk("west-2", backup)
        world.start_server("west-2")
        await _until(lambda: follower.last == head.last)

    simulate(life())
