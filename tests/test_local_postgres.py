"""What a local server promises: it starts once, outlives crashes with its data, and ends for good."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from chain.errors import BadInput, Unavailable
from failover.local import processes
from failover.local.postgres import LocalPostgres, PortTaken
from failover.local.programs import NoPostgres

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can run Postgres as another account")


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    processes.kill_all(tmp_path)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of the server that the tests share, for making one is the slowest step."""
    folder = tmp_path_factory.mktemp("chain")
    yield folder
    processes.kill_all(folder)


@pytest.fixture
async def server(home: Path) -> LocalPostgres:
    """A running server with the database geochain, whatever the test before did to it."""
    server = LocalPostgres(home / "eu", password_file=home / "password")
    await server.init()
    await start(server)
    await server.create_database()
    return server


async def start(server: LocalPostgres) -> None:
    """Start on a free port, and on another one if somebody was quicker."""
    for _ in range(5):
        try:
            return await server.start(processes.free_port(), settings={"fsync": "off"})
        except PortTaken:
            continue
    pytest.fail("five free ports in a row were taken")


async def ask(server: LocalPostgres, query: str) -> object:
    connection = await asyncpg.connect(server.dsn(), password=server.password(), ssl=False, timeout=5)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


def wait_dead(pid: int) -> None:
    """A signal takes a moment to kill."""
    until = time.monotonic() + 5
    while processes.alive(pid):
        assert time.monotonic() < until, f"{pid} is still alive"
        time.sleep(0.001)


def test_a_port_that_was_given_out_is_given_to_nobody_else_and_a_server_can_take_it() -> None:
    ours = {processes.free_port() for _ in range(100)}
    for _ in range(3000):
        with socket.socket() as stranger:
            stranger.bind(("127.0.0.1", 0))
            assert stranger.getsockname()[1] not in ours
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", ours.pop()))
        server.listen()


async def test_a_server_starts_once_and_stops_for_good(server: LocalPostgres) -> None:
    before = processes.find(server.data)
    port = server.port

    await server.init()
    await server.start(processes.free_port())
    await server.create_database()

    masters = [proc.pid for proc in before if proc.is_postmaster]
    assert len(masters) == 1
    assert [proc.pid for proc in processes.find(server.data) if proc.is_postmaster] == masters
    assert server.port == port
    assert server.running()
    assert await ask(server, "show data_checksums") == "on"

    await server.stop()
    await server.stop()
    assert not server.running()
    assert processes.find(server.folder) == ()


async def test_another_object_on_the_folder_finds_the_server(server: LocalPostgres) -> None:
    other = LocalPostgres(server.folder, password_file=server.password_file)
    assert other.running()
    assert other.dsn() == server.dsn()
    await other.kill()
    assert not server.running()


async def test_committed_data_survive_sigkill(server: LocalPostgres) -> None:
    await ask(server, "create table kept as select 42 as answer")

    await server.kill()
    assert processes.find(server.folder) == ()
    await start(server)

    assert await ask(server, "select answer from kept") == 42


async def test_a_killed_postmaster_alone_does_not_block_its_restart(server: LocalPostgres) -> None:
    master = next(proc.pid for proc in processes.find(server.data) if proc.is_postmaster)
    os.kill(master, signal.SIGKILL)
    await asyncio.to_thread(wait_dead, master)
    await start(server)
    assert await ask(server, "select 1") == 1


async def test_a_stale_pid_file_with_a_reused_pid_does_not_block_a_restart(server: LocalPostgres) -> None:
    pid_file = server.data / "postmaster.pid"
    lines = pid_file.read_text().splitlines()
    await server.kill()
    pid_file.write_text("\n".join([str(os.getpid()), *lines[1:]]) + "\n")

    assert not server.running()
    await start(server)
    assert await ask(server, "select 1") == 1


async def test_a_suspended_server_is_still_stopped(server: LocalPostgres) -> None:
    processes.signal_all(server.data, signal.SIGSTOP)
    assert server.running()
    with pytest.raises(TimeoutError):
        await asyncpg.connect(server.dsn(), password=server.password(), ssl=False, timeout=0.3)
    await server.stop()
    assert processes.find(server.data) == ()
    assert "database system is shut down" in server.log.read_text()


async def test_init_recovers_from_a_crash_and_servers_share_a_password(folder: Path) -> None:
    servers = [LocalPostgres(folder / name, password_file=folder / "password") for name in ("eu", "us")]
    (folder / "eu" / "data.new" / "base").mkdir(parents=True)

    await asyncio.gather(*(server.init() for server in (*servers, *servers)))
    await asyncio.gather(*(start(server) for server in servers))
    await asyncio.gather(*(server.create_database() for server in (*servers, *servers)))

    assert [await ask(server, "select current_user::text") for server in servers] == ["geochain"] * 2
    assert (folder / "password").stat().st_mode & 0o777 == 0o600
    assert not any(name.endswith(".new") for server in servers for name in os.listdir(server.folder))


