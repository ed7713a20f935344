"""Whole chains for measures: a local chain's servers and real daemons, near to each other or far apart."""

from __future__ import annotations

import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from bench.delay import Delay, delay
from chain.config import Config
from failover.local import processes
from failover.local.chain import LocalChain
from failover.local.settled import wait_settled

SETTINGS: Final = {"shared_buffers": "512MB", "max_wal_size": "4GB", "checkpoint_timeout": "15min"}
"""Of the servers of a chain, beyond the local chain's own; nothing about durability."""


def names(count: int) -> dict[str, str]:
    """So many nodes, each in a region of its own."""
    return {f"n{number}": f"region-{number}" for number in range(1, count + 1)}


@asynccontextmanager
async def running_chain(
    folder: Path,
    nodes: Mapping[str, str],
    *,
    options: Mapping[str, Any] | None = None,
    settings: Mapping[str, str] | None = None,
) -> AsyncIterator[LocalChain]:
    """A settled chain below the folder, removed afterwards."""
    chain = LocalChain(folder / f"chain-{len(nodes)}")
    try:
        await chain.up(nodes, settings={**SETTINGS, **(settings or {})}, options=options)
        yield chain
    finally:
        await chain.wipe()


@dataclass(frozen=True, slots=True)
class LongWays:
    """A way to each server of a chain, as long as it is told."""

    ways: Sequence[Delay]

    async def set_round_trip(self, milliseconds: float) -> None:
        for way in self.ways:
            await way.set_round_trip(milliseconds)


@asynccontextmanager
async def far_apart(chain: LocalChain) -> AsyncIterator[LongWays]:
    """Starts the daemons of a running chain anew, with long ways to all nodes but their own."""
    config = chain.config()
    async with AsyncExitStack() as stack:
        ways = {
            node.name: await stack.enter_async_context(delay(chain.folder, node.dsn.reveal()))
            for node in config.nodes
        }
        for node in config.nodes:
            _restart_daemon(chain, config, node.name, ways)
        await wait_settled(config)
        yield LongWays(tuple(ways.values()))


def _restart_daemon(chain: LocalChain, config: Config, node: str, ways: Mapping[str, Delay]) -> None:
    raw = yaml.safe_load(chain.config_path.read_text())
    for entry in raw["nodes"]:
        if entry["name"] != node:
            entry["dsn"] = ways[entry["name"]].through(entry["dsn"])
    # Beside chain.yaml, since the path of the password's file is relative to it.
    path = chain.folder / f"{node}.yaml"
    path.write_text(yaml.safe_dump(raw, sort_keys=False))
    folder = chain.node_folder(node)
    for process in processes.find(folder):
        if not process.is_postgres:
            chain.signal_daemon(node, signal.SIGKILL)
            break
    argv = [sys.executable, "-m", "failover", "serve", "node", node, "--config", str(path.resolve())]
    processes.spawn(argv, cwd=folder, log=folder / "daemon.log")
