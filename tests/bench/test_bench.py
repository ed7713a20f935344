"""The bench end to end, small: real servers, turns, what is missing, what fails, and nothing left behind."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from bench.data import ROWS
from bench.measure import SMOKE, Bench, Contender, NotMeasured, Reading
from bench.nodes import fill, new_head, opened
from bench.peers import geochain
from bench.series import Sense
from bench.servers import Servers, connected
from bench.workload import Tally, Workload, figures
from chain.event import Position
from failover.local import processes
from failover.local.postgres import LocalPostgres


@pytest_asyncio.fixture(loop_scope="session")
async def servers(postgres_server: LocalPostgres) -> AsyncIterator[Servers]:
    """The tests' server, by the name of the bench's."""
    yield Servers(postgres_server.folder, {"alone": postgres_server})


async def test_who_can_not_be_had_or_fails_is_reported_and_the_others_are_measured(servers: Servers) -> None:
    bench = Bench(SMOKE, servers)
    ran: list[str] = []

    async def good() -> Reading:
        ran.append("good")
        return {"rate": 2.0}

    async def absent() -> Reading:
        ran.append("absent")
        raise NotMeasured("it is not installed")

    async def bad() -> Reading:
        ran.append("bad")
        raise ValueError("it broke")

    contenders = [Contender("good", good), Contender("absent", absent), Contender("bad", bad)]
    found = await bench.side_by_side("test", contenders, repeats=2)
    comparison = found.compare("rate", "test", "events/s", Sense.AT_LEAST)
    assert ran == ["good", "absent", "bad", "good"]
    assert [s.values for s in comparison.series] == [(2.0, 2.0), (), ()]
    assert [s.missing for s in comparison.series[1:]] == [
        "it is not installed",
        "failed: ValueError: it broke",
    ]
    assert bench.failures == ["test, bad: failed: ValueError: it broke"]


async def test_a_filled_log_is_one_that_the_product_would_have_written(servers: Servers) -> None:
    async with new_head(servers, "alone") as node, opened(node) as store:
        tip = await fill(node.dsn, 3_000)
        assert tip == (await store.tip()).position == 3_001
        page = await store.log(limit=5_000)
        events = page.events
        assert [e.position for e in events] == list(range(1, 3_002))
        revisions: dict[str, int] = {}
        for event in events:
            assert event.revision == revisions.get(event.stream, -1) + 1
            revisions[event.stream] = event.revision
        assert revisions["account-100000"] == 299
        assert (await store.digest(Position(1), tip)).count == 3_001
        sizes = [len(e.data) + len(e.metadata) + len(e.stream) + len(e.type) + 86 for e in events[1:]]
        assert 370 < sum(sizes) / len(sizes) < 390


async def test_revisions_are_dense_in_every_stream_however_long_the_log_is(servers: Servers) -> None:
    query = f"""
        select count(distinct stream) as streams, count(distinct id) as ids,
               bool_and(revision = nth - 1) as dense
          from (select stream, id, revision, row_number() over (partition by stream order by position) as nth
                  from ({ROWS}) as filled) as numbered
    """
    async with servers.database("alone") as dsn, connected(dsn) as connection:
        row = await connection.fetchrow(query, 0, 119_999)
    assert row is not None
    # Two whole runs of 50 blocks and the third begun: 898 orders each, and the four other streams.
    assert dict(row) == {"streams": 3 * 898 + 4, "ids": 120_000, "dense": True}


async def test_the_rows_are_the_same_whenever_they_are_made(servers: Servers) -> None:
    async with servers.database("alone") as dsn, connected(dsn) as connection:
        whole = await connection.fetch(ROWS, 0, 250_000 // 1_000)
        assert await connection.fetch(ROWS, 100, 150) == whole[100:151]


def test_the_figures_of_processes_are_put_together() -> None:
    tallies = [Tally(10, 0, 2.0, [0.001] * 10), Tally(10, 5, 2.5, [0.003] * 10)]
    found = figures(tallies, Workload(batch=4))
    assert found == {"rate": 24.0, "answers": 8.0, "p50": 1.0, "p99": 3.0}


@pytest.mark.parametrize(("share", "conflicts"), [(0.0, 0), (0.01, 2), (0.5, 100), (1.0, 200)])
def test_conflicts_come_as_often_as_asked_for(share: float, conflicts: int) -> None:
    assert sum(geochain.wants_conflict(number, share) for number in range(200)) == conflicts


async def test_the_smallest_measure_runs_to_its_report_and_leaves_nothing(tmp_path: Path) -> None:
    async with started("--scale", "smoke", "--only", "follow", folder=tmp_path) as bench:
        _, errors = await asyncio.wait_for(bench.communicate(), 90)
    assert bench.returncode == 0, errors.decode()
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert found["comparisons"][0]["name"] == "follow: p50"
    assert all(s["values"][0] > 0 for c in found["comparisons"] for s in c["series"])
    assert "<svg" in (tmp_path / "out" / "results.html").read_text()
    assert_nothing_left(tmp_path)


async def test_a_bench_that_is_interrupted_leaves_nothing(tmp_path: Path) -> None:
    async with started("--scale", "full", "--only", "follow", folder=tmp_path) as bench:
        async with asyncio.timeout(60):
            while not (running := servers_in(tmp_path)):
                await asyncio.sleep(0.02)
        bench.send_signal(signal.SIGINT)
        await asyncio.wait_for(bench.communicate(), 60)
    assert bench.returncode == 130
    assert not any(processes.alive(pid) for pid in running)
    assert_nothing_left(tmp_path)


def servers_in(folder: Path) -> list[int]:
    """The processes of servers that are up."""
    up = list(folder.glob("servers/*/alone/data/postmaster.pid"))
    return [p.pid for p in processes.find(folder) if p.is_postgres] if up else []


def assert_nothing_left(folder: Path) -> None:
    assert processes.find(folder) == ()
    assert list((folder / "servers").iterdir()) == []


class started:
    """The bench as a process of its own; killed if it still runs when the block ends."""

    def __init__(self, *arguments: str, folder: Path) -> None:
        self._arguments = (*arguments, "--folder", str(folder / "servers"), "--out", str(folder / "out"))

    async def __aenter__(self) -> asyncio.subprocess.Process:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "bench",
            *self._arguments,
            cwd=Path(__file__).parent.parent.parent,
            env=os.environ,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        return self._process

    async def __aexit__(self, *_: object) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self._process.communicate()
