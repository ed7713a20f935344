"""What the scenarios share: opening a chain's parties, appending, and holding logs against each other."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chain.client import Client
from chain.connect import open_client
from chain.decisions import EpochGranted
from chain.errors import ChainError, Unavailable
from chain.event import Appended, Event, Expect, NewEvent, Position
from chain.registry import Noted
from chain.store import Store
from chain.tasks import end
from chain.topology import Run, Topology
from failover import ledger_desk
from failover.fleet import Fleet, open_fleet
from failover.local.chain import LocalChain
from failover.playbook import load_playbook
from failover.runner import Done, execute
from replicator.verify import Verdict, verify_chain

SHORT_LEASE: Mapping[str, Any] = {"duration": "2s", "margin": "400ms"}
WAIT_S = 40.0
"""The bound of every wait. Long: what is promised is that it comes about, on a busy machine, too."""


@asynccontextmanager
async def running_chain(
    prepared: LocalChain,
    folder: Path,
    *,
    controllers: Iterable[str] = ("one",),
    lease: Mapping[str, Any] = SHORT_LEASE,
    **automation: Any,
) -> AsyncIterator[LocalChain]:
    """A chain of one's own under automatic controllers, as fast as it can be had; removed afterwards."""
    chain = LocalChain(folder / "chain")
    policy = {"policy": "automatic", "lost_after": "4s", "cool_down": "5m", **automation}
    try:
        copy = ["cp", "-a", str(prepared.folder), str(chain.folder)]
        await asyncio.to_thread(subprocess.run, copy, check=True)
        # Nothing here tests the loss of power: no fsync.
        await chain.up(settings={"fsync": "off"}, options={"automation": policy, "lease": dict(lease)})
        for name in controllers:
            chain.start_controller(name)
        yield chain
    finally:
        logs = sorted([*chain.folder.glob("nodes/*/daemon.log"), *chain.folder.glob("controllers/*/*.log")])
        for log in logs:
            print(f"--- {log.parent.name}\n{log.read_text()[-4000:]}")  # noqa: T201 - shown if the test failed
        await chain.wipe()


@asynccontextmanager
async def fleet_of(chain: LocalChain) -> AsyncIterator[Fleet]:
    async with open_fleet(chain.config(), timeout_s=2.0) as fleet:
        yield fleet


@asynccontextmanager
async def client_of(chain: LocalChain, *, deadline_s: float = 30.0) -> AsyncIterator[Client]:
    client = open_client(chain.config(), deadline_s=deadline_s)
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


async def wait_until(
    what: str, holds: Callable[[], Awaitable[bool]], *, wait_s: float = WAIT_S, every_s: float = 0.05
) -> None:
    """Waits until it holds; what can't be asked does not hold yet."""
    try:
        async with asyncio.timeout(wait_s):
            while True:
                try:
                    if await holds():
                        return
                except ChainError:
                    pass
                await asyncio.sleep(every_s)
    except TimeoutError:
        raise AssertionError(f"not within {wait_s:g} s: {what}") from None


async def wait_topology(
    fleet: Fleet, what: str, holds: Callable[[Topology], bool], *, every_s: float = 0.05
) -> Topology:
    """Waits until what is decided is so; gives it as it was when it was."""
    found: list[Topology] = []

    async def decided() -> bool:
        found[:] = [await fleet.registry.topology()]
        return holds(found[0])

    await wait_until(what, decided, every_s=every_s)
    return found[0]


async def wait_head(fleet: Fleet, node: str) -> Topology:
    """Waits until the node is the head and has taken up its reign."""
    return await wait_topology(fleet, f"{node} is the head", lambda t: t.head == node and t.began is not None)


async def wait_renewed(fleet: Fleet, times: int = 2) -> None:
    """Waits until the lease has been renewed so many times from now on."""

    async def renewals() -> int:
        lease = await fleet.registry.lease()
        assert lease is not None
        return lease.renewals

    goal = await renewals() + times

    async def renewed() -> bool:
        return await renewals() >= goal

    await wait_until(f"the lease is renewed {times} times", renewed)


async def wait_ended(fleet: Fleet, order: tuple[str, ...]) -> Topology:
    """Waits until the chain is this, and nothing is under way."""
    return await wait_topology(
        fleet, f"the chain is {order}", lambda t: t.order == order and t.run is None and t.began is not None
    )


