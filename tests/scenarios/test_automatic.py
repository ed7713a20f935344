"""Controllers, on real processes: what is lost is replaced once, whoever of them is lost meanwhile."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Any

import pytest
import yaml

from chain.commands import acknowledge_failover, pause_automation, resume_automation
from chain.decisions import RunFinished, RunStarted
from failover import ledger_desk
from failover.fleet import Fleet
from failover.local.chain import LocalChain
from tests.support import (
    append,
    assert_kept,
    client_of,
    epochs_granted,
    fleet_of,
    judgements,
    operate,
    running_chain,
    wait_ended,
    wait_equal,
    wait_head,
    wait_judged,
    wait_step,
    wait_topology,
    wait_until,
    whole_log,
    writing,
)


async def test_a_lost_head_is_replaced_once_and_the_chain_comes_home_by_itself(
    prepared: LocalChain, tmp_path: Path
) -> None:
    """Under two controllers. What only the lost head had ends in the ledger, event by event."""
    async with (
        running_chain(prepared, tmp_path, controllers=("one", "two"), come_home=True) as chain,
        fleet_of(chain) as fleet,
        client_of(chain, deadline_s=60) as client,
    ):
        for name in ("one", "two"):
            await wait_judged(fleet, "steady", by=name)
        async with writing(client) as load:
            await load.wait_more()
            chain.signal_daemon("west-1", signal.SIGSTOP)
            for answer in await append(fleet.store("east-1"), 20, prefix="dead"):
                assert answer.epoch == 1
            branch = {e.id: e.data for e in await whole_log(fleet.store("east-1")) if e.data[:4] == b"dead"}
            await chain.kill("east-1")
            chain.signal_daemon("west-1", signal.SIGCONT)
            await wait_head(fleet, "west-1")
            assert await epochs_granted(fleet) == 1
            await load.wait_more()

            await chain.start("east-1")
            topology = await wait_ended(fleet, ("east-1", "west-1", "east-2"))
            await load.wait_more()
        assert topology.epoch == 3  # the failover, and the way home
        log = await assert_kept(fleet, load)
        entries = await ledger_desk.entries(fleet.store("east-1"))
        assert {e.event.id: e.event.data for e in entries if e.event.id in branch} == branch
        assert not branch.keys() & {e.id for e in log}
        assert await _runs(fleet) == ["failover", "rejoin", "failback"]


@pytest.mark.long
async def test_a_lost_follower_is_left_out_and_comes_back_as_the_tail(
    prepared: LocalChain, tmp_path: Path
) -> None:
    async with (
        running_chain(prepared, tmp_path, lost_after="2s") as chain,
        fleet_of(chain) as fleet,
        client_of(chain) as client,
    ):
        await wait_judged(fleet, "steady")
        async with writing(client) as load:
            await chain.kill("west-1")
            await wait_ended(fleet, ("east-1", "east-2"))
            await load.wait_more()
            await chain.start("west-1")
            await wait_ended(fleet, ("east-1", "east-2", "west-1"))

            await chain.kill("west-1")
            await wait_ended(fleet, ("east-1", "east-2"))
            await chain.start("west-1")
            await wait_ended(fleet, ("east-1", "east-2", "west-1"))
            await load.wait_more()
        assert await epochs_granted(fleet) == 0
        await assert_kept(fleet, load)
        assert await _runs(fleet) == ["failover-middle", "rejoin", "detach", "rejoin"]


@pytest.mark.long
async def test_more_than_the_budget_is_given_up_only_by_a_person(
    prepared: LocalChain, tmp_path: Path
) -> None:
    """Two of three are lost, and what is left is known to lack events."""
    async with (
        running_chain(prepared, tmp_path, loss_events=0) as chain,
        fleet_of(chain) as fleet,
        client_of(chain) as client,
    ):
        await wait_judged(fleet, "steady")
        async with writing(client) as load:
            await load.wait_more()
        east, tail = fleet.store("east-1"), fleet.store("east-2")
        await wait_equal([east, tail])
        chain.signal_daemon("west-1", signal.SIGSTOP)
        await append(east, 10)
        # When a controller says that the head takes no writes, it has seen it, and the ten events.
        chain.signal_daemon("east-1", signal.SIGSTOP)
        asked = await wait_judged(fleet, "head-lost-over-budget")
        assert asked.what["seen"]["loss_events"] == 10
        await chain.kill("east-1", "west-1")

        done = await operate(fleet, "failover", node=None, head_is_dead=False)
        assert done.topology.order == ("east-2", "west-1")
        assert [r for r in await _acted(fleet) if r.startswith("head-lost")] == []
        await chain.start("east-1", "west-1")
        await wait_topology(fleet, "all are back", lambda t: len(t.order) == 3 and t.run is None)
        await assert_kept(fleet, load)
        assert len(await ledger_desk.entries(tail)) >= 10


@pytest.mark.long
@pytest.mark.parametrize("sig", [signal.SIGKILL, signal.SIGSTOP])
async def test_a_failover_whose_controller_is_lost_is_completed_by_another(
    prepared: LocalChain, tmp_path: Path, sig: signal.Signals
) -> None:
    """And a controller that was only frozen does no harm when it wakes."""
    async with (
        running_chain(prepared, tmp_path, controllers=("one", "two"), lost_after="1m") as chain,
        fleet_of(chain) as fleet,
        client_of(chain, deadline_s=60) as client,
    ):
        for name in ("one", "two"):
            await wait_judged(fleet, "steady", by=name)
        async with writing(client) as load:
            await load.wait_more()
            chain.signal_postgres("east-2", signal.SIGSTOP)  # to fence it takes as long as one waits for it
            await chain.kill("east-1")
            run = await wait_step(fleet, "end-lease")
            first = run.by.removeprefix("controller ")
            chain.signal_controller(first, sig)
            topology = await fleet.registry.topology()
            assert (topology.run, topology.epoch) != (None, 2), "it was not in the middle of it"
            chain.signal_postgres("east-2", signal.SIGCONT)
            await wait_ended(fleet, ("west-1", "east-2"))
            await load.wait_more()
            second = "two" if first == "one" else "one"
            history = await fleet.registry.history()
            finished = [r.by for r in history if isinstance(r.decision, RunFinished)]
            assert finished == [f"controller {second}"]

            if sig is signal.SIGSTOP:
                said = len([n for n in await judgements(fleet) if n.what["by"] == first])
                chain.signal_controller(first, signal.SIGCONT)
                await wait_judged(fleet, "steady", by=first, after=said)
            await load.wait_more()
        assert await epochs_granted(fleet) == 1
        assert await _runs(fleet) == ["failover"]
        await assert_kept(fleet, load)


@pytest.mark.long
async def test_a_pause_holds_automation_and_a_second_loss_so_soon_asks(
    prepared: LocalChain, tmp_path: Path
) -> None:
    async with (
        running_chain(prepared, tmp_path) as chain,
        fleet_of(chain) as fleet,
        client_of(chain, deadline_s=90) as client,
    ):
        await wait_judged(fleet, "steady")
        async with writing(client) as load:
            await load.wait_more()
            await wait_equal([fleet.store("west-1"), fleet.store("east-2")])
            await fleet.registry.decide(pause_automation("a test", "to look"), by="a test")
            await wait_judged(fleet, "paused")
            await chain.kill("east-1")
            await _wait_lease_over(fleet)
            assert (await fleet.registry.topology()).epoch == 1
            assert await _runs(fleet) == []
            await fleet.registry.decide(resume_automation(), by="a test")
            await wait_head(fleet, "west-1")
            await load.wait_more()

            await chain.kill("west-1")
            asked = await wait_judged(fleet, "head-lost-again")
            assert asked.what["action"] == "ask"
            assert (await fleet.registry.topology()).epoch == 2
            await fleet.registry.decide(acknowledge_failover(), by="a test")
            await wait_head(fleet, "east-2")
            await load.wait_more()
        await chain.start("east-1", "west-1")
        await wait_topology(fleet, "all are back", lambda t: len(t.order) == 3 and t.run is None)
        assert await epochs_granted(fleet) == 2
        await assert_kept(fleet, load)


@pytest.mark.long
async def test_a_manual_controller_only_asks_and_an_automatic_one_never_promotes_who_is_on_the_list(
    prepared: LocalChain, tmp_path: Path
) -> None:
    async with (
        running_chain(prepared, tmp_path, policy="manual") as chain,
        fleet_of(chain) as fleet,
        client_of(chain, deadline_s=90) as client,
    ):
        await wait_judged(fleet, "steady")
        async with writing(client) as load:
            await load.wait_more()
            await chain.kill("east-1")
            asked = await wait_judged(fleet, "head-lost-by-hand")
            assert "west-1 could take over" in asked.what["sentence"]
            assert await _runs(fleet) == []

            chain.signal_controller("one", signal.SIGKILL)
            await asyncio.to_thread(_automate, chain, policy="automatic", never=["west-1"])
            chain.start_controller("two")
            await wait_head(fleet, "east-2")
            await load.wait_more()
        assert await _acted(fleet, by="one") == []
        await chain.start("east-1")
        await wait_ended(fleet, ("east-2", "west-1", "east-1"))
        await assert_kept(fleet, load)


def _automate(chain: LocalChain, **automation: Any) -> None:
    """Changes the policy in chain.yaml; what is started from now on goes by it."""
    raw = yaml.safe_load(chain.config_path.read_text())
    raw["automation"].update(automation)
    chain.config_path.write_text(yaml.safe_dump(raw))


async def _wait_lease_over(fleet: Fleet) -> None:
    """Waits until the lease has stood unrenewed for twice as long as it takes to be certainly over."""
    loop = asyncio.get_running_loop()
    await wait_until("the lease is over", lambda: _lease_over(fleet))
    until = loop.time() + fleet.config.lease.duration
    while loop.time() < until:
        assert await _lease_over(fleet)
        await asyncio.sleep(0.1)


async def _lease_over(fleet: Fleet) -> bool:
    await fleet.read_lease()
    return fleet.lease_watch.expired(asyncio.get_running_loop().time())


async def _runs(fleet: Fleet) -> list[str]:
    """The playbooks of all runs, in order."""
    decisions = [r.decision for r in await fleet.registry.history()]
    return [d.playbook for d in decisions if isinstance(d, RunStarted)]


async def _acted(fleet: Fleet, *, by: str = "one") -> list[str]:
    """The rules by which a controller acted."""
    notes = [n.what for n in await judgements(fleet) if n.what["by"] == by]
    return [str(n["rule"]) for n in notes if n["action"] in ("run", "resume")]
