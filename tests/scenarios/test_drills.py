"""Drills on real processes: a few that hold, what must make one fail; whatever happens, nothing is left."""

from __future__ import annotations

import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import psutil
import pytest

from chain.config import load_config
from chain.connect import open_registry
from chain.errors import ChainError
from failover.drills.drill import drill_names, load_drill
from failover.fleet import open_fleet
from failover.local import processes
from failover.local.chain import LocalChain
from tests.support import chainctl, ended, fleet_of, operate, operator, wait_until

pytestmark = pytest.mark.timeout(300)
QUICK = [name for name in drill_names() if load_drill(name)[0].quick]
FAST = "hypothesis: {}\nmethod:\n"
QUIET = "chain: {controllers: []}\nsettle_s: 30\n"


GONE = """
    update chain.event set id = '00000000-0000-4000-8000-000000000000', stream = 'elsewhere', revision = 0
    where position = (select min(position) from chain.event where stream like 'drill-%/writer-%')
"""
"""An event that was acknowledged is another, of somebody else."""


def drill(folder: Path, steps: str, *, more: str = "") -> Path:
    path = folder / "own.yaml"
    path.write_text(f"name: own\ntitle: A drill of a test.\n{FAST}{steps}{QUIET}{more}")
    return path


def record_of(out: Path) -> dict[str, Any]:
    (path,) = out.glob("*/record.json")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def assert_nothing_left(out: Path) -> None:
    assert processes.find(out) == ()
    assert list(out.glob("*/chain")) == []
    assert not any(str(out.resolve()) in line for line in Path("/proc/self/mounts").read_text().splitlines())


def read(path: str) -> str:
    return Path(path).read_text()


def chain_yaml(out: Path) -> Path:
    """Raises ValueError unless there is one."""
    (path,) = out.glob("*/chain/chain.yaml")
    return path


@pytest.mark.timeout(420)
async def test_the_quick_drills_hold_two_at_a_time(tmp_path: Path) -> None:
    ran = await chainctl(
        "drill", "run", "all", "--quick", "--parallel", "2", "--out", str(tmp_path), "-o", "json", wait_s=400
    )
    assert ran.code == 0, ran.err
    rows = json.loads(ran.out)
    assert {row["drill"]: row["outcome"] for row in rows} == dict.fromkeys(QUICK, "held")
    assert {row["lost"] for row in rows} == {0}
    assert_nothing_left(tmp_path)
    reported = await chainctl("drill", "report", "--out", str(tmp_path), "-o", "json")
    assert reported.code == 0, reported.err
    assert all("<svg" in read(row["report"]) for row in json.loads(reported.out))


@pytest.mark.long
async def test_a_difference_that_is_planted_and_stays_makes_a_drill_fail(tmp_path: Path) -> None:
    """Two rows altered behind the chain's back by somebody who does not take it back."""
    own = drill(tmp_path, "  - {until: {probe: difference-found}, within_s: 100}\n")
    async with operator("drill", "run", str(own), "--out", str(tmp_path / "out")) as process:
        async with database(tmp_path / "out", "west-1") as connection:
            altered = await connection.execute(
                "update chain.event set data = 'forged' where stream = 'drill-ballast' and revision in (7, 8)"
            )
            assert altered == "UPDATE 2"
        ran = await ended(process, wait_s=200)
    assert ran.code == 7, ran.err
    record = record_of(tmp_path / "out")
    assert (record["outcome"], record["verifier"]["result"]) == ("deviated", "DIFF")
    assert len(record["verifier"]["differences"]) == 4  # against the node before, and the one after
    assert record["score"]["points"] < 100
    assert_nothing_left(tmp_path / "out")


async def test_an_acknowledged_event_that_is_gone_from_every_node_makes_a_drill_fail(tmp_path: Path) -> None:
    """All nodes agree, and are all wrong: only what the callers were told shows it."""
    out = tmp_path / "out"
    own = drill(tmp_path, "  - {until: {probe: head-is, node: west-1}, within_s: 100}\n")
    async with operator("drill", "run", str(own), "--out", str(out)) as process:
        for node in ("east-2", "west-1", "east-1"):
            async with database(out, node) as connection:
                assert await connection.execute(GONE) == "UPDATE 1"
        async with open_fleet(load_config(chain_yaml(out), {})) as fleet:
            await operate(fleet, "switchover", node="west-1")
        ran = await ended(process, wait_s=200)
    assert ran.code == 7, ran.err
    record = record_of(out)
    assert record["outcome"] == "deviated"
    assert sum(record["loss"]["lost"].values()) == 1
    assert {finding["kind"] for finding in record["checker"]["findings"]} >= {"lost"}
    assert_nothing_left(out)


