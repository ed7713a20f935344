"""Links: whatever is killed, frozen or doubled, a target's log is a prefix of its source's."""

from __future__ import annotations

import asyncio
import random
import signal
import sys
from pathlib import Path

import aiohttp
import pytest

from chain.errors import ChainError
from chain.event import Expect, NewEvent, Position
from failover.fleet import Fleet
from failover.local.chain import LocalChain
from tests.support import append, assert_dense, assert_prefix, client_of, fleet_of, wait_equal, whole_log


async def test_a_target_is_a_prefix_of_its_source_through_random_kills(chain: LocalChain) -> None:
    dice = random.Random(20261123)
    ending = asyncio.Event()
    acknowledged: list[bytes] = []

    async with fleet_of(chain) as fleet, client_of(chain, deadline_s=60) as client:

        async def write(writer: int) -> None:
            number = 0
            while not ending.is_set():
                data = f"{writer}/{number}".encode()
                await client.add(f"w-{writer}", Expect.ANY, [NewEvent("Tested", data)])
                acknowledged.append(data)
                number += 1
                await asyncio.sleep(0.002)

        async with asyncio.TaskGroup() as tasks:
            for writer in range(8):
                tasks.create_task(write(writer))
            for _ in range(8):
                node = dice.choice(["west-1", "east-2", "west-1", "east-2", "east-1"])
                what = dice.choice(["daemon", "postgres"])
                await asyncio.sleep(dice.uniform(0.05, 0.3))
                if what == "daemon":
                    chain.signal_daemon(node, signal.SIGKILL)
                    await asyncio.sleep(dice.uniform(0, 0.2))
                    chain.start_daemon(node)
                else:
                    await chain.kill_postgres(node)
                    await chain.start_postgres(node)
                await _check_prefixes(fleet)
            ending.set()

        topology = await fleet.registry.topology()
        stores = [fleet.store(n) for n in topology.order]
        await wait_equal(stores, wait_s=40)
        logs = [await whole_log(store) for store in stores]
        assert logs[0] == logs[1] == logs[2]
        assert_dense(logs[0])
        found = [e.data for e in logs[0] if e.type == "Tested"]
        assert len(found) == len(set(found))
        assert set(acknowledged) <= set(found)


async def _check_prefixes(fleet: Fleet) -> None:
    """Reads the chain from its end, so that a source has at least what its target had."""
    later = None
    for node in reversed((await fleet.registry.topology()).order):
        try:
            log = await whole_log(fleet.store(node))
        except ChainError:
            later = None
            continue
        assert_dense(log)
        if later is not None:
            assert_prefix(later, log)
        later = log


@pytest.mark.long
async def test_two_daemons_on_one_link_do_no_harm(chain: LocalChain) -> None:
    config = chain.config_path.read_text().replace(str(chain.config().node("west-1").http), "127.0.0.1:0")
    twin = chain.folder / "twin.yaml"
    twin.write_text(config)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "failover",
        *("serve", "node", "west-1", "-c", str(twin)),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with fleet_of(chain) as fleet:
            for _ in range(20):
                await append(fleet.store("east-1"), 100)
            assert process.returncode is None
            stores = [fleet.store(n) for n in ("east-1", "west-1", "east-2")]
            await wait_equal(stores)
            logs = [await whole_log(store) for store in stores]
            assert logs[0] == logs[1] == logs[2]
            assert_dense(logs[0])
    finally:
        process.kill()
        await process.wait()


async def test_readers_never_see_a_hole_while_many_processes_write(chain: LocalChain) -> None:
    """L1, L2: 50 writers in 5 processes; a reader on each node sees 1, 2, 3, … and nothing else."""
    program = Path(__file__).parent.parent / "programs" / "write.py"
    async with fleet_of(chain) as fleet:
        writers = [
            await asyncio.create_subprocess_exec(
                sys.executable, str(program), str(chain.config_path), str(n), "10", "60"
            )
            for n in range(5)
        ]

        async def read(node: str) -> int:
            seen = 0
            async for page in fleet.store(node).follow(Position(0)):
                for event in page.events:
                    seen += 1
                    assert event.position == seen
                if seen >= 5 * 10 * 60 + 1:
                    return seen
            raise AssertionError("follow never ends by itself")

        async with asyncio.timeout(60):
            seen = await asyncio.gather(*(read(n) for n in ("east-1", "west-1", "east-2")))
        assert [await writer.wait() for writer in writers] == [0] * 5
        assert set(seen) == {3001}


@pytest.mark.long
async def test_a_daemon_goes_on_while_the_registry_is_away(chain: LocalChain) -> None:
    async with fleet_of(chain) as fleet:
        await chain.kill_registry()
        chain.signal_daemon("west-1", signal.SIGKILL)
        chain.start_daemon("west-1")
        await append(fleet.store("east-1"), 50)
        await wait_equal([fleet.store(n) for n in ("east-1", "west-1", "east-2")])
        await chain.start_registry()
        await append(fleet.store("east-1"), 50)
        await wait_equal([fleet.store(n) for n in ("east-1", "west-1", "east-2")])
        assert (await fleet.registry.topology()).epoch == 1


async def test_a_wrong_node_behind_the_right_address_is_refused(chain: LocalChain) -> None:
    """west-1's daemon is told that east-1 lives where east-2 is."""
    config = chain.config()
    chain.signal_daemon("west-1", signal.SIGKILL)
    text = chain.config_path.read_text()
    east1, east2 = (config.node(n).dsn.reveal().rsplit("@", 1)[1] for n in ("east-1", "east-2"))
    swapped = text.replace(east1, "SWAP").replace(east2, east1).replace("SWAP", east2)
    (chain.folder / "swapped.yaml").write_text(swapped)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "failover",
        *("serve", "node", "west-1", "-c", str(chain.folder / "swapped.yaml")),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with fleet_of(chain) as fleet, asyncio.timeout(20):
            before = await fleet.store("west-1").tip()
            while True:
                seen = (await fleet.observe()).nodes["west-1"]
                if seen.daemon and "where local/east-1 should be" in seen.daemon["last_error"]:
                    break
                await asyncio.sleep(0.1)
            assert await fleet.store("west-1").tip() == before
    finally:
        process.kill()
        await process.wait()


async def test_health_and_metrics_say_what_a_node_is(chain: LocalChain) -> None:
    config = chain.config()
    async with aiohttp.ClientSession() as http, asyncio.timeout(20):

        async def code(node: str, path: str) -> int:
            async with http.get(f"http://{config.node(node).http}{path}") as response:
                await response.read()
                return response.status

        while await code("east-2", "/readyz") != 200 or await code("west-1", "/readyz") != 200:
            await asyncio.sleep(0.05)
        assert await code("east-1", "/head") == 200
        assert [await code("east-1", path) for path in ("/middle", "/tail", "/replica")] == [503, 503, 503]
        assert [await code("west-1", path) for path in ("/head", "/middle", "/replica")] == [503, 200, 200]
        assert [await code("east-2", path) for path in ("/tail", "/livez")] == [200, 200]
        assert await code("east-2", "/replica?lag_events=0") == 200
        assert await code("east-2", "/replica?lag_events=soon") == 400
        async with http.get(f"http://{config.node('west-1').http}/metrics") as response:
            text = await response.text()
        assert 'chain_node_role{chain="local",node="west-1",role="middle"} 1.0' in text
        assert 'chain_link_state{chain="local",node="west-1",state="streaming"} 1.0' in text
