"""The loss of a head, and what becomes of what it had alone."""

from __future__ import annotations

import asyncio
import shutil
import signal

import asyncpg
import pytest

from chain.errors import Busy, NotHead, Refused, StaleLink
from chain.event import Expect, NewEvent
from chain.ledger import EntryState
from chain.store import Role
from failover import ledger_desk
from failover.local.chain import LocalChain
from tests.support import (
    append,
    assert_dense,
    client_of,
    fleet_of,
    operate,
    wait_equal,
    whole_log,
)


async def test_a_dead_branch_ends_in_the_ledger_event_by_event(chain: LocalChain) -> None:
    async with fleet_of(chain) as fleet, client_of(chain) as client:
        east, west = fleet.store("east-1"), fleet.store("west-1")
        await append(east, 50)
        await wait_equal([east, west])
        chain.signal_daemon("west-1", signal.SIGSTOP)
        await append(east, 30, prefix="dead")
        branch = [e for e in await whole_log(east) if e.data.startswith(b"dead")]
        await chain.kill("east-1")
        chain.signal_daemon("west-1", signal.SIGCONT)
        await operate(fleet, "failover", node=None, head_is_dead=True)
        await append(west, 20, prefix="after")

        await chain.start("east-1")
        done = await operate(fleet, "rejoin", node="east-1")

        assert done.topology.order == ("west-1", "east-2", "east-1")
        entries = await ledger_desk.entries(west)
        assert [entry.event for entry in entries] == branch
        assert {entry.state for entry in entries} == {EntryState.OPEN}
        for entry in entries:
            await ledger_desk.requeue(client, west, entry, by="a test", at_end=True)
        stores = [fleet.store(n) for n in done.topology.order]
        await wait_equal(stores)
        logs = [await whole_log(store) for store in stores]
        assert logs[0] == logs[1] == logs[2]
        assert_dense(logs[0])
        assert {e.id for e in branch} <= {e.id for e in logs[0]}


@pytest.mark.long
async def test_a_requeue_is_refused_when_the_stream_has_moved_on(chain: LocalChain) -> None:
    async with fleet_of(chain) as fleet, client_of(chain) as client:
        east, west = fleet.store("east-1"), fleet.store("west-1")
        chain.signal_daemon("west-1", signal.SIGSTOP)
        await east.add("order-1", Expect.NO_STREAM, [NewEvent("Placed", b"on the dead branch")])
        await chain.kill("east-1")
        chain.signal_daemon("west-1", signal.SIGCONT)
        await operate(fleet, "failover", node=None, head_is_dead=True)
        await client.add("order-1", Expect.NO_STREAM, [NewEvent("Placed", b"on the new head")])
        await chain.start("east-1")
        await operate(fleet, "rejoin", node="east-1")
        (entry,) = await ledger_desk.entries(west)

        with pytest.raises(Refused, match="moved on"):
            await ledger_desk.requeue(client, west, entry, by="a test")

        _, answer = await ledger_desk.requeue(client, west, entry, by="a test", at_end=True)
        assert answer.last_revision == 1


async def test_a_returned_head_takes_no_writes_and_no_batches(chain: LocalChain) -> None:
    async with fleet_of(chain) as fleet:
        east, west = fleet.store("east-1"), fleet.store("west-1")
        await append(east, 10)
        await wait_equal([east, west])
        await chain.kill("east-1")
        await operate(fleet, "failover", node=None, head_is_dead=True)

        await chain.start_postgres("east-1")  # its daemon is not there to tell it anything
        with pytest.raises(NotHead):
            await append(east, 1)

        batch = await west.read((await east.tip()).position, 10, 1 << 20)
        with pytest.raises(StaleLink):
            await east.apply(batch, (await west.state()).epoch, "west-1")


@pytest.mark.long
async def test_a_living_head_is_not_failed_over(chain: LocalChain) -> None:
    async with fleet_of(chain) as fleet:
        with pytest.raises(Refused, match="alive"):
            await operate(fleet, "failover", node=None, head_is_dead=True)
        assert (await fleet.registry.topology()).epoch == 1
        await append(fleet.store("east-1"), 1)


async def test_an_unreachable_head_is_replaced_when_its_lease_has_run_out(chain: LocalChain) -> None:
    """Without anybody's word, and not before. Without leases, see test_lease.py."""
    async with fleet_of(chain) as fleet:
        await append(fleet.store("east-1"), 10)
        await wait_equal([fleet.store(n) for n in ("east-1", "west-1")])
        await chain.kill("east-1")
        began = asyncio.get_running_loop().time()
        done = await operate(fleet, "failover", node=None, head_is_dead=False)
        assert done.results["end-lease"] == {"lease": "expired"}
        lease = fleet.config.lease
        assert done.at["end-lease"] - began >= lease.duration + lease.margin
        assert done.topology.order == ("west-1", "east-2")
        await append(fleet.store("west-1"), 10)


