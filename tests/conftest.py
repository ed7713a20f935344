"""Real servers for the tests: started here, on loopback, on free ports, and gone afterwards."""

from __future__ import annotations

import asyncio
import signal
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from hypothesis import settings

from failover.local import processes
from failover.local.chain import LocalChain
from failover.local.postgres import LocalPostgres

# A busy machine is no fault of what is tested.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

# What a shell starts in the background ignores Ctrl-C, and so would all that is started and interrupted here.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LocalPostgres]:
    """One server for all tests that need only databases. Nothing here tests the loss of power: no fsync."""
    server = LocalPostgres(tmp_path_factory.mktemp("postgres"))
    await server.init()
    await server.start(processes.free_port(), settings={"fsync": "off"})
    try:
        yield server
    finally:
        await server.stop("immediate")


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def prepared(tmp_path_factory: pytest.TempPathFactory) -> LocalChain:
    """A chain that was never started; its copies are started much faster than a chain is made."""
    local = LocalChain(tmp_path_factory.mktemp("prepared") / "chain")
    await local.prepare()
    return local


@pytest_asyncio.fixture(loop_scope="session")
async def chain(prepared: LocalChain, tmp_path: Path) -> AsyncIterator[LocalChain]:
    """A chain of one's own: east-1 ─▶ west-1 ─▶ east-2, settled."""
    local = LocalChain(tmp_path / "chain")
    try:
        copy = ["cp", "-a", str(prepared.folder), str(local.folder)]
        await asyncio.to_thread(subprocess.run, copy, check=True)
        await local.up()
        yield local
    finally:
        for log in sorted(local.folder.glob("nodes/*/daemon.log")):
            print(f"--- {log.parent.name}\n{log.read_text()[-3000:]}")  # noqa: T201 - shown if the test failed
        await local.wipe()
