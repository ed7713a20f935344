"""The stage of a drill: a local chain of its own, its network, its controllers; and nothing is left of it."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

from chain.config import Config
from chain.connect import open_client
from chain.errors import NotApproved, Refused, Unavailable
from chain.event import Expect, NewEvent
from failover.drills.aftermath import keep_logs
from failover.drills.drill import Drill
from failover.drills.faults import Fault, kind_of, missing
from failover.drills.faults.disks import ClockJump, Disks, FullDisk, clock_env
from failover.drills.ground import BALLAST_STREAM, Ground, open_ground
from failover.drills.leftovers import Left, alone_on, check_clean, clean, look
from failover.drills.network import CLIENT, Network
from failover.drills.scene import Scene
from failover.drills.workload import Load, Workload
from failover.local import processes
from failover.local.chain import LocalChain

log = logging.getLogger(__name__)

BALLAST: Final = 300
"""Events that are there before the workload: what is altered behind the chain's back is among these."""
SETTLED_S: Final = 120.0
"""How long a new chain may take: a busy machine is no fault of what is rehearsed."""
_AUTOMATION: Final[Mapping[str, Any]] = {"policy": "automatic", "lost_after": "8s", "cool_down": "1m"}
_PLACES: Final = ("head", "middle", "tail")
T = TypeVar("T")


@asynccontextmanager
async def staged(drill: Drill, folder: Path, *, prepared: LocalChain, seed: int) -> AsyncIterator[Scene]:
    """A running chain below `folder`, with a workload that is not started yet. All of it is gone afterwards.

    Raises Refused if something that a fault needs is missing here.
    """
    check_possible(drill.faults, local=True, network=True)
    clocks = any(isinstance(fault, ClockJump) for fault in drill.faults)
    local = LocalChain(folder / "chain", clock_env() if clocks else {})
    async with AsyncExitStack() as stack:
        disks = Disks(local)
        stack.push_async_callback(surely, _clear(local, disks, folder / "logs"))
        local.folder.mkdir(parents=True, exist_ok=True)
        for fault in drill.faults:
            if isinstance(fault, FullDisk):
                await disks.mount(_node_at(drill, fault.target), fault.disk_mb)
        await _copy_prepared(prepared, local)
        options = {
            "lease": drill.chain.lease,
            "automation": {**_AUTOMATION, **drill.chain.automation},
            "links": drill.chain.links,
        }
        # The machine does not lose its power here, only processes are killed: no fsync.
        await local.up_servers(drill.chain.nodes, settings={"fsync": "off"}, options=options)
        network = Network(local, drill.chain.controllers, seed=seed)
        stack.push_async_callback(surely, network.stop())
        await network.start()
        config = await local.up(wait_s=SETTLED_S)
        ground = await stack.enter_async_context(
            open_ground(config, local=local, network=network, controllers=drill.chain.controllers, seed=seed)
        )
        scene = await _scene(drill, folder, ground, network.config(CLIENT), seed, stack)
        # The processes end first: nobody waits then for one that is frozen.
        stack.push_async_callback(surely, asyncio.to_thread(processes.kill_all, local.folder.resolve()))
        for name in drill.chain.controllers:
            await asyncio.to_thread(local.start_controller, name)
        yield scene


@asynccontextmanager
async def visited(drill: Drill, folder: Path, config: Config, *, seed: int) -> AsyncIterator[Scene]:
    """A chain that is there already, allows drills, and stays. The workload writes to streams of its own.

    Raises NotApproved if it does not allow them; Refused if a fault needs a chain made for the drill, or if
    an earlier one has left something there; Busy if another is at it.
    """
    check_allowed(config)
    check_possible(drill.faults, local=False, network=False)
    async with AsyncExitStack() as stack:
        ground = await stack.enter_async_context(open_ground(config, seed=seed))
        await stack.enter_async_context(alone_on(ground))
        check_clean(await look(ground), "chain.yaml")
        yield await _scene(drill, folder, ground, config, seed, stack)


async def _scene(
    drill: Drill, folder: Path, ground: Ground, seen: Config, seed: int, stack: AsyncExitStack
) -> Scene:
    """With a workload that reaches the chain as `seen`, and is not started yet."""
    wanted = drill.workload
    client = open_client(seen, deadline_s=wanted.call_s)
    stack.push_async_callback(client.close)
    ballast = [NewEvent("Ballast", b"%d" % n) for n in range(BALLAST)]
    await client.add(BALLAST_STREAM, Expect.ANY, ballast)
    load = Load(
        writers=wanted.writers,
        readers=wanted.readers,
        followers=int(wanted.follow_tail),
        writes_per_s=wanted.writes_per_s,
        acks=wanted.acks,
        call_s=wanted.call_s,
    )
    nodes = tuple(node.name for node in ground.config.nodes)
    scene = Scene(ground, folder)
    scene.workload = Workload(client, ground.topology, nodes, load=load, seed=seed)
    return scene


async def left_on(config: Config) -> Left:
    """What killed drills have left on a chain that is there already. Raises Unavailable."""
    async with open_ground(config) as ground:
        return await look(ground)


async def clean_chain(config: Config) -> Left:
    """Takes that back, and says what it was. Raises Busy while a drill is at it; Unavailable."""
    async with open_ground(config) as ground:
        return await clean(ground)


def check_possible(faults: tuple[Fault, ...], *, local: bool, network: bool) -> None:
    """Raises Refused, naming what a fault needs and is not there."""
    for fault in faults:
        need = missing(fault, local=local, network=network)
        if need is not None:
            raise Refused(f"{kind_of(fault)} needs {need.value}, which is not there")


def check_allowed(config: Config) -> None:
    """Raises NotApproved unless chain.yaml says that faults may be injected."""
    if config.drills != "allowed":
        raise NotApproved(
            f"chain {config.chain} does not allow drills",
            hint="if you mean it, in its chain.yaml: drills: allowed",
        )


async def surely(work: Awaitable[T]) -> T:
    """Does it to its end, whoever cancels meanwhile; the cancellation is raised afterwards."""
    task, cancelled = asyncio.ensure_future(work), False
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            cancelled = True
    if cancelled:
        if task.exception() is not None:
            log.error("failed on the way out", exc_info=task.exception())
        raise asyncio.CancelledError
    return task.result()


async def _clear(local: LocalChain, disks: Disks, logs: Path) -> None:
    """Ends everything, keeps what it has said, and removes the rest."""
    if local.folder.exists():
        await asyncio.to_thread(processes.kill_all, local.folder.resolve())
        await asyncio.to_thread(keep_logs, local.folder, logs)
        await disks.unmount()
        await asyncio.to_thread(shutil.rmtree, local.folder)


async def clear_folder(folder: Path) -> None:
    """Ends and removes what an earlier drill left below `folder`, if it was killed."""
    local = LocalChain(folder / "chain")
    await _clear(local, Disks(local), folder / "logs")


async def _copy_prepared(prepared: LocalChain, local: LocalChain) -> None:
    argv = ("cp", "-a", f"{prepared.folder.resolve()}/.", str(local.folder.resolve()))
    code, output = await processes.Identity().run(*argv, cwd=local.folder)
    if code != 0:
        raise Unavailable(f"a chain can't be made in {local.folder}: {output.strip()}")


def _node_at(drill: Drill, target: str) -> str:
    """Before there is a chain, a place is the one at its creation."""
    nodes = tuple(drill.chain.nodes)
    place = target.removeprefix("first-")
    if place not in _PLACES:
        return target
    return nodes[-1] if place == "tail" else nodes[_PLACES.index(place)]