async def test_a_second_failover_during_the_recovery_of_the_first(chain: LocalChain) -> None:
    """Both heads come back with a dead branch; every acknowledged event is in the log or in the ledger."""
    async with fleet_of(chain) as fleet:
        east, west, tail = (fleet.store(n) for n in ("east-1", "west-1", "east-2"))
        await append(east, 20)
        await wait_equal([east, west, tail])
        chain.signal_daemon("west-1", signal.SIGSTOP)
        await append(east, 10, prefix="first")
        await chain.kill("east-1")
        chain.signal_daemon("west-1", signal.SIGCONT)
        await operate(fleet, "failover", node=None, head_is_dead=True)
        await append(west, 10, prefix="second")
        await wait_equal([west, tail])
        await chain.start("east-1")
        rejoining = asyncio.create_task(operate(fleet, "rejoin", node="east-1"))
        while not (await fleet.registry.topology()).joining:
            await asyncio.sleep(0.01)
        rejoining.cancel()
        await asyncio.wait({rejoining})
        chain.signal_daemon("east-2", signal.SIGSTOP)
        await append(west, 10, prefix="third")
        await chain.kill("west-1")
        chain.signal_daemon("east-2", signal.SIGCONT)

        with pytest.raises(Busy, match="rejoin"):
            await operate(fleet, "switchover", node="east-2")
        await operate(fleet, "failover", node=None, head_is_dead=True)
        await chain.start("west-1")
        await operate(fleet, "rejoin", node="west-1")

        topology = await fleet.registry.topology()
        if "east-1" not in topology.order:
            await operate(fleet, "rejoin", node="east-1")
            topology = await fleet.registry.topology()
        assert sorted(topology.order) == ["east-1", "east-2", "west-1"]
        stores = [fleet.store(n) for n in topology.order]
        await wait_equal(stores)
        logs = [await whole_log(store) for store in stores]
        assert logs[0] == logs[1] == logs[2]
        there = {e.data for e in logs[0] if e.type == "Tested"}
        there |= {entry.event.data for entry in await ledger_desk.entries(stores[0])}
        for prefix in ("first", "second", "third"):
            assert {f"{prefix}{n}".encode() for n in range(10)} <= there


async def test_a_head_whose_server_restarts_goes_on_in_a_new_epoch(chain: LocalChain) -> None:
    async with fleet_of(chain) as fleet, client_of(chain) as client:
        east = fleet.store("east-1")
        await append(east, 20)
        await chain.kill_postgres("east-1")
        await chain.start_postgres("east-1")

        answer = await client.add("s-0", Expect.ANY, [NewEvent("Tested", b"after the restart")])

        assert answer.epoch == 2
        topology = await fleet.registry.topology()
        assert (topology.head, topology.epoch) == ("east-1", 2)
        await wait_equal([fleet.store(n) for n in topology.order])


@pytest.mark.long
async def test_a_wiped_head_does_not_begin_again_from_nothing(chain: LocalChain) -> None:
    """Its successor has more: an empty head would overrule it. The chain waits for a failover."""
    async with fleet_of(chain) as fleet:
        east, west = fleet.store("east-1"), fleet.store("west-1")
        await append(east, 20)
        await wait_equal([east, west])
        await chain.kill("east-1")
        await asyncio.to_thread(_wipe, chain, "east-1")
        await chain.start("east-1")
        async with asyncio.timeout(20):
            while True:
                seen = (await fleet.observe()).nodes["east-1"]
                if seen.daemon and "behind its successor" in seen.daemon["last_error"]:
                    break
                await asyncio.sleep(0.1)
        assert (await fleet.registry.topology()).epoch == 1
        await operate(fleet, "failover", node=None, head_is_dead=True)
        done = await operate(fleet, "rejoin", node="east-1")
        assert (await east.state()).role is Role.TAIL
        await wait_equal([fleet.store(n) for n in done.topology.order])


def _wipe(chain: LocalChain, node: str) -> None:
    """An empty server in the old one's place, at the same address."""
    shutil.rmtree(chain.node_folder(node) / "data")


async def test_a_node_that_is_being_loaded_is_never_made_head(chain: LocalChain) -> None:
    async with fleet_of(chain) as fleet:
        stores = [fleet.store(n) for n in ("east-1", "west-1", "east-2")]
        await append(stores[0], 20)
        await wait_equal(stores)
        connection = await asyncpg.connect(chain.config().node("west-1").dsn.reveal())
        await connection.execute("alter table chain.event drop constraint event_id")
        await connection.close()
        assert (await stores[1].state()).loading
        with pytest.raises(Refused, match="west-1 is being loaded"):
            await operate(fleet, "switchover", node="west-1")
        assert (await stores[0].state()).writable

        await chain.kill("east-1")
        with pytest.raises(Refused, match="west-1 is being loaded"):
            await operate(fleet, "failover", node="west-1", head_is_dead=True)
        done = await operate(fleet, "failover", node=None, head_is_dead=True)
        assert done.topology.head == "east-2"