@pytest.mark.long
async def test_a_target_that_is_missed_makes_a_drill_fail(tmp_path: Path) -> None:
    steps = "  - {fault: freeze-postgres, target: head, for_s: 1}\n  - {pause_s: 3}\n"
    own = drill(tmp_path, steps, more="targets: {pause_s: 0.2}\n")
    ran = await chainctl("drill", "run", str(own), "--out", str(tmp_path / "out"), wait_s=200)
    assert ran.code == 7, ran.err
    record = record_of(tmp_path / "out")
    assert record["outcome"] == "deviated"
    assert record["recovery"]["actual_s"] > 0.2
    assert record["faults"][0]["to_s"] is not None


@pytest.mark.long
async def test_a_stop_condition_ends_a_drill_and_its_rollbacks_are_run(tmp_path: Path) -> None:
    steps = "  - {fault: freeze-postgres, target: head}\n  - {pause_s: 100}\n"
    more = "stop_when_not:\n  - {probe: writes-flow}\nrollbacks:\n  - {do: acknowledge-failover}\n"
    ran = await chainctl(
        "drill", "run", str(drill(tmp_path, steps, more=more)), "--out", str(tmp_path / "out"), wait_s=200
    )
    assert ran.code == 1, ran.err
    record = record_of(tmp_path / "out")
    assert record["outcome"] == "interrupted"
    assert record["errors"] == ["stopped: writes-flow does not hold: 0/s"]
    actions = [(rollback["action"], rollback["ok"]) for rollback in record["rollbacks"]]
    assert ('{"do":"acknowledge-failover"}', True) in actions
    assert_nothing_left(tmp_path / "out")


@pytest.mark.long
@pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGTERM])
async def test_a_drill_that_is_interrupted_takes_all_back_and_ends_with_130(
    tmp_path: Path, sig: signal.Signals
) -> None:
    steps = "  - {fault: freeze-region, target: east}\n  - {fault: kill-registry}\n  - {pause_s: 100}\n"
    own, out = drill(tmp_path, steps), tmp_path / "out"
    async with operator("drill", "run", str(own), "--out", str(out)) as process:
        await wait_until("both faults are there", lambda: _frozen(out), wait_s=150)
        process.send_signal(sig)
        process.send_signal(sig)
        ran = await ended(process, wait_s=200)
    assert ran.code == 130, ran.err
    record = record_of(out)
    assert record["outcome"] == "interrupted"
    assert all(fault["to_s"] is not None for fault in record["faults"])
    assert all(rollback["ok"] for rollback in record["rollbacks"])
    assert_nothing_left(out)


@pytest.mark.long
async def test_what_a_killed_run_left_is_ended_by_the_next(tmp_path: Path) -> None:
    own, out = drill(tmp_path, "  - {pause_s: 100}\n"), tmp_path / "out"
    async with operator("drill", "run", str(own), "--out", str(out)) as process:
        async with database(out, "west-1"):
            (own_process,) = psutil.Process(process.pid).children()
            process.kill()
            own_process.kill()
        await process.wait()
    assert processes.find(out), "nothing was left to be ended"
    quick = drill(tmp_path, "  - {pause_s: 0.1}\n")
    ran = await chainctl("drill", "run", str(quick), "--out", str(out), wait_s=200)
    assert ran.code == 0, ran.err
    assert_nothing_left(out)


@pytest.mark.long
async def test_a_drill_takes_all_back_when_whoever_ordered_it_is_killed(tmp_path: Path) -> None:
    own, out = (
        drill(tmp_path, "  - {fault: freeze-region, target: east}\n  - {pause_s: 100}\n"),
        tmp_path / "out",
    )
    async with operator("drill", "run", str(own), "--out", str(out)) as process:
        async with database(out, "west-1"):
            process.kill()
        await process.wait()
    assert_nothing_left(out)
    record = record_of(out)
    assert record["outcome"] == "interrupted"
    assert all(fault["to_s"] is not None for fault in record["faults"])


@pytest.mark.long
async def test_a_chain_that_is_there_already_is_drilled_only_if_it_allows_it_and_stays(
    chain: LocalChain, tmp_path: Path
) -> None:
    config = chain.config_path
    there = ("--on", str(config), "--yes", "--out", str(tmp_path / "out"))
    ran = await chainctl("drill", "run", "rows-lost-and-found", *there, wait_s=200)
    assert ran.code == 0, ran.err
    verified = await chainctl("verify", "--config", str(config))
    assert verified.code == 0, verified.err

    refused = await chainctl("drill", "run", "head-loss-under-load", *there)
    assert refused.code == 3
    assert "kill-node needs a local chain" in refused.err
    config.write_text(config.read_text().replace("drills: allowed", "drills: forbidden"))
    forbidden = await chainctl("drill", "run", "ended-connections", *there)
    assert forbidden.code == 4
    assert "does not allow drills" in forbidden.err