async def wait_step(fleet: Fleet, step: str) -> Run:
    """Waits until a run has begun this step; gives it as it is then."""

    def begun(topology: Topology) -> bool:
        return topology.run is not None and any(s.name == step for s in topology.run.steps)

    topology = await wait_topology(fleet, f"a run has begun {step}", begun, every_s=0.005)
    assert topology.run is not None
    return topology.run


async def wait_judged(fleet: Fleet, rule: str, *, by: str = "one", after: int = 0) -> Noted:
    """Waits until a controller's latest judgement is by this rule, and is none of the first `after` ones."""
    found: list[Noted] = []

    async def judged() -> bool:
        notes = [n for n in await judgements(fleet) if n.what["by"] == by]
        found[:] = [n for n in notes[after:][-1:] if n.what["rule"] == rule]
        return bool(found)

    await wait_until(f"controller {by} judges by {rule}", judged)
    return found[0]


async def judgements(fleet: Fleet) -> tuple[Noted, ...]:
    return await fleet.registry.notes()


async def epochs_granted(fleet: Fleet) -> int:
    """How many epochs were granted after the first."""
    return sum(isinstance(r.decision, EpochGranted) for r in await fleet.registry.history())


@dataclass
class Load:
    """What writers were told, by what they wrote."""

    answers: dict[bytes, Appended] = field(default_factory=dict)

    async def wait_more(self, count: int = 20, *, wait_s: float = WAIT_S) -> None:
        """Waits until so many more writes have been acknowledged."""
        goal = len(self.answers) + count

        async def reached() -> bool:
            return len(self.answers) >= goal

        await wait_until(f"{count} more writes are acknowledged", reached, wait_s=wait_s)


@asynccontextmanager
async def writing(client: Client, *, writers: int = 2) -> AsyncIterator[Load]:
    """Writes while the block runs, gently; all writes that have begun are acknowledged when it ends."""
    load, ending = Load(), asyncio.Event()

    async def write(writer: int) -> None:
        number = 0
        while not ending.is_set():
            event = NewEvent("Tested", f"{writer}/{number}".encode())
            try:
                load.answers[event.data] = await client.add(f"w-{writer}", Expect.ANY, [event])
            except Unavailable:
                load.answers[event.data] = await client.add(f"w-{writer}", Expect.ANY, [event])
            number += 1
            await asyncio.sleep(0.05)

    tasks = [asyncio.create_task(write(n)) for n in range(writers)]
    try:
        yield load
        ending.set()
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            await end(task)


async def assert_kept(fleet: Fleet, load: Load) -> list[Event]:
    """L1 to L7 on a chain at rest: equal logs, one head, all acknowledged writes there or in the ledger."""
    topology = await fleet.registry.topology()
    stores = {n: fleet.store(n) for n in topology.order}
    await wait_equal(stores.values(), wait_s=WAIT_S)
    logs = [await whole_log(store) for store in stores.values()]
    assert all(log == logs[0] for log in logs)
    assert_dense(logs[0])
    places = {(e.position, e.epoch): e.data for e in logs[0]}
    ledger = {
        (e.event.position, e.event.epoch): e.event.data
        for e in await ledger_desk.entries(fleet.store(topology.head))
    }
    for data, answer in load.answers.items():
        place = (answer.first_position, answer.epoch)
        assert data in (places.get(place), ledger.get(place)), f"{data!r} at {place} is lost"
    await wait_one_head(fleet)
    assert {v.verdict for v in await verify_chain(stores)} == {Verdict.OK}
    return logs[0]


async def wait_one_head(fleet: Fleet) -> None:
    """Exactly one node takes writes: the head. Any other that does is an error at once."""
    topology = await fleet.registry.topology()

    async def one() -> bool:
        seen = await fleet.observe()
        writable = {n for n, s in seen.nodes.items() if s.state is not None and s.state.writable}
        assert writable <= {topology.head}
        return writable == {topology.head}

    await wait_until(f"{topology.head} takes writes", one)


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
    async with operator(*arguments, cwd=cwd) as process:
        return await ended(process, wait_s=wait_s)


@asynccontextmanager
async def operator(*arguments: str, cwd: Path | None = None) -> AsyncIterator[Process]:
    """The command under way, without a terminal; killed if it still is when the block ends."""
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
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def ended(process: Process, *, wait_s: float = 60.0) -> Ran:
    out, err = await asyncio.wait_for(process.communicate(), wait_s)
    return Ran(process.returncode or 0, out.decode(), err.decode())