async def test_a_new_server_gives_its_one_database_the_name_and_keeps_it(folder: Path) -> None:
    server = LocalPostgres(folder / "eu")
    await server.init()
    await start(server)

    await asyncio.gather(*(server.name_database("geochain") for _ in range(3)))
    await ask(server, "create table kept as select 42 as answer")
    await server.name_database("geochain")

    assert await ask(server, "select answer from kept") == 42
    names = "select string_agg(datname, ' ' order by datname) from pg_database where not datistemplate"
    assert await ask(server, names) == "geochain"


async def test_a_taken_port_is_told_apart_from_other_failures(server: LocalPostgres, folder: Path) -> None:
    other = LocalPostgres(folder / "us", password_file=server.password_file)
    await other.init()

    with pytest.raises(PortTaken):
        await other.start(server.port)
    with pytest.raises(Unavailable, match="no_such_setting") as caught:
        await other.start(processes.free_port(), settings={"no_such_setting": "1"})
    assert not isinstance(caught.value, PortTaken)

    await start(other)
    assert await ask(server, "select 1") == 1


async def test_a_folder_without_a_server_says_so(folder: Path) -> None:
    server = LocalPostgres(folder / "eu")
    assert not server.running()
    with pytest.raises(BadInput, match="no server"):
        await server.start(processes.free_port())
    with pytest.raises(BadInput, match="never started"):
        server.dsn()


@pytest.mark.parametrize(
    ("program", "complaint"),
    [(None, "doesn't run"), ("echo 'postgres (PostgreSQL) 13.9'", "older than 14")],
)
async def test_a_bad_pg_bin_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch, program: str | None, complaint: str
) -> None:
    if program is not None:
        (folder / "postgres").write_text(f"#!/bin/sh\n{program}\n")
        (folder / "postgres").chmod(0o755)
    monkeypatch.setenv("PG_BIN", str(folder))
    with pytest.raises(NoPostgres, match=complaint) as caught:
        await LocalPostgres(folder / "eu").init()
    assert "PG_BIN" in caught.value.message
    assert "geochain[local]" in caught.value.hint


@needs_root
async def test_root_may_run_a_server_as_another_account() -> None:
    # The account must reach the folder, and pytest's own folders are closed to all but their owner.
    folder = Path(tempfile.mkdtemp(prefix="geochain-"))
    os.chmod(folder, 0o755)
    try:
        server = LocalPostgres(folder / "eu", _way="account")
        await server.init()
        await start(server)
        await server.create_database()
        assert server.data.stat().st_uid != 0
        await server.kill()
        await start(server)
        assert await ask(server, "select 1") == 1
        await server.stop()
        assert processes.find(folder) == ()
    finally:
        processes.kill_all(folder)
        shutil.rmtree(folder)


@needs_root
async def test_an_account_that_cannot_reach_the_folder_is_an_error(folder: Path) -> None:
    os.chmod(folder, 0o700)
    with pytest.raises(NoPostgres, match="nobody but root"):
        await LocalPostgres(folder / "eu", _way="account").init()


def test_a_stranger_standing_in_the_folder_is_left_alone(folder: Path) -> None:
    with subprocess.Popen(["sleep", "60"], cwd=folder) as stranger:
        try:
            ours = processes.spawn(["sleep", "60"], cwd=folder, log=folder / "log")
            assert [proc.pid for proc in processes.find(folder)] == [ours]
            processes.stop(folder)
            processes.kill_all(folder)
            assert stranger.poll() is None
        finally:
            stranger.kill()


def test_kill_all_leaves_nothing_even_of_a_process_that_keeps_forking(folder: Path) -> None:
    script = "trap '' TERM INT; while :; do sleep 60 & sleep 0.01; done"
    (folder / "eu").mkdir()
    processes.spawn(["sh", "-c", script], cwd=folder / "eu", log=folder / "log")
    processes.signal_all(folder, signal.SIGSTOP)
    processes.signal_all(folder, signal.SIGCONT)
    processes.kill_all(folder)
    assert processes.find(folder) == ()


def test_stop_kills_what_ignores_it(folder: Path) -> None:
    script = "trap '' TERM; echo ready; while :; do sleep 1; done"
    processes.spawn(["sh", "-c", script], cwd=folder, log=folder / "log")
    processes.stop(folder, wait_s=0.4)
    assert processes.find(folder) == ()


def test_a_spawned_process_outlives_its_parent(folder: Path) -> None:
    script = (
        "import sys, pathlib; from failover.local import processes as p; f = pathlib.Path(sys.argv[1]);"
        "p.spawn(['sleep', '60'], cwd=f, log=f / 'log')"
    )
    subprocess.run([sys.executable, "-c", script, str(folder)], check=True, timeout=30)
    assert [proc.name for proc in processes.find(folder)] == ["sleep"]