@pytest.mark.long
async def test_what_a_killed_drill_left_on_a_chain_is_found_and_taken_back_before_the_next(
    chain: LocalChain, tmp_path: Path
) -> None:
    on = ("--on", str(chain.config_path))
    there = (*on, "--yes", "--out", str(tmp_path / "out"))
    faults = (("altered-rows", "east-2", 3), ("swapped-rows", "east-2", 200), ("missing-rows", "west-1", 2))
    steps = "".join(f"  - {{fault: {f}, target: {n}, count: {c}}}\n" for f, n, c in faults)
    own = drill(tmp_path, f"  - {{do: pause-automation}}\n{steps}  - {{pause_s: 100}}\n")

    async with operator("drill", "run", str(own), *there) as process, fleet_of(chain) as fleet:
        await wait_until("all faults are there", lambda: _drilled(chain, "west-1", 1), wait_s=60)
        assert await _drilled(chain, "east-2", 2)
        busy = await chainctl("drill", "clean", *on, "--yes")
        assert (busy.code, "another drill is at work" in busy.err) == (3, True)
        (own_process,) = psutil.Process(process.pid).children()
        process.kill()
        own_process.kill()
        await process.wait()
        assert (await chainctl("verify", "-c", on[1])).code == 7

        refused = await chainctl("drill", "run", str(own), *there)
        assert refused.code == 3
        assert f"chainctl drill clean --on {on[1]}" in refused.err
        shown = await chainctl("drill", "clean", *on, "--dry-run")
        assert shown.code == 0, shown.err
        for line in (
            "east-2: 3 rows altered",
            "east-2: 200 rows swapped",
            "west-1: 2 rows deleted",
            "paused",
        ):
            assert line in shown.err
        cleaned = await chainctl("drill", "clean", *on, "--yes")
        assert cleaned.code == 0, cleaned.err
        verified = await chainctl("verify", "-c", on[1])
        assert verified.code == 0, verified.out
        assert (await fleet.registry.topology()).paused is None
    again = await chainctl("drill", "clean", *on)
    assert (again.code, "nothing was found" in again.err) == (0, True)


@pytest.mark.long
async def test_a_drill_on_a_chain_whose_process_alone_is_killed_is_taken_back_by_who_ordered_it(
    chain: LocalChain, tmp_path: Path
) -> None:
    own = drill(tmp_path, "  - {fault: extra-rows, target: east-2, count: 5}\n  - {pause_s: 100}\n")
    on = ("--on", str(chain.config_path), "--yes", "--out", str(tmp_path / "out"))
    async with operator("drill", "run", str(own), *on) as process:
        await wait_until("the fault is there", lambda: _drilled(chain, "east-2", 1), wait_s=60)
        (own_process,) = psutil.Process(process.pid).children()
        own_process.kill()
        ran = await ended(process)
    assert ran.code == 1
    assert "taken back: east-2: 5 rows copied beyond the end" in ran.err
    assert (await chainctl("verify", "-c", str(chain.config_path))).code == 0


async def _drilled(chain: LocalChain, node: str, count: int) -> bool:
    """Does the node keep that many sets of rows for a drill?"""
    connection = await asyncpg.connect(chain.config().node(node).dsn.reveal(), timeout=5)
    try:
        return bool(await connection.fetchval("select count(*) = $1 from chain.drilled", count))
    except asyncpg.UndefinedTableError:
        return False
    finally:
        connection.terminate()


@asynccontextmanager
async def database(out: Path, node: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """A node's database, once the workload writes to it."""

    async def writing() -> bool:
        return bool(await _count(out, node, "stream like 'drill-%/%'") > 20)

    await wait_until("the workload writes", writing, wait_s=150)
    connection = await _connect(out, node)
    try:
        yield connection
    finally:
        connection.terminate()


async def _connect(out: Path, node: str) -> asyncpg.Connection[asyncpg.Record]:
    return await asyncpg.connect(load_config(chain_yaml(out), {}).node(node).dsn.reveal(), timeout=5)


async def _count(out: Path, node: str, where: str) -> int:
    try:
        connection = await _connect(out, node)
    except (ValueError, OSError, asyncpg.PostgresError, ChainError, TimeoutError):
        return 0
    try:
        return int(await connection.fetchval(f"select count(*) from chain.event where {where}"))
    except asyncpg.PostgresError:
        return 0
    finally:
        connection.terminate()


async def _frozen(out: Path) -> bool:
    try:
        registry = open_registry(load_config(chain_yaml(out), {}), timeout_s=1.0)
    except (ValueError, ChainError):
        return False
    try:
        await registry.topology()
    except ChainError:
        return await _count(out, "west-1", "stream like 'drill-%/%'") > 0
    finally:
        await registry.close()
    return False
