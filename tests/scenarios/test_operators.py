"""Operators beside each other and beside controllers: one at a time, and none can harm the chain."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from chain.decisions import RunFinished
from chain.errors import Overtaken
from chain.store import Role
from failover.local.chain import LocalChain
from failover.plan import plan
from failover.playbook import load_playbook
from failover.runner import execute
from tests.support import (
    append,
    assert_kept,
    chainctl,
    client_of,
    ended,
    epochs_granted,
    fleet_of,
    judgements,
    operate,
    operator,
    running_chain,
    wait_ended,
    wait_equal,
    wait_head,
    wait_judged,
    wait_one_head,
    wait_step,
    writing,
)


@pytest.mark.long
async def test_of_several_operators_one_works_and_the_others_are_told_who_and_what(chain: LocalChain) -> None:
    config = ("--yes", "-c", str(chain.config_path))
    async with fleet_of(chain) as fleet:
        await operate(fleet, "detach", node="east-2")
        chain.signal_daemon("east-2", signal.SIGSTOP)  # whoever brings it in has to wait
        async with operator("bootstrap", "east-2", *config) as first:
            run = await wait_step(fleet, "catch-up")
            refused = await asyncio.gather(
                chainctl("switchover", "--to", "west-1", *config),
                chainctl("bootstrap", "east-2", *config),
                chainctl("playbook", "resume", *config),
                chainctl("playbook", "abort", *config),
            )
            for ran in refused:
                assert ran.code == 3
                for word in ("bootstrap", str(run.id), run.by, "catch-up"):
                    assert word in ran.err
            chain.signal_daemon("east-2", signal.SIGCONT)
            done = await ended(first)
            assert done.code == 0, done.err
        await wait_ended(fleet, ("east-1", "west-1", "east-2"))


async def test_a_move_that_fails_or_is_interrupted_says_what_is_so_and_what_to_do_next(
    chain: LocalChain, tmp_path: Path
) -> None:
    config = ("--yes", "-c", str(chain.config_path))
    hasty = tmp_path / "hasty.yaml"
    hasty.write_text(
        "name: hasty\ntitle: A move that is soon given up.\n"
        "parameters: {node: {type: node, required: true}}\n"
        "steps:\n  - step: choose-candidate\n  - step: check-candidate\n"
        "  - {step: fence-head, undo: restore-head}\n  - {step: drain, timeout_s: 1}\n  - step: check-equal\n"
        "  - {step: end-lease, undo: restore-head}\n  - {step: fence-others, undo: restore-head}\n"
        "  - {step: grant-epoch, point_of_no_return: true}\n  - step: promote\n  - step: repoint\n"
    )
    async with fleet_of(chain) as fleet:
        chain.signal_daemon("east-2", signal.SIGSTOP)  # it can't drain
        await append(fleet.store("east-1"), 5)
        failed = await chainctl("playbook", "run", str(hasty), "node=east-2", *config)
        assert failed.code == 5
        *_, state, following = failed.err.splitlines()
        assert state == "it was undone: east-1 is the head, in epoch 2, and nothing is under way"
        assert following.startswith(f"next: chainctl status -c {chain.config_path}; ")

        async with operator("switchover", "--to", "east-2", *config) as moving:
            await wait_step(fleet, "drain")
            moving.send_signal(signal.SIGINT)
            interrupted = await ended(moving)
        assert (interrupted.code, interrupted.out) == (130, "")
        *_, said, state, following, other = interrupted.err.splitlines()
        assert (said, state.split(",")[0]) == ("interrupted", "unfinished: switchover")
        assert following == f"next: chainctl playbook resume -c {chain.config_path}"
        assert other == f"or take it back: chainctl playbook abort -c {chain.config_path}"
        chain.signal_daemon("east-2", signal.SIGCONT)
        resumed = await chainctl(*following.removeprefix("next: chainctl ").split(), "--yes")
        assert resumed.code == 0, resumed.err
        await wait_head(fleet, "east-2")


async def test_ctrl_c_is_a_no_where_a_question_is_asked(chain: LocalChain) -> None:
    """The answer is waited for within a loop, which would keep the interrupt until there is one."""
    terminal, theirs = os.openpty()
    command = ("-m", "failover", "switchover", "--to", "west-1", "-c", str(chain.config_path))
    asked = await asyncio.create_subprocess_exec(
        sys.executable, *command, stdin=theirs, stderr=asyncio.subprocess.PIPE
    )
    try:
        assert asked.stderr is not None
        await asyncio.wait_for(asked.stderr.readuntil(b"do it? [y/N]"), 30)
        asked.send_signal(signal.SIGINT)
        said = await asyncio.wait_for(asked.stderr.read(), 10)
        assert (await asked.wait(), b"nothing was changed" in said) == (3, True)
    finally:
        if asked.returncode is None:
            asked.kill()
            await asked.wait()
        os.close(terminal)
        os.close(theirs)
    async with fleet_of(chain) as fleet:
        assert (await fleet.registry.topology()).run is None


@pytest.mark.long
async def test_what_was_decided_on_a_chain_that_has_changed_since_is_not_done(chain: LocalChain) -> None:
    """A second controller that comes late must not fail over what the first has just failed over."""
    async with fleet_of(chain) as fleet, fleet_of(chain) as other:
        seen = await other.registry.topology()
        await chain.kill("east-1")
        await operate(fleet, "failover", node=None, head_is_dead=True)
        await chain.kill("west-1")
        failover = load_playbook("failover")
        with pytest.raises(Overtaken):
            await execute(other, failover, {"head_is_dead": True}, by="too late", seen=seen)
        assert (await fleet.registry.topology()).epoch == 2


@pytest.mark.long
async def test_a_run_past_its_point_of_no_return_is_carried_on_and_never_aborted_nor_done_twice(
    chain: LocalChain,
) -> None:
    config = ("--yes", "-c", str(chain.config_path))
    async with fleet_of(chain) as fleet:
        await wait_equal([fleet.store(n) for n in ("east-1", "west-1", "east-2")])
        chain.signal_daemon("east-2", signal.SIGSTOP)  # the last step waits for it
        async with operator("switchover", "--to", "west-1", *config) as first:
            run = await wait_step(fleet, "repoint")
            first.kill()
        aborted = await chainctl("playbook", "abort", *config)
        assert aborted.code == 3
        assert "point of no return" in aborted.err
        chain.signal_daemon("east-2", signal.SIGCONT)
        # Two at once carry it on: one does it, and the other is told so, or that there is nothing to do.
        twins = await asyncio.gather(
            *(chainctl("playbook", "resume", "--run", str(run.id), *config) for _ in range(2))
        )
        assert sorted(t.code for t in twins) == [0, 3], [t.err for t in twins]
        await wait_ended(fleet, ("west-1", "east-1", "east-2"))
        late = await asyncio.gather(
            chainctl("playbook", "resume", "--run", str(run.id), *config),
            chainctl("playbook", "resume", *config),
            chainctl("playbook", "abort", "--run", str(run.id), *config),
        )
        for ran in late:
            assert ran.code == 3
            assert "no run is unfinished" in ran.err
        assert await epochs_granted(fleet) == 1
        await wait_one_head(fleet)


@pytest.mark.long
async def test_an_operators_move_and_an_automatic_controller_do_not_disturb_each_other(
    prepared: LocalChain, tmp_path: Path
) -> None:
    async with (
        running_chain(prepared, tmp_path) as chain,
        fleet_of(chain) as fleet,
        client_of(chain, deadline_s=60) as client,
    ):
        await wait_judged(fleet, "steady")
        config = ("--yes", "-c", str(chain.config_path))
        async with writing(client) as load:
            await load.wait_more()
            for epoch, node in enumerate(("west-1", "east-2", "east-1"), 2):
                ran = await chainctl("switchover", "--to", node, *config)
                assert ran.code == 0, ran.err
                topology = await wait_head(fleet, node)
                assert (topology.epoch, len(topology.order)) == (epoch, 3)
                await load.wait_more()
            said = len(await judgements(fleet))
            await wait_judged(fleet, "steady")
        history = [r.decision for r in await fleet.registry.history()]
        assert {d.outcome for d in history if isinstance(d, RunFinished)} == {"done"}
        assert await epochs_granted(fleet) == 3
        assert said == len(await judgements(fleet))
        await assert_kept(fleet, load)


@pytest.mark.long
async def test_a_long_bootstrap_keeps_no_failover_away(prepared: LocalChain, tmp_path: Path) -> None:
    async with (
        running_chain(prepared, tmp_path, rejoin=False) as chain,
        fleet_of(chain) as fleet,
        client_of(chain, deadline_s=60) as client,
    ):
        await wait_judged(fleet, "steady")
        config = ("--yes", "-c", str(chain.config_path))
        await operate(fleet, "detach", node="east-2")
        chain.signal_daemon("east-2", signal.SIGSTOP)
        async with (
            operator("bootstrap", "east-2", *config) as joining,
            writing(client) as load,
        ):
            await wait_step(fleet, "catch-up")
            await load.wait_more()
            await chain.kill("east-1")
            await wait_head(fleet, "west-1")
            await load.wait_more()
            bootstrap = await ended(joining)
        assert bootstrap.code == 3
        assert "was ended by another" in bootstrap.err
        assert await epochs_granted(fleet) == 1

        chain.signal_daemon("east-2", signal.SIGCONT)
        again = await chainctl("bootstrap", "east-2", *config)
        assert again.code == 0, again.err
        await wait_ended(fleet, ("west-1", "east-2"))
        await assert_kept(fleet, load)


@pytest.mark.long
async def test_an_urgent_failover_ends_a_frozen_operators_move(chain: LocalChain) -> None:
    """Who wakes up and goes on as if nothing had happened is refused, and does no harm."""
    config = ("--yes", "-c", str(chain.config_path))
    async with fleet_of(chain) as fleet, client_of(chain, deadline_s=60) as client:
        async with writing(client) as load:
            await load.wait_more()
            chain.signal_daemon("east-2", signal.SIGSTOP)  # it can't drain, so that the move waits there
            await append(fleet.store("east-1"), 5)
            async with operator("switchover", "--to", "east-2", *config) as moving:
                await wait_step(fleet, "drain")
                moving.send_signal(signal.SIGSTOP)
                await chain.kill("east-1")
                ran = await chainctl("failover", *config)
                assert ran.code == 0, ran.err
                topology = await wait_head(fleet, "west-1")
                chain.signal_daemon("east-2", signal.SIGCONT)
                await load.wait_more()
                moving.send_signal(signal.SIGCONT)
                woken = await ended(moving)
            assert woken.code == 3, woken.err
            assert "was ended by another" in woken.err
            await load.wait_more()
        assert (await fleet.registry.topology()).epoch == topology.epoch
        await wait_ended(fleet, ("west-1", "east-2"))
        await assert_kept(fleet, load)


@pytest.mark.long
async def test_a_region_is_emptied_only_with_an_approval_of_just_that(chain: LocalChain) -> None:
    config = ("--yes", "-c", str(chain.config_path))
    evacuate = ("playbook", "run", "region-evacuation", "region=east", *config)
    async with fleet_of(chain) as fleet:
        await append(fleet.store("east-1"), 20)
        await wait_equal([fleet.store(n) for n in ("east-1", "west-1", "east-2")])

        async def approve(by: str, for_: str) -> str:
            planned = await plan(fleet, load_playbook("region-evacuation"), {"region": "east"})
            given = await chainctl(
                *("playbook", "approve", "region-evacuation", planned.hash[:12], "region=east"),
                *("--by", by, "--for", for_, *config),
            )
            assert given.code == 0, given.err
            return planned.hash

        async def refused(why: str) -> None:
            ran = await chainctl(*evacuate)
            assert ran.code == 4  # not authorised
            assert why in ran.err
            topology = await fleet.registry.topology()
            assert (topology.head, topology.run, len(topology.order)) == ("east-1", None, 3)

        await refused("approved are: none")
        old = await approve("Ada", "15m")
        for node in ("west-1", "east-1"):  # there and back: the same chain, in another epoch
            await operate(fleet, "switchover", node=node)
        await refused(f"approved are: {old[:12]} (by Ada)")
        await approve("Bob", "100ms")
        await refused("the approval by Bob has expired")
        await approve("Cleo", "15m")
        ran = await chainctl(*evacuate)
        assert ran.code == 0, ran.err
        topology = await wait_ended(fleet, ("west-1",))
        assert topology.detached == ("east-1", "east-2")
        assert (await fleet.store("east-1").state()).role in (Role.DETACHED, Role.MIDDLE, Role.TAIL)
        assert (await fleet.store("west-1").state()).writable
