"""The loss of the registry: the head goes on while it may, stops when it must, and nothing is decided."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from chain.errors import LeaseExpired
from chain.store import Store
from failover.fleet import Fleet
from failover.local.chain import LocalChain
from tests.support import (
    append,
    assert_kept,
    client_of,
    epochs_granted,
    fleet_of,
    judgements,
    running_chain,
    wait_ended,
    wait_judged,
    wait_renewed,
    wait_topology,
    wait_until,
    writing,
)

LEASE_S = 2.0


@pytest.mark.long
async def test_the_head_goes_on_without_the_registry_by_the_promises_of_the_others(
    prepared: LocalChain, tmp_path: Path
) -> None:
    """For longer than its lease, whether the registry is dead or frozen; then all is as it was."""
    async with (
        running_chain(prepared, tmp_path) as chain,
        fleet_of(chain) as fleet,
        client_of(chain, deadline_s=60) as client,
    ):
        await wait_judged(fleet, "steady")
        loop = asyncio.get_running_loop()
        async with writing(client) as load:
            await load.wait_more()
            for frozen in (False, True):
                said = len(await judgements(fleet))
                if frozen:
                    chain.signal_registry(signal.SIGSTOP)
                else:
                    await chain.kill_registry()
                until = loop.time() + 2.5 * LEASE_S
                while loop.time() < until:
                    await load.wait_more(5, wait_s=10)
                assert await _rests_on(fleet, "east-1") == "promises"
                if frozen:
                    chain.signal_registry(signal.SIGCONT)
                else:
                    await chain.start_registry()
                await wait_renewed(fleet, 3)
                await wait_judged(fleet, "steady", after=said)
                assert await _rests_on(fleet, "east-1") == "registry"
                await load.wait_more()
        topology = await fleet.registry.topology()
        assert (topology.order, topology.epoch) == (("east-1", "west-1", "east-2"), 1)
        await assert_kept(fleet, load)


@pytest.mark.long
async def test_a_head_that_lost_the_registry_and_a_follower_stops_and_recovers_by_itself(
    prepared: LocalChain, tmp_path: Path
) -> None:
    """Lost together with the registry, the head is replaced once the registry is back: once."""
    async with (
        running_chain(prepared, tmp_path) as chain,
        fleet_of(chain) as fleet,
        client_of(chain, deadline_s=60) as client,
    ):
        await wait_judged(fleet, "steady")
        async with writing(client) as load:
            await load.wait_more()
            before = await _lease(fleet)
            await chain.kill_registry()
            await chain.kill_postgres("west-1")
            await _wait_refuses(fleet.store("east-1"))
            await chain.start_registry()
            await load.wait_more()
            assert await _lease(fleet) > before
            assert (await fleet.registry.topology()).epoch == 1
            await chain.start_postgres("west-1")
            await wait_topology(fleet, "all three are in", lambda t: len(t.order) == 3 and t.run is None)
            await wait_judged(fleet, "steady")

            said = len(await judgements(fleet))
            head, successor, *_ = (await fleet.registry.topology()).order
            await chain.kill_registry()
            await chain.kill(head)
            await chain.start_registry()
            await wait_topology(
                fleet, "it is replaced", lambda t: t.head == successor and t.began is not None
            )
            await load.wait_more()
            await chain.start(head)
            await wait_topology(fleet, "it is back", lambda t: len(t.order) == 3 and t.run is None)
            await wait_judged(fleet, "steady", after=said)
        assert await epochs_granted(fleet) == 1
        await assert_kept(fleet, load)


@pytest.mark.long
async def test_without_failsafe_a_head_stops_when_its_lease_ends_and_goes_on_when_the_registry_is_back(
    prepared: LocalChain, tmp_path: Path
) -> None:
    lease = {"duration": "2s", "margin": "400ms", "failsafe": False}
    async with (
        running_chain(prepared, tmp_path, lease=lease) as chain,
        fleet_of(chain) as fleet,
        client_of(chain, deadline_s=60) as client,
    ):
        await wait_judged(fleet, "steady")
        async with writing(client) as load:
            await load.wait_more()
            said = len(await judgements(fleet))
            await chain.kill_registry()
            await _wait_refuses(fleet.store("east-1"))
            with pytest.raises(LeaseExpired):
                await append(fleet.store("east-1"), 1)
            await chain.start_registry()
            await load.wait_more()
            await wait_judged(fleet, "steady", after=said)
        await wait_ended(fleet, ("east-1", "west-1", "east-2"))
        assert await epochs_granted(fleet) == 0
        await assert_kept(fleet, load)


async def _lease(fleet: Fleet) -> int:
    lease = await fleet.registry.lease()
    assert lease is not None
    return lease.renewals


async def _rests_on(fleet: Fleet, node: str) -> str:
    """On what the node's right to take writes rests, by its daemon's word."""
    said = await fleet.ask_daemon(node)
    assert said is not None
    return str(said["store"]["lease"])


async def _wait_refuses(store: Store) -> None:
    """Writes at the store end, by the lease, in bounded time."""

    async def refuses() -> bool:
        try:
            await append(store, 1, prefix="probe")
        except LeaseExpired:
            return True
        return False

    await wait_until("the head refuses writes", refuses, wait_s=15)
