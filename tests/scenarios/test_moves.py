"""Planned moves: without loss, without a failed write, and carried on by whoever comes after a crash."""

from __future__ import annotations

import asyncio
import random
import signal
import sys

import pytest

from chain.errors import Busy, Different, TimedOut
from chain.event import Appended, Expect, NewEvent
from chain.store import SEGMENT, Role
from chain.tasks import end
from failover.fleet import open_fleet
from failover.local.chain import LocalChain
from replicator.verify import Verdict, verify_chain
from tests.databases import connect
from tests.support import (
    append,
    assert_dense,
    chainctl,
    client_of,
    fleet_of,
    operate,
    wait_equal,
    wait_step,
    whole_log,
)


async def test_a_switchover_under_load_fails_no_write_and_loses_none(chain: LocalChain) -> None:
    answers: dict[bytes, Appended] = {}
    ending = asyncio.Event()

    async with fleet_of(chain) as fleet, client_of(chain) as client:

        async def write(writer: int) -> None:
            number = 0
            while not ending.is_set():
                data = f"{writer}/{number}".encode()
                answers[data] = await client.add(f"w-{writer}", Expect.ANY, [NewEvent("Tested", data)])
                number += 1

        async with asyncio.TaskGroup() as tasks:
            for writer in range(16):
                tasks.create_task(write(writer))
            await asyncio.sleep(0.3)
            for head in ("west-1", "east-2", "east-1"):
                done = await operate(fleet, "switchover", node=head, max_lag_events=100_000)
                assert done.topology.head == head
            await asyncio.sleep(0.2)
            ending.set()

        stores = {n: fleet.store(n) for n in done.topology.order}
        await wait_equal(stores.values())
        log = await whole_log(stores["east-1"])
        assert_dense(log)
        found = {e.data: e for e in log if e.type == "Tested"}
        assert found.keys() == answers.keys()
        for data, answer in answers.items():
            assert (found[data].position, found[data].epoch) == (answer.first_position, answer.epoch)
        assert {v.verdict for v in await verify_chain(stores)} == {Verdict.OK}


@pytest.mark.long
async def test_a_move_that_cannot_drain_gives_the_head_back(chain: LocalChain) -> None:
    async with fleet_of(chain) as fleet:
        east = fleet.store("east-1")
        await append(east, 10)
        await wait_equal([east, fleet.store("west-1")])
        chain.signal_daemon("west-1", signal.SIGSTOP)
        await append(east, 5, prefix="more")

        with pytest.raises(TimedOut):
            await operate(fleet, "switchover", node="west-1", max_lag_events=100_000)

        await append(east, 5, prefix="goes on")
        topology = await fleet.registry.topology()
        assert (topology.head, topology.run) == ("east-1", None)
        chain.signal_daemon("west-1", signal.SIGCONT)
        await wait_equal([fleet.store(n) for n in topology.order])


@pytest.mark.parametrize("seed", [0, *(pytest.param(n, marks=pytest.mark.long) for n in (1, 2, 3))])
async def test_a_killed_operator_is_carried_on_by_the_same_command(chain: LocalChain, seed: int) -> None:
    """SIGKILL at any point of a switchover; the command again ends it. Nothing is lost, one head is left."""
    command = ["switchover", "--to", "west-1", "--yes", "-c", str(chain.config_path)]
    async with fleet_of(chain) as fleet:
        answers = await append(fleet.store("east-1"), 30)
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "failover",
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        while not (await fleet.registry.topology()).run and process.returncode is None:
            await asyncio.sleep(0.005)
        await asyncio.sleep(random.Random(seed).uniform(0, 0.25))
        if process.returncode is None:
            process.kill()
        await process.wait()

        if (await fleet.registry.topology()).head != "west-1" or (await fleet.registry.topology()).run:
            again = await chainctl(*command)
            assert again.code == 0, again.err
        topology = await fleet.registry.topology()
        assert (topology.head, topology.run) == ("west-1", None)
        stores = [fleet.store(n) for n in topology.order]
        await wait_equal(stores)
        states = [await store.state() for store in stores]
        assert [state.writable for state in states] == [True, False, False]
        log = await whole_log(stores[0])
        assert_dense(log)
        assert {a.last_position for a in answers} <= {e.position for e in log}


async def test_of_two_operators_one_wins_and_the_other_is_told(chain: LocalChain) -> None:
    command = ["switchover", "--yes", "-c", str(chain.config_path), "--to"]
    first, second = await asyncio.gather(chainctl(*command, "west-1"), chainctl(*command, "east-2"))
    codes = sorted([first.code, second.code])
    assert codes in ([0, 3], [0, 0]), (first.err, second.err)  # [0, 0]: one came after the other
    async with fleet_of(chain) as fleet:
        assert (await fleet.registry.topology()).run is None
        async with fleet.registry.hold():
            refused = await chainctl(*command, "east-1")
        assert refused.code == 3
        assert "another operator" in refused.err


