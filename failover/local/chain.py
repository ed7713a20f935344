"""The local chain: a registry and nodes as separate processes on this machine, in one state folder.

    .geochain/
        chain.yaml            written once, when everything has its port
        secrets/password      of all its servers
        registry/             the control store's Postgres
        nodes/<name>/         a node's Postgres and daemon, with their logs
        controllers/<name>/   a controller's log
        verifier/             the verifier's log
        parties/<name>.yaml   the chain as one party is told to reach it, where that is not as all others do

What runs is found by looking, never remembered, so `up` finishes what a killed `up` began, and `down` ends
everything that lives in the folder.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import signal
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import yaml

from chain.config import Config, load_config
from chain.errors import BadInput, Busy, Refused, Unavailable
from failover.local import processes
from failover.local.postgres import LocalPostgres, PortTaken
from failover.local.settled import SETTLED_S, wait_settled

DEFAULT_NODES: Final[Mapping[str, str]] = {"east-1": "east", "west-1": "west", "east-2": "east"}

_HEADER: Final = "# The local chain. Written by `chainctl up`; `chainctl down --wipe` removes it.\n"
_MARK: Final = ".geochain-state"
"""Only a folder that bears this file is ever removed."""


@dataclass(frozen=True, slots=True)
class LocalChain:
    """The local chain in `folder`."""

    folder: Path
    server_env: Mapping[str, str] = field(default_factory=dict)
    """Added to the environment of the servers that are started."""

    @property
    def config_path(self) -> Path:
        return self.folder / "chain.yaml"

    def config(self) -> Config:
        """Raises BadInput if there is no chain in the folder."""
        if not self.config_path.exists():
            raise BadInput(f"there is no local chain in {self.folder}", hint="start one: chainctl up")
        return load_config(self.config_path, {})

    def config_path_of(self, party: str) -> Path:
        """What the party's processes read: a file of its own in parties/, else everybody's."""
        own = self.folder / "parties" / f"{party}.yaml"
        return own if own.exists() else self.config_path

    def node_folder(self, node: str) -> Path:
        return self.folder.resolve() / "nodes" / node

    async def up(
        self,
        nodes: Mapping[str, str] = DEFAULT_NODES,
        *,
        settings: Mapping[str, str] | None = None,
        options: Mapping[str, Any] | None = None,
        wait_s: float = SETTLED_S,
    ) -> Config:
        """Starts whatever does not run yet, and waits until every member is as decided.

        `options` go into the chain.yaml of a new chain, `settings` into its servers' configuration.

        Idempotent. Raises Busy if another `up` is at work, PortTaken, TimedOut.
        """
        config = await self.up_servers(nodes, settings=settings, options=options)
        with _locked(self.folder / "lock"):
            for node in config.nodes:
                self._start_daemon(node.name)
        await wait_settled(config, wait_s=wait_s)
        return config

    async def up_servers(
        self,
        nodes: Mapping[str, str] = DEFAULT_NODES,
        *,
        settings: Mapping[str, str] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> Config:
        """The first half of `up`: chain.yaml and all servers, no daemon. Idempotent; raises the same."""
        self._claim()
        with _locked(self.folder / "lock"):
            if self.config_path.exists():
                await self._start_servers([n.name for n in self.config().nodes], settings)
            else:
                await self._create(nodes, settings, options or {})
            return self.config()

    async def prepare(self) -> None:
        """Takes the slowest step of the first `up`, and starts nothing: makes the first server's files.

        A copy of a folder so prepared is a chain of its own, under the same password.
        """
        self._claim()
        with _locked(self.folder / "lock"):
            await self._registry().init()

    async def add_node(self, name: str, region: str) -> Config:
        """A new, empty node beside the others; the chain knows it once it is bootstrapped."""
        config = self.config()
        postgres = self._postgres(name)
        await self._start_postgres(postgres, None)
        entry = _node_entry(name, region, postgres.dsn("chain"), processes.free_port())
        raw = yaml.safe_load(self.config_path.read_text())
        if name not in {n.name for n in config.nodes}:
            raw["nodes"].append(entry)
            _write(self.config_path, raw)
        self._start_daemon(name)
        return self.config()

    async def down(self) -> None:
        """Ends every process of the chain. Complete when it returns; nothing is lost."""
        if self.folder.exists():
            await asyncio.to_thread(processes.stop, self.folder.resolve())

    async def wipe(self) -> None:
        """`down`, and the folder is removed."""
        if self.folder.exists():
            self._check_ours()
            await asyncio.to_thread(processes.kill_all, self.folder.resolve())
            await asyncio.to_thread(shutil.rmtree, self.folder)

    # Losing and regaining parts of it, for demos, drills and tests.

    async def kill(self, *nodes: str) -> None:
        """SIGKILLs the nodes' servers and daemons, all at once."""
        async with asyncio.TaskGroup() as tasks:
            for node in nodes:
                tasks.create_task(asyncio.to_thread(processes.kill_all, self.node_folder(node)))

    async def start(self, *nodes: str) -> None:
        """Starts the nodes' servers and daemons again."""
        await asyncio.gather(*(self._start_postgres(self._postgres(node), None) for node in nodes))
        for node in nodes:
            self._start_daemon(node)

    async def start_postgres(self, node: str) -> None:
        await self._start_postgres(self._postgres(node), None)

    async def kill_postgres(self, node: str) -> None:
        await self._postgres(node).kill()

    async def stop_postgres(self, node: str, mode: Literal["fast", "immediate"] = "fast") -> None:
        await self._postgres(node).stop(mode)

    async def kill_registry(self) -> None:
        await self._registry().kill()

    async def start_registry(self) -> None:
        await self._start_postgres(self._registry(), None)

    def start_daemon(self, node: str) -> None:
        self._start_daemon(node)

    def start_controller(self, name: str) -> None:
        """Starts a controller of this name, unless it runs."""
        _start_in(
            self.controller_folder(name), "controller", "--name", name, config=self.config_path_of(name)
        )

    def start_verifier(self) -> None:
        """Starts the verifier, unless it runs."""
        _start_in(self.folder.resolve() / "verifier", "verifier", config=self.config_path)

    def signal_controller(self, name: str, sig: signal.Signals) -> None:
        processes.signal_all(self.controller_folder(name), sig)

    def controller_folder(self, name: str) -> Path:
        return self.folder.resolve() / "controllers" / name

    def signal_daemon(self, node: str, sig: signal.Signals) -> None:
        """Sends a signal to the node's daemon alone."""
        for process in self._daemons(node):
            os.kill(process.pid, sig)

    def signal_postgres(self, node: str, sig: signal.Signals) -> None:
        """Sends a signal to every process of the node's server."""
        _signal_server(self._postgres(node), sig)

    def signal_registry(self, sig: signal.Signals) -> None:
        """Sends a signal to every process of the registry's server."""
        _signal_server(self._registry(), sig)

    def signal_all(self, node: str, sig: signal.Signals) -> None:
        """Sends a signal to everything of the node."""
        processes.signal_all(self.node_folder(node), sig)

    def running(self) -> tuple[processes.Proc, ...]:
        return processes.find(self.folder.resolve()) if self.folder.exists() else ()

    def _claim(self) -> None:
        """Makes the folder ours. Raises Refused if it holds something else."""
        self._check_ours()
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / _MARK).touch()

    def _check_ours(self) -> None:
        if self.folder.is_dir() and ((self.folder / _MARK).exists() or not any(self.folder.iterdir())):
            return
        if self.folder.exists():
            raise Refused(
                f"{self.folder} is not a folder of geochain's, so nothing in it is touched",
                hint="give --state a new folder",
            )

    async def _create(
        self, nodes: Mapping[str, str], settings: Mapping[str, str] | None, options: Mapping[str, Any]
    ) -> None:
        registry = self._registry()
        await registry.init()
        await asyncio.gather(*(_copy_server(registry, self._postgres(name)) for name in nodes))
        await self._start_servers(nodes, settings)
        raw = {
            "chain": "local",
            "registry": {"dsn": registry.dsn("registry"), "password_file": "secrets/password"},
            "nodes": [
                _node_entry(name, region, self._postgres(name).dsn("chain"), processes.free_port())
                for name, region in nodes.items()
            ],
            "verify": {"http": f"127.0.0.1:{processes.free_port()}"},
            "drills": "allowed",
            **options,
        }
        _write(self.config_path, raw)

    async def _start_servers(self, nodes: Iterable[str], settings: Mapping[str, str] | None) -> None:
        await asyncio.gather(
            self._start_postgres(self._registry(), settings),
            *(self._start_postgres(self._postgres(name), settings) for name in nodes),
        )

    async def _start_postgres(self, server: LocalPostgres, settings: Mapping[str, str] | None) -> None:
        """On the port that it always had, or on a free one the first time."""
        await server.init()
        for _ in range(5):
            port = self._known_port(server) or processes.free_port()
            try:
                await server.start(port, settings=settings, env=self.server_env)
            except PortTaken:
                if self.config_path.exists():
                    raise  # the others know it by this port
                (server.data / "geochain.conf").unlink(missing_ok=True)
            else:
                await server.name_database("registry" if server.folder.name == "registry" else "chain")
                return
        raise Unavailable("no free port was found for a server", hint="try again")

    def _known_port(self, server: LocalPostgres) -> int | None:
        """The port in chain.yaml; before that is written, the one that the server had last."""
        if self.config_path.exists():
            config = self.config()
            if server.folder.name == "registry":
                return config.registry.dsn.port
            known = {n.name: n.dsn.port for n in config.nodes}
            if server.folder.name in known:
                return known[server.folder.name]
        try:
            return server.port
        except BadInput:
            return None

    def _start_daemon(self, node: str) -> None:
        if self._daemons(node):
            return
        folder = self.node_folder(node)
        argv = [sys.executable, "-m", "failover", "serve", "node", node]
        config = str(self.config_path_of(node).resolve())
        processes.spawn([*argv, "--config", config], cwd=folder, log=folder / "daemon.log")

    def _daemons(self, node: str) -> tuple[processes.Proc, ...]:
        return tuple(p for p in processes.find(self.node_folder(node)) if not p.is_postgres)

    def _postgres(self, node: str) -> LocalPostgres:
        return LocalPostgres(self.node_folder(node), password_file=self._password_file())

    def _registry(self) -> LocalPostgres:
        return LocalPostgres(self.folder.resolve() / "registry", password_file=self._password_file())

    def _password_file(self) -> Path:
        return self.folder.resolve() / "secrets" / "password"


