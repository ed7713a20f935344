"""Opens what `chain.yaml` names: stores and the registry. The one place that knows which adapter is meant."""

from __future__ import annotations

from typing import Final

from chain.client import Client
from chain.config import Config, Dsn
from chain.postgres import PostgresLeases, PostgresLocks, PostgresStore
from chain.registry import Registry

_SEGMENT_S: Final = 30.0
"""In which a node can read a segment of large events."""


def open_store(config: Config, node: str, *, timeout_s: float | None = None) -> PostgresStore:
    """The store of a node. Raises BadInput for a node that is not in the configuration."""
    return PostgresStore(
        config.node(node).dsn.reveal(),
        name=node,
        timeout_s=timeout_s or config.links.timeout,
        group_events=config.client.group_events,
    )


def open_store_for_verifier(config: Config, node: str) -> PostgresStore:
    """The store of a node for who only reads it. Raises BadInput for an unknown node."""
    dsn = config.verify.login(config.node(node).dsn)
    return PostgresStore(dsn.reveal(), name=node, timeout_s=_SEGMENT_S, sessions=8)


def open_registry_for_verifier(config: Config) -> Registry:
    """The registry for who only reads it. Who opens it closes it."""
    return _registry(config, config.verify.login(config.registry.dsn), None)


def open_registry(config: Config, *, timeout_s: float | None = None) -> Registry:
    """The registry of the chain. Who opens it closes it."""
    return _registry(config, config.registry.dsn, timeout_s)


def _registry(config: Config, dsn: Dsn, timeout_s: float | None) -> Registry:
    store = PostgresStore(dsn.reveal(), name="the registry", timeout_s=timeout_s or config.links.timeout)
    return Registry(store, PostgresLocks(store), PostgresLeases(store), config.chain)


def open_client(config: Config, *, deadline_s: float | None = None) -> Client:
    """A client of the chain, with the registry's word for what is decided. Who opens it closes it."""
    registry = open_registry(config)
    return Client(
        {node.name: node.region for node in config.nodes},
        lambda node: open_store(config, node),
        topology=registry.topology,
        deadline_s=deadline_s or config.client.deadline,
        on_close=registry.close,
    )
