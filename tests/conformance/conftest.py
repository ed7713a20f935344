"""Every promise is held against every adapter."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from chain.store import Store
from failover.local.postgres import LocalPostgres
from tests.conformance.stores import CopyingStores, MemoryStores, PostgresStores, Stores, head

KINDS = ("memory", "postgres")
TARGETS = (*KINDS, "postgres by COPY")


@pytest.fixture
async def each_kind(postgres_server: LocalPostgres) -> AsyncIterator[dict[str, Stores]]:
    kinds: dict[str, Stores] = {
        "memory": MemoryStores(),
        "postgres": PostgresStores(postgres_server),
        "postgres by COPY": CopyingStores(postgres_server),
    }
    yield kinds
    for stores in kinds.values():
        await stores.close()


@pytest.fixture(params=KINDS)
def stores(request: pytest.FixtureRequest, each_kind: dict[str, Stores]) -> Stores:
    return each_kind[request.param]


@pytest.fixture
async def store(stores: Stores) -> Store:
    """The head of epoch 1."""
    return await head(stores)


@pytest.fixture(params=[(source, target) for source in KINDS for target in TARGETS], ids="→".join)
def pair(request: pytest.FixtureRequest, each_kind: dict[str, Stores]) -> tuple[Stores, Stores]:
    """Stores for a source and stores for its target."""
    source, target = request.param
    return each_kind[source], each_kind[target]