def _start_in(folder: Path, what: str, *arguments: str, config: Path) -> None:
    """Starts `serve WHAT` in a folder of its own, unless something runs there."""
    if processes.find(folder):
        return
    folder.mkdir(parents=True, exist_ok=True)
    argv = [sys.executable, "-m", "failover", "serve", what, *arguments, "--config", str(config.resolve())]
    processes.spawn(argv, cwd=folder, log=folder / f"{what}.log")


async def _copy_server(source: LocalPostgres, target: LocalPostgres) -> None:
    """A server that was never started is copied in a fraction of the time that a new one takes.

    By `cp`: threads that copy many small files wait for Python's lock most of the time. Raises Unavailable.
    """
    if target.data.exists() or (source.data / "geochain.conf").exists():
        return
    target.folder.mkdir(parents=True, exist_ok=True)
    new = target.folder / "data.copy"
    await asyncio.to_thread(shutil.rmtree, new, ignore_errors=True)
    code, output = await processes.Identity().run("cp", "-a", source.data, new, cwd=target.folder)
    if code != 0:
        raise Unavailable(f"{source.data} can't be copied to {new}: {output.strip()}")
    new.rename(target.data)


def _signal_server(server: LocalPostgres, sig: signal.Signals) -> None:
    """Twice: what the postmaster forked while it was told the first time is told the second time."""
    for _ in range(2):
        processes.signal_all(server.data, sig)


class _locked:
    """Holds a lock file for the block; it ends with the process. Raises Busy."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._file)
            raise Busy(f"another `up` is at work in {self._path.parent}", hint="wait for it") from None

    def __exit__(self, *_: object) -> None:
        os.close(self._file)


def _node_entry(name: str, region: str, dsn: str, port: int) -> dict[str, str]:
    return {
        "name": name,
        "region": region,
        "dsn": dsn,
        "password_file": "secrets/password",
        "http": f"127.0.0.1:{port}",
    }


def _write(path: Path, raw: object) -> None:
    new = path.with_suffix(".new")
    new.write_text(_HEADER + yaml.safe_dump(raw, sort_keys=False))
    new.replace(path)
