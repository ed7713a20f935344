"""Processes that are killed, stopped, frozen, doubled. Taking it back starts or wakes them."""

from __future__ import annotations

import asyncio
import shutil
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Literal

import yaml

from failover.drills.faults.base import LocalFault, Party
from failover.drills.ground import Ground, Undos
from failover.local import processes


class KillPostgres(LocalFault):
    """A node's server is killed, with all its processes at once; its daemon lives."""

    fault: Literal["kill-postgres"]
    target: Party

    async def inject(self, ground: Ground, undos: Undos) -> str:
        node = await ground.node(self.target)
        undos.add(f"start the server of {node}", lambda: ground.chain.start_postgres(node))
        await ground.chain.kill_postgres(node)
        return node


class StopPostgres(LocalFault):
    """A node's server is shut down, with a checkpoint or, `immediate`, without one."""

    fault: Literal["stop-postgres"]
    target: Party
    mode: Literal["fast", "immediate"] = "fast"

    async def inject(self, ground: Ground, undos: Undos) -> str:
        node = await ground.node(self.target)
        undos.add(f"start the server of {node}", lambda: ground.chain.start_postgres(node))
        await ground.chain.stop_postgres(node, self.mode)
        return node


class RestartPostgres(LocalFault):
    """A node's server crashes, and is there again at once."""

    fault: Literal["restart-postgres"]
    target: Party

    async def inject(self, ground: Ground, undos: Undos) -> str:
        node = await ground.node(self.target)
        undos.add(f"start the server of {node}", lambda: ground.chain.start_postgres(node))
        await ground.chain.kill_postgres(node)
        await ground.chain.start_postgres(node)
        return node


class FreezePostgres(LocalFault):
    """A node's server stands still, and keeps its connections; it wakes as if nothing had been."""

    fault: Literal["freeze-postgres"]
    target: Party

    async def inject(self, ground: Ground, undos: Undos) -> str:
        node = await ground.node(self.target)
        undos.add(f"wake the server of {node}", _signal(ground.chain.signal_postgres, node, signal.SIGCONT))
        await asyncio.to_thread(ground.chain.signal_postgres, node, signal.SIGSTOP)
        return node


class KillDaemon(LocalFault):
    """A node's daemon is killed; its server lives."""

    fault: Literal["kill-daemon"]
    target: Party

    async def inject(self, ground: Ground, undos: Undos) -> str:
        node = await ground.node(self.target)
        undos.add(f"start the daemon of {node}", _called(ground.chain.start_daemon, node))
        await asyncio.to_thread(ground.chain.signal_daemon, node, signal.SIGKILL)
        return node


class StopDaemon(LocalFault):
    """A node's daemon is told to end."""

    fault: Literal["stop-daemon"]
    target: Party

    async def inject(self, ground: Ground, undos: Undos) -> str:
        node = await ground.node(self.target)
        undos.add(f"start the daemon of {node}", _called(ground.chain.start_daemon, node))
        await asyncio.to_thread(ground.chain.signal_daemon, node, signal.SIGTERM)
        return node


class FreezeDaemon(LocalFault):
    """A node's daemon stands still: no renewal, no link, no answer."""

    fault: Literal["freeze-daemon"]
    target: Party

    async def inject(self, ground: Ground, undos: Undos) -> str:
        node = await ground.node(self.target)
        undos.add(f"wake the daemon of {node}", _signal(ground.chain.signal_daemon, node, signal.SIGCONT))
        await asyncio.to_thread(ground.chain.signal_daemon, node, signal.SIGSTOP)
        return node


class DuplicateDaemon(LocalFault):
    """A second daemon serves the same node, unknown to the first."""

    fault: Literal["duplicate-daemon"]
    target: Party

    async def inject(self, ground: Ground, undos: Undos) -> str:
        node = await ground.node(self.target)
        folder = ground.chain.folder.resolve() / "twins" / node

        async def end() -> None:
            if folder.exists():
                await asyncio.to_thread(processes.stop, folder)
                await asyncio.to_thread(shutil.rmtree, folder)

        undos.add(f"end the second daemon of {node}", end)
        folder.mkdir(parents=True, exist_ok=True)
        own = ground.chain.config_path_of(node)
        raw = yaml.safe_load(own.read_text())
        for entry in (raw["registry"], *raw["nodes"]):
            entry["password_file"] = str(ground.chain.folder.resolve() / "secrets" / "password")
            if entry.get("name") == node:
                entry["http"] = f"127.0.0.1:{processes.free_port()}"
        (folder / "chain.yaml").write_text(yaml.safe_dump(raw))
        argv = [sys.executable, "-m", "failover", "serve", "node", node, "--config", "chain.yaml"]
        await asyncio.to_thread(processes.spawn, argv, cwd=folder, log=folder / "daemon.log")
        return node


