"""Opens what `chain.yaml` names: stores and the registry. The one place that knows which adapter is meant."""

from __future__ import annotations

from chain.config import Config
from chain.postgres import PostgresLocks, PostgresStore
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
    return Registry(store, PostgresLocks(store), config.chain)
