"""Rows that a drill alters are kept on their node, and put back by anyone: exactly, and only in their log."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from chain.errors import Refused
from chain.event import Expect, NewEvent
from failover.drills.faults.stores import AlteredRows, ExtraRows, MissingRows, SwappedRows
from failover.drills.ground import BALLAST_STREAM
from failover.drills.leftovers import keep, put_back
from failover.local.postgres import LocalPostgres
from tests.conformance.stores import PostgresStores, head
from tests.databases import connect

ROWS = "select array_agg(e order by position)::text from chain.event e"


@pytest_asyncio.fixture(loop_scope="session")
async def node(postgres_server: LocalPostgres) -> AsyncIterator[Any]:
    """A connection to a head with 40 events of a drill's and one more, behind its back."""
    stores = PostgresStores(postgres_server)
    store = await head(stores)
    ballast = [NewEvent("Tested", bytes([0, n, 255]), b"\x00") for n in range(40)]
    await store.add(BALLAST_STREAM, Expect.ANY, ballast)
    await store.add("s", Expect.ANY, [NewEvent("Tested", b"behind it")])
    connection = await connect(stores.dsn(store))
    yield connection
    await connection.close()
    await stores.close()


async def altered(connection: Any, fault: Any, positions: list[int]) -> int:
    async with connection.transaction():
        nr = await keep(connection, "altered", positions)
        await fault.change(connection, positions)
    return nr


@pytest.mark.parametrize("kind", [AlteredRows, MissingRows, ExtraRows, SwappedRows])
async def test_rows_are_put_back_bit_for_bit_and_nothing_is_left(node: Any, kind: Any) -> None:
    before = await node.fetchval(ROWS)
    fault = kind(fault=kind.model_fields["fault"].annotation.__args__[0], target="head", count=2)
    nr = await altered(node, fault, [3, 5, 8, 41])
    assert await node.fetchval(ROWS) != before
    await put_back(node, nr)
    await put_back(node, nr)
    assert await node.fetchval(ROWS) == before
    assert await node.fetchval("select to_regclass('chain.drilled')") is None


async def test_faults_over_each_other_are_put_back_the_latest_first(node: Any) -> None:
    before = await node.fetchval(ROWS)
    one = await altered(node, AlteredRows(fault="altered-rows", target="head"), [3, 4, 5])
    other = await altered(node, MissingRows(fault="missing-rows", target="head"), [4, 5, 6])
    for nr in (other, one):
        await put_back(node, nr)
    assert await node.fetchval(ROWS) == before


async def test_one_is_put_back_while_another_beside_it_stays(node: Any) -> None:
    before = await node.fetchval(ROWS)
    one = await altered(node, AlteredRows(fault="altered-rows", target="head"), [3])
    other = await altered(node, MissingRows(fault="missing-rows", target="head"), [4])
    await put_back(node, one)
    assert await node.fetchval("select data from chain.event where position = 3") == bytes([0, 1, 255])
    await put_back(node, other)
    assert await node.fetchval(ROWS) == before


async def test_rows_that_nothing_follows_are_not_altered(node: Any) -> None:
    await node.execute("delete from chain.event where stream = 's'")
    with pytest.raises(Refused):
        await altered(node, AlteredRows(fault="altered-rows", target="head"), [3])
    assert await node.fetchval("select to_regclass('chain.drilled')") is None


async def test_who_is_killed_before_it_is_altered_leaves_nothing(node: Any) -> None:
    killed = node.transaction()
    await killed.start()
    await keep(node, "altered", [4])
    await killed.rollback()
    assert await node.fetchval("select to_regclass('chain.drilled')") is None


async def test_rows_of_another_log_are_never_put_into_this_one(node: Any) -> None:
    nr = await altered(node, AlteredRows(fault="altered-rows", target="head"), [3, 5])
    await node.execute("update chain.event set id = gen_random_uuid() where stream = 's'")
    other = await node.fetchval(ROWS)
    await put_back(node, nr)
    assert await node.fetchval(ROWS) == other
    assert await node.fetchval("select to_regclass('chain.drilled')") is None
