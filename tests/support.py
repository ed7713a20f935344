"""What the scenarios share: opening a chain's parties, appending, and holding logs against each other."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chain.client import Client
from chain.connect import open_store
from chain.errors import ChainError
from chain.event import Appended, Event, Expect, NewEvent, Position
from chain.store import Store
from failover.fleet import Fleet, open_fleet
from failover.local.chain import LocalChain
from failover.playbook import load_playbook
from failover.runner import Done, execute


@asynccontextmanager
async def fleet_of(chain: LocalChain) -> AsyncIterator[Fleet]:
    async with open_fleet(chain.config(), timeout_s=2.0) as fleet:
        yield fleet


@asynccontextmanager
async def client_of(chain: LocalChain, *, deadline_s: float = 30.0) -> AsyncIterator[Client]:
    config = chain.config()
    client = Client([n.name for n in config.nodes], lambda n: open_store(config, n), deadline_s=deadline_s)
    try:
        yield client
    finally:
        await client.close()


async def operate(fleet: Fleet, playbook: str, **parameters: Any) -> Done:
    return await execute(fleet, load_playbook(playbook), parameters, by="a test")


async def append(store: Store, count: int, *, stream: str = "s", prefix: str = "e") -> list[Appended]:
    events = [NewEvent("Tested", f"{prefix}{n}".encode()) for n in range(count)]
    return list(
        await asyncio.gather(*(store.add(f"{stream}-{n % 7}", Expect.ANY, [e]) for n, e in enumerate(events)))
    )


async def whole_log(store: Store) -> list[Event]:
    events: list[Event] = []
    while True:
        page = await store.log(Position(len(events)))
        events += page.events
        if page.at_tip:
            return events


async def wait_equal(stores: Iterable[Store], *, wait_s: float = 20.0) -> None:
    """Waits until all logs have the same tip."""
    async with asyncio.timeout(wait_s):
        while True:
            try:
                tips = {await store.tip() for store in stores}
                if len(tips) == 1:
                    return
            except ChainError:
                pass
            await asyncio.sleep(0.02)


def assert_dense(events: list[Event]) -> None:
    """L1: positions and revisions have no holes; and no id is there twice."""
    assert [e.position for e in events] == list(range(1, len(events) + 1))
    revisions: dict[str, int] = {}
    for event in events:
        assert event.revision == revisions.get(event.stream, -1) + 1
        revisions[event.stream] = event.revision
    assert len({e.id for e in events}) == len(events)


def assert_prefix(target: list[Event], source: list[Event]) -> None:
    """L3: bit for bit."""
    assert target == source[: len(target)]


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str


async def chainctl(*arguments: str, cwd: Path | None = None, wait_s: float = 60.0) -> Ran:
    """Runs the command as a user would, without a terminal."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "failover",
        *arguments,
        cwd=cwd,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(), wait_s)
    except BaseException:
        process.kill()
        await process.wait()
        raise
    return Ran(process.returncode or 0, out.decode(), err.decode())
