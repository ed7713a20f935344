"""Opens what `chain.yaml` names: stores and the registry. The one place that knows which adapter is meant."""

from __future__ import annotations

from chain.client import Client
from chain.config import Config
from chain.postgres import PostgresLeases, PostgresLocks, PostgresStore
from chain.registry import Registry


def open_store(config: Config, node: str, *, timeout_s: float | None = None) -> PostgresStore:
    """The store of a node. Raises BadInput for a node that is not in the configuration."""
    return PostgresStore(
        config.node(node).dsn.reveal(),
        name=node,
        timeout_s=timeout_s or config.links.timeout,
        group_events=config.client.group_events,
    )


def open_registry(config: Config, *, timeout_s: float | None = None) -> Registry:
    """The registry of the chain. Who opens it closes it."""
    store = PostgresStore(
        config.registry.dsn.reveal(), name="the registry", timeout_s=timeout_s or config.links.timeout
    )
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
