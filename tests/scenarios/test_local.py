"""The local chain and the command line, as their users meet them."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path

import asyncpg
import pytest

from chain.errors import Refused
from failover.local import processes
from failover.local.chain import LocalChain
from tests.support import append, chainctl, fleet_of, wait_equal, whole_log


@pytest.mark.long
async def test_a_second_up_finds_the_first_and_down_ends_everything(chain: LocalChain) -> None:
    def pids() -> set[int]:
        return {p.pid for p in chain.running() if p.is_postmaster or not p.is_postgres}

    before = pids()
    whole = await chainctl(
        "up", "--state", str(chain.folder)
    )  # of what it starts, the verifier was not there
    assert whole.code == 0, whole.err
    assert "UNKNOWN" not in whole.out
    after = pids()
    assert (before < after, len(after - before)) == (True, 1)
    again = await chainctl("up", "--state", str(chain.folder))
    assert again.code == 0, again.err
    assert pids() == after
    async with fleet_of(chain) as fleet:
        await append(fleet.store("east-1"), 5)
        kept = await whole_log(fleet.store("east-1"))

    down = await chainctl("down", "--state", str(chain.folder))
    assert down.code == 0, down.err
    assert chain.running() == ()
    assert (await chainctl("down", "--state", str(chain.folder))).code == 0

    await chain.up()
    async with fleet_of(chain) as fleet:
        assert (await whole_log(fleet.store("east-1")))[: len(kept)] == kept
        assert (await fleet.registry.topology()).epoch == 2  # its server had restarted


@pytest.mark.long
@pytest.mark.parametrize("after_s", [0.6, 1.5])
async def test_down_ends_what_a_killed_up_has_started(tmp_path: Path, after_s: float) -> None:
    folder = tmp_path / "chain"
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "failover",
        *("up", "--state", str(folder)),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    await asyncio.sleep(after_s)
    if process.returncode is None:
        process.kill()
    await process.wait()
    chain = LocalChain(folder)
    try:
        assert (await chainctl("down", "--state", str(folder))).code == 0
        assert chain.running() == ()
        finished = await chainctl("up", "--state", str(folder))
        assert finished.code == 0, finished.err
    finally:
        await chain.wipe()


async def test_a_folder_of_somebody_elses_is_never_touched(tmp_path: Path) -> None:
    theirs = tmp_path / "home"
    theirs.mkdir()
    (theirs / "thesis.txt").write_text("years of work")
    for command in (["up"], ["demo"], ["down", "--wipe", "--yes"]):
        ran = await chainctl(*command, "--state", str(theirs))
        assert ran.code == 3, ran.err
    assert (theirs / "thesis.txt").read_text() == "years of work"
    with pytest.raises(Refused):
        await LocalChain(theirs).wipe()


async def test_status_is_readable_by_people_and_programs(chain: LocalChain) -> None:
    config = ("-c", str(chain.config_path))
    async with fleet_of(chain) as fleet:
        await append(fleet.store("east-1"), 5)
        await wait_equal([fleet.store(n) for n in ("east-1", "west-1", "east-2")])
    table = await chainctl("status", *config)
    assert "east-1 (east) ─▶ west-1 (west) ─▶ east-2 (east)" in table.out
    status = json.loads((await chainctl("status", *config, "-o", "json")).out)
    assert (status["head"], status["epoch"], status["healthy"]) == ("east-1", 1, True)
    assert [n["lag_events"] for n in status["nodes"]] == [0, 0, 0]

    await chain.kill("west-1")
    sick = await chainctl("status", *config, "--check", "-o", "json")
    assert sick.code == 6
    west = next(n for n in json.loads(sick.out)["nodes"] if n["node"] == "west-1")
    assert (west["position"], west["lag_events"]) == (None, None)  # unknown, not zero
    assert west["trouble"]


async def test_verify_names_the_position_that_somebody_altered(chain: LocalChain) -> None:
    config = ("-c", str(chain.config_path))
    async with fleet_of(chain) as fleet:
        await append(fleet.store("east-1"), 200)
        await wait_equal([fleet.store(n) for n in ("east-1", "west-1", "east-2")])
    good = await chainctl("verify", *config, "-o", "json")
    assert (good.code, {p["result"] for p in json.loads(good.out)}) == (0, {"OK"})

    connection = await asyncpg.connect(chain.config().node("west-1").dsn.reveal())
    await connection.execute("update chain.event set data = 'forged' where position = 77")
    await connection.close()
    bad = await chainctl("verify", *config, "-o", "json")
    assert bad.code == 7
    assert [(p["result"], p["differing"]) for p in json.loads(bad.out)] == [("DIFF", [77]), ("DIFF", [77])]

    await chain.kill("east-2")
    unsure = await chainctl("verify", *config, "--from", "100", "-o", "json")
    assert unsure.code == 6
    assert [p["result"] for p in json.loads(unsure.out)] == ["OK", "UNKNOWN"]


async def test_a_move_is_refused_when_the_content_differs(chain: LocalChain) -> None:
    async with fleet_of(chain) as fleet:
        await append(fleet.store("east-1"), 20)
        await wait_equal([fleet.store("east-1"), fleet.store("west-1")])
    connection = await asyncpg.connect(chain.config().node("west-1").dsn.reveal())
    await connection.execute("update chain.event set type = 'Forged' where position = 7")
    await connection.close()
    ran = await chainctl("switchover", "--to", "west-1", "--yes", "-c", str(chain.config_path))
    assert ran.code == 7
    assert "position 7 differs" in ran.err
    async with fleet_of(chain) as fleet:
        assert (await fleet.store("east-1").state()).writable


@pytest.mark.long
async def test_what_somebody_wrote_into_an_event_harms_no_table(chain: LocalChain) -> None:
    config = ("-c", str(chain.config_path))
    for data in ("[/x]", "[bold]b[/bold]", "a\tb\x1b[31mred\nnl", "x" * 100_000):
        assert (await chainctl("events", "append", "odd", "T", data, *config)).code == 0
    table = await chainctl("events", "read", "odd", "--node", "east-1", *config)
    assert table.code == 0, table.err
    assert "[/x]" in table.out
    assert "\x1b" not in table.out
    assert len(table.out) < 20_000
    assert (await chainctl("verify", *config, "--from", "10", "--to", "5")).code == 2
    assert (await chainctl("verify", *config, "--from", "1000000")).code == 6


async def test_nothing_is_changed_without_a_yes(chain: LocalChain) -> None:
    config = ("-c", str(chain.config_path))
    asked = await chainctl("switchover", "--to", "west-1", *config)
    assert (asked.code, asked.out) == (3, "")
    planned = await chainctl("switchover", "--to", "west-1", "--dry-run", *config)
    assert planned.code == 0
    assert "fence-head" in planned.err
    async with fleet_of(chain) as fleet:
        topology = await fleet.registry.topology()
        assert (topology.head, topology.epoch, topology.run) == ("east-1", 1, None)


@pytest.mark.long
async def test_an_import_that_was_killed_is_run_again_and_stores_no_line_twice(
    chain: LocalChain, tmp_path: Path
) -> None:
    file = tmp_path / "orders.csv"
    rows = [f"{n % 50},{n}" for n in range(4000)]
    file.write_text("\n".join(["customer_id,amount", *rows]) + "\n")
    command = ("events", "import", str(file), "-c", str(chain.config_path))
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "failover", *command),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    async with fleet_of(chain) as fleet:
        while (await fleet.store("east-1").tip()).position < 500:
            await asyncio.sleep(0.01)
        process.kill()
        await process.wait()
        again = await chainctl(*command)
        assert again.code == 0, again.err
        report = json.loads(again.out)
        assert report["stored"] + report["repeated"] == 4000
        assert report["repeated"] >= 400
        log = [e for e in await whole_log(fleet.store("east-1")) if e.type == "Imported"]
        assert len(log) == 4000
        amounts = [json.loads(e.data)["amount"] for e in log if e.stream == "customer-7"]
        assert amounts == sorted(amounts, key=int)  # a stream keeps the order of the file


@pytest.mark.long
async def test_an_interrupted_demo_leaves_no_process_behind(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "failover", "demo", "--state", str(folder)),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    async with asyncio.timeout(40):
        while not (folder / "chain.yaml").exists():
            await asyncio.sleep(0.1)
        await asyncio.sleep(2.0)
        process.send_signal(signal.SIGINT)
        assert await process.wait() == 130
    assert processes.find(tmp_path) == ()


async def test_the_demo_keeps_its_promise_on_a_file_of_the_users_own(tmp_path: Path) -> None:
    file = tmp_path / "orders.jsonl"
    lines = [
        {"stream": f"order-{n % 40}", "type": "Placed", "data": {"cds": 1, "dollars": "2.50"}}
        for n in range(1500)
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    ran = await chainctl(
        "demo", "--events", str(file), "--state", str(tmp_path / "demo"), "-o", "json", wait_s=100
    )
    assert ran.code == 0, ran.err
    result = json.loads(ran.out)
    assert (result["events"], result["lost"], result["duplicated"], result["verify"]) == (1500, 0, 0, "OK")
    assert (result["cds"], result["dollars"]) == (1500, "3750.00")
    assert result["chain"] == ["east-1", "west-1", "east-2"]