class KillNode(LocalFault):
    """A node is gone: server and daemon are killed at once."""

    fault: Literal["kill-node"]
    target: Party

    async def inject(self, ground: Ground, undos: Undos) -> str:
        node = await ground.node(self.target)
        undos.add(f"start {node}", lambda: ground.chain.start(node))
        await ground.chain.kill(node)
        return node


class FreezeNode(LocalFault):
    """A node stands still, server and daemon, and wakes as if nothing had been."""

    fault: Literal["freeze-node"]
    target: Party

    async def inject(self, ground: Ground, undos: Undos) -> str:
        node = await ground.node(self.target)
        undos.add(f"wake {node}", _signal(ground.chain.signal_all, node, signal.SIGCONT))
        await asyncio.to_thread(ground.chain.signal_all, node, signal.SIGSTOP)
        return node


class KillRegion(LocalFault):
    """All nodes of a region are killed at once."""

    fault: Literal["kill-region"]
    target: Party

    async def inject(self, ground: Ground, undos: Undos) -> str:
        nodes = await ground.region(self.target)
        undos.add(f"start {' and '.join(nodes)}", lambda: ground.chain.start(*nodes))
        await ground.chain.kill(*nodes)
        return f"{self.target}: {', '.join(nodes)}"


class FreezeRegion(LocalFault):
    """All nodes of a region stand still, and wake as if nothing had been."""

    fault: Literal["freeze-region"]
    target: Party

    async def inject(self, ground: Ground, undos: Undos) -> str:
        nodes = await ground.region(self.target)
        for node in nodes:
            undos.add(f"wake {node}", _signal(ground.chain.signal_all, node, signal.SIGCONT))
            await asyncio.to_thread(ground.chain.signal_all, node, signal.SIGSTOP)
        return f"{self.target}: {', '.join(nodes)}"


class KillController(LocalFault):
    """A controller is killed; `runner` is the one that has a run under way."""

    fault: Literal["kill-controller"]
    target: Party

    async def inject(self, ground: Ground, undos: Undos) -> str:
        for name in await _controllers(ground, self.target):
            undos.add(f"start controller {name}", _called(ground.chain.start_controller, name))
            await asyncio.to_thread(ground.chain.signal_controller, name, signal.SIGKILL)
        return self.target


class FreezeController(LocalFault):
    """A controller stands still, and wakes with an old view; `runner` is the one with a run under way."""

    fault: Literal["freeze-controller"]
    target: Party

    async def inject(self, ground: Ground, undos: Undos) -> str:
        for name in await _controllers(ground, self.target):
            wake = _signal(ground.chain.signal_controller, name, signal.SIGCONT)
            undos.add(f"wake controller {name}", wake)
            await asyncio.to_thread(ground.chain.signal_controller, name, signal.SIGSTOP)
        return self.target


class KillRegistry(LocalFault):
    """The registry's server is killed."""

    fault: Literal["kill-registry"]

    async def inject(self, ground: Ground, undos: Undos) -> str:
        undos.add("start the registry", ground.chain.start_registry)
        await ground.chain.kill_registry()
        return "registry"


class FreezeRegistry(LocalFault):
    """The registry's server stands still: it takes connections and never answers."""

    fault: Literal["freeze-registry"]

    async def inject(self, ground: Ground, undos: Undos) -> str:
        async def wake() -> None:
            await asyncio.to_thread(ground.chain.signal_registry, signal.SIGCONT)

        undos.add("wake the registry", wake)
        await asyncio.to_thread(ground.chain.signal_registry, signal.SIGSTOP)
        return "registry"


async def _controllers(ground: Ground, target: str) -> tuple[str, ...]:
    if target == "controllers":
        return ground.controllers
    if target != "runner":
        return (target,)
    run = (await ground.topology()).run
    return (run.by.removeprefix("controller "),) if run and run.by.startswith("controller ") else ()


def _signal(
    send: Callable[[str, signal.Signals], None], whom: str, sig: signal.Signals
) -> Callable[[], Awaitable[None]]:
    async def do() -> None:
        await asyncio.to_thread(send, whom, sig)

    return do


def _called(do: Callable[[str], None], name: str) -> Callable[[], Awaitable[None]]:
    async def called() -> None:
        await asyncio.to_thread(do, name)

    return called
