"""The lease, on real processes: whatever is killed, frozen or put back, two heads never take writes."""

from __future__ import annotations

import asyncio
import shutil
import signal
from pathlib import Path

import pytest

from chain.errors import ChainError, NotHead, Refused
from chain.event import Expect, NewEvent
from chain.ledger import EntryState
from chain.store import Store
from failover import ledger_desk
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
    wait_judged,
    wait_renewed,
    wait_topology,
    wait_until,
    writing,
)


@pytest.mark.parametrize(
    "frozen",
    [
        pytest.param("postgres", marks=pytest.mark.long),
        pytest.param("daemon", marks=pytest.mark.long),
        "both",
    ],
)
async def test_a_frozen_head_is_replaced_and_takes_nothing_when_it_wakes(
    prepared: LocalChain, tmp_path: Path, frozen: str
) -> None:
    async with (
        running_chain(prepared, tmp_path) as chain,
        fleet_of(chain) as fleet,
        client_of(chain, deadline_s=60) as client,
    ):
        await wait_judged(fleet, "steady")
        async with writing(client) as load:
            await load.wait_more()
            if frozen != "postgres":
                chain.signal_daemon("east-1", signal.SIGSTOP)
            if frozen != "daemon":
                chain.signal_postgres("east-1", signal.SIGSTOP)
            await wait_topology(
                fleet, "west-1 is the head", lambda t: t.head == "west-1" and t.began is not None
            )
            await load.wait_more()

            # The store wakes first: it must refuse before anybody has told it anything.
            chain.signal_daemon("east-1", signal.SIGSTOP)
            chain.signal_postgres("east-1", signal.SIGCONT)
            await _assert_refuses(fleet.store("east-1"))
            chain.signal_daemon("east-1", signal.SIGCONT)

            await wait_ended(fleet, ("west-1", "east-2", "east-1"))
            await load.wait_more()
        await assert_kept(fleet, load)
        assert await epochs_granted(fleet) == 1
        if frozen == "daemon":  # its log could be read to its end
            assert await ledger_desk.entries(fleet.store("west-1")) == []


@pytest.mark.long
async def test_a_head_whose_daemon_or_server_restarts_within_the_lease_goes_on(
    prepared: LocalChain, tmp_path: Path
) -> None:
    """And one that was put back to an old copy of its data yields to its successor."""
    lease = {"duration": "8s", "margin": "400ms"}
    async with (
        running_chain(prepared, tmp_path, lease=lease) as chain,
        fleet_of(chain) as fleet,
        client_of(chain) as client,
    ):
        await wait_judged(fleet, "steady")
        async with writing(client) as load:
            await load.wait_more()
            chain.signal_daemon("east-1", signal.SIGKILL)
            chain.start_daemon("east-1")
            await wait_renewed(fleet)
            await load.wait_more()
            assert (await fleet.registry.topology()).epoch == 1

            await chain.kill_postgres("east-1")
            data = chain.node_folder("east-1") / "data"
            await _copy(data, tmp_path / "old")
            await chain.start_postgres("east-1")
            topology = await wait_topology(
                fleet, "a new epoch", lambda t: t.epoch == 2 and t.began is not None
            )
            assert (topology.head, topology.failed_over_at) == ("east-1", None)
            await load.wait_more()

        east, west = fleet.store("east-1"), fleet.store("west-1")
        await wait_equal([east, west])
        await chain.kill_postgres("east-1")
        await asyncio.to_thread(shutil.rmtree, data)
        await _copy(tmp_path / "old", data)
        await chain.start_postgres("east-1")
        await wait_ended(fleet, ("west-1", "east-2", "east-1"))
        assert await epochs_granted(fleet) == 2
        await client.add("s", Expect.ANY, [NewEvent("Tested", b"after")])
        await assert_kept(fleet, load)
        assert await ledger_desk.entries(west) == []  # an old copy holds nothing that others do not


@pytest.mark.long
async def test_without_a_lease_only_an_operators_word_replaces_a_head(
    prepared: LocalChain, tmp_path: Path
) -> None:
    async with (
        running_chain(prepared, tmp_path, lease={"enabled": False}) as chain,
        fleet_of(chain) as fleet,
        client_of(chain, deadline_s=60) as client,
    ):
        await wait_judged(fleet, "steady")
        async with writing(client) as load:
            await load.wait_more()
            await chain.kill("east-1")
            asked = await wait_judged(fleet, "head-unproven")
            assert asked.what["action"] == "ask"
            with pytest.raises(Refused, match="does not prove"):
                await operate(fleet, "failover", node=None, head_is_dead=False)
            assert (await fleet.registry.topology()).epoch == 1

            await operate(fleet, "failover", node=None, head_is_dead=True)
            await load.wait_more()
        await chain.start("east-1")
        await wait_ended(fleet, ("west-1", "east-2", "east-1"))
        await assert_kept(fleet, load)
        acted = {n.what["rule"] for n in await judgements(fleet) if n.what["action"] in ("run", "resume")}
        assert acted <= {"node-returns", "run-unfinished", "move-unfinished"}
        for entry in await ledger_desk.entries(fleet.store("west-1")):
            assert entry.state is EntryState.OPEN


async def _assert_refuses(store: Store) -> None:
    """No write is taken: neither at once nor while the caller keeps trying for a moment."""

    async def refused() -> bool:
        try:
            await append(store, 1, prefix="never")
        except NotHead:
            return True
        raise AssertionError("a head took a write after its lease had run out")

    await wait_until("the store refuses", refused)
    for _ in range(5):
        assert await refused()


async def _copy(source: Path, target: Path) -> None:
    process = await asyncio.create_subprocess_exec("cp", "-a", str(source), str(target))
    if await process.wait() != 0:
        raise ChainError(f"{source} can't be copied")