@pytest.mark.long
async def test_an_operator_is_kept_off_while_another_is_at_work(chain: LocalChain) -> None:
    async with fleet_of(chain) as fleet, fleet_of(chain) as other, fleet.registry.hold():
        with pytest.raises(Busy):
            await operate(other, "switchover", node="west-1")


async def test_a_new_tail_is_bootstrapped_and_verified_before_it_is_a_member(chain: LocalChain) -> None:
    await chain.add_node("west-2", "west")
    async with fleet_of(chain) as fleet:
        await append(fleet.store("east-1"), 500)
        done = await operate(fleet, "bootstrap-tail", node="west-2")
        assert done.topology.order == ("east-1", "west-1", "east-2", "west-2")
        assert done.results["verify-node"]["verified"] >= 501
        await wait_equal([fleet.store(n) for n in done.topology.order])
        assert (await fleet.store("west-2").state()).role is Role.TAIL


@pytest.mark.long
async def test_what_comes_to_a_new_tail_is_verified_meanwhile_and_what_rotted_is_found(
    chain: LocalChain,
) -> None:
    async with fleet_of(chain) as fleet:
        head = fleet.store("east-1")
        for _ in range(10):
            await head.add("s", Expect.ANY, [NewEvent("Tested", b"x" * 200) for _ in range(4000)])
        with chain.config_path.open("a") as config_file:  # or it is there before anything of it can be read
            config_file.write("links: {batch_events: 500}\n")
        config = await chain.add_node("west-2", "west")
    async with open_fleet(config) as fleet:
        done = await operate(fleet, "bootstrap-tail", node="west-2")
        assert done.results["catch-up"]["verified"] in (SEGMENT, 2 * SEGMENT)
        assert done.results["verify-node"]["verified"] >= 40_001

        await operate(fleet, "detach", node="west-2")
        for at in (7, 40_000):  # in what is verified as it comes, and in the rest
            behind = await connect(config.node("west-2").dsn.reveal())
            await behind.execute(f"update chain.event set data = 'rotten' where position = {at}")
            with pytest.raises(Different, match=f"position {at} "):
                await operate(fleet, "bootstrap-tail", node="west-2")
            await behind.execute(
                f"update chain.event set data = convert_to(repeat('x', 200), 'UTF8') where position = {at}"
            )
            await behind.close()
        assert "west-2" not in (await fleet.registry.topology()).order
        await operate(fleet, "bootstrap-tail", node="west-2")


@pytest.mark.long
async def test_an_unfinished_bootstrap_keeps_no_restarted_head_from_going_on(chain: LocalChain) -> None:
    async with fleet_of(chain) as fleet, client_of(chain) as client:
        await operate(fleet, "detach", node="east-2")
        chain.signal_daemon("east-2", signal.SIGKILL)
        joining = asyncio.create_task(operate(fleet, "bootstrap-tail", node="east-2"))
        await wait_step(fleet, "catch-up")
        await end(joining)
        assert (await fleet.registry.topology()).run
        await chain.kill_postgres("east-1")
        await chain.start_postgres("east-1")
        answer = await client.add("s", Expect.ANY, [NewEvent("Tested", b"after the restart")])
        assert answer.epoch == 2

        aborted = await chainctl("playbook", "abort", "--yes", "-c", str(chain.config_path))
        assert aborted.code == 0, aborted.err
        topology = await fleet.registry.topology()
        assert (topology.run, topology.joining) == (None, ())
        assert (await chainctl("playbook", "abort", "--yes", "-c", str(chain.config_path))).code == 3
        chain.start_daemon("east-2")
        done = await operate(fleet, "bootstrap-tail", node="east-2")
        assert done.topology.order == ("east-1", "west-1", "east-2")


@pytest.mark.long
async def test_a_lost_middle_is_left_out_and_the_tail_goes_on_at_the_head(chain: LocalChain) -> None:
    async with fleet_of(chain) as fleet:
        await append(fleet.store("east-1"), 10)
        await chain.kill("west-1")
        done = await operate(fleet, "detach", node="west-1")
        assert done.topology.order == ("east-1", "east-2")
        await append(fleet.store("east-1"), 10)
        await wait_equal([fleet.store("east-1"), fleet.store("east-2")])


@pytest.mark.long
async def test_three_rotations_end_where_they_began(chain: LocalChain) -> None:
    async with fleet_of(chain) as fleet:
        before = (await fleet.registry.topology()).order
        for _ in range(3):
            topology = await fleet.registry.topology()
            await append(fleet.store(topology.head), 20)
            await operate(fleet, "rotate", node=topology.tail)
        topology = await fleet.registry.topology()
        assert topology.order == before
        stores = {n: fleet.store(n) for n in topology.order}
        await wait_equal(stores.values())
        assert {v.verdict for v in await verify_chain(stores)} == {Verdict.OK}
