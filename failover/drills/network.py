"""The network of a drill: every party reaches every other through a fault proxy of its own.

Parties are the nodes (a daemon and its server, which are on one machine), the controllers, the workload's
client, the operator; the registry only answers. Each party is given a chain.yaml whose addresses lead through
its proxies. Who looks at the drill from outside goes by the true one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

import yaml

from chain.config import Config, load_config
from failover.drills.proxy import Proxy
from failover.drills.toxics import Flow, Toxic
from failover.local.chain import LocalChain

CLIENT: Final = "client"
OPERATOR: Final = "operator"
REGISTRY: Final = "registry"


@dataclass(frozen=True, slots=True)
class Wire:
    """All connections that `source` opens to one service of `target`."""

    source: str
    target: str
    service: str
    """`store` or `daemon`."""
    proxy: Proxy


Lane = tuple[Proxy, Flow]
"""One direction of a wire."""


class Network:
    """The proxies between the parties of a local chain. `start` before its daemons are; `stop` at the end."""

    def __init__(self, chain: LocalChain, controllers: Collection[str] = (), *, seed: int = 0) -> None:
        self._chain = chain
        config = chain.config()
        self.nodes = tuple(n.name for n in config.nodes)
        self.controllers = tuple(controllers)
        self.wires: tuple[Wire, ...] = tuple(_wires(config, self._sources, seed))

    @property
    def _sources(self) -> tuple[str, ...]:
        return (*self.nodes, *self.controllers, CLIENT, OPERATOR)

    @property
    def parties(self) -> tuple[str, ...]:
        return (*self._sources, REGISTRY)

    async def start(self) -> None:
        """Opens all wires, and writes what the parties read. Idempotent."""
        for wire in self.wires:
            await wire.proxy.start()
        raw = yaml.safe_load(self._chain.config_path.read_text())
        folder = self._chain.folder / "parties"
        folder.mkdir(exist_ok=True)
        for party in self._sources:
            (folder / f"{party}.yaml").write_text(yaml.safe_dump(self._seen_by(party, raw), sort_keys=False))

    async def stop(self) -> None:
        """Closes all wires; idempotent."""
        for wire in self.wires:
            await wire.proxy.stop()

    def config(self, party: str) -> Config:
        """The chain as the party reaches it."""
        return load_config(self._chain.config_path_of(party), {})

    # Faults.

    def between(self, some: Collection[str], others: Collection[str]) -> list[Wire]:
        """The wires between two groups of parties, whoever opens the connections."""
        return [
            w
            for w in self.wires
            if (w.source in some and w.target in others) or (w.source in others and w.target in some)
        ]

    def lanes(self, sources: Collection[str], targets: Collection[str]) -> list[Lane]:
        """Where the bytes run that `sources` send to `targets`, whoever opened the connections."""
        there = [(w.proxy, Flow.REQUESTS) for w in self.wires if w.source in sources and w.target in targets]
        back = [(w.proxy, Flow.ANSWERS) for w in self.wires if w.source in targets and w.target in sources]
        return there + back

    async def heal(self) -> None:
        """Every wire as it was at the start."""
        for wire in self.wires:
            for flow in Flow:
                for toxic in wire.proxy.toxics(flow):
                    wire.proxy.remove(flow, toxic)
            await wire.proxy.set_down(False)

    # Addresses.

    def _seen_by(self, party: str, raw: Mapping[str, Any]) -> dict[str, Any]:
        own = {(w.target, w.service): w.proxy for w in self.wires if w.source == party}

        def holder(entry: Mapping[str, Any], target: str) -> dict[str, Any]:
            moved = dict(entry)
            # Passwords are found from where the file is; this one is in another folder.
            moved["password_file"] = str(_below(self._chain.folder, entry["password_file"]))
            if (target, "store") in own:
                moved["dsn"] = _through(entry["dsn"], own[target, "store"])
            if (target, "daemon") in own:
                host, port = own[target, "daemon"].address
                moved["http"] = f"{host}:{port}"
            return moved

        return {
            **raw,
            "registry": holder(raw["registry"], REGISTRY),
            "nodes": [holder(entry, entry["name"]) for entry in raw["nodes"]],
        }


def apply(lanes: Collection[Lane], toxic: Toxic) -> None:
    for proxy, flow in lanes:
        proxy.add(flow, toxic)


def lift(lanes: Collection[Lane], toxic: Toxic) -> None:
    """Takes back what `apply` did; where that was taken back already, nothing happens."""
    for proxy, flow in lanes:
        proxy.remove(flow, toxic)


def _wires(config: Config, sources: Collection[str], seed: int) -> Iterator[Wire]:
    """A node reaches its own server without a wire, and asks no other daemon for its word."""
    nodes = {n.name for n in config.nodes}
    for source in sources:
        registry = config.registry.dsn
        yield _wire(source, REGISTRY, "store", (registry.host, registry.port), seed)
        for node in config.nodes:
            if node.name != source:
                yield _wire(source, node.name, "store", (node.dsn.host, node.dsn.port), seed)
                if source not in nodes:
                    yield _wire(source, node.name, "daemon", (node.http.host, node.http.port), seed)


def _wire(source: str, target: str, service: str, upstream: tuple[str, int], seed: int) -> Wire:
    name = f"{source}→{target}/{service}"
    return Wire(source, target, service, Proxy(upstream, seed=hash_of(name, seed)))


def hash_of(name: str, seed: int) -> int:
    """The same in every process, unlike `hash`."""
    return seed * 1_000_003 + sum((n + 1) * byte for n, byte in enumerate(name.encode()))


def _through(dsn: str, proxy: Proxy) -> str:
    parts = urlsplit(dsn)
    host, port = proxy.address
    user = f"{parts.username}@" if parts.username else ""
    return urlunsplit(parts._replace(netloc=f"{user}{host}:{port}"))


def _below(folder: Path, path: str) -> Path:
    return folder.resolve() / path
