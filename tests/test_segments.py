"""Notes of segments on Postgres: no truncation and no note ever pass each other."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from chain.event import Expect, NewEvent, Position
from chain.postgres import PostgresStore
from chain.store import Store
from failover.local.postgres import LocalPostgres
from tests.databases import connect, new_database
from tests.planted import COUNT, filled
from tests.support import wait_until

TIP = Position(COUNT)
REFERENCE = Path(__file__).parent.parent / "docs" / "reference.md"


@pytest.fixture
async def pair(postgres_server: LocalPostgres) -> AsyncIterator[dict[str, Store]]:
    stores: dict[str, Store] = {
        node: PostgresStore(await new_database(postgres_server), name=node) for node in ("a", "b")
    }
    await filled(stores)
    yield stores
    for store in stores.values():
        await store.close()


async def test_a_note_waits_for_a_truncation_and_then_notes_nothing_of_what_is_gone(
    pair: dict[str, Store], postgres_server: LocalPostgres
) -> None:
    store = pair["b"]
    assert isinstance(store, PostgresStore)
    agreed = (await store.digest(Position(1), TIP)).value
    await store.seal(1, TIP, agreed)
    behind = await connect(store._sessions._dsn)
    truncation = behind.transaction()
    await truncation.start()
    await behind.execute(f"select chain.give_up(1, 'a', {TIP}, 1, {TIP - 5})")
    noting = asyncio.create_task(store.seal(1, TIP, agreed))

    async def waits() -> bool:
        row = await store.row(
            "select count(*) from pg_locks where relation = 'chain.segment'::regclass and not granted"
        )
        return int(row[0]) == 1

    await wait_until("the note waits", waits)
    await truncation.commit()
    checked = await noting
    assert checked.digest.count == TIP - 5
    assert await store.seals() == ()
    await behind.close()


async def test_a_truncation_that_is_taken_back_takes_no_note(
    pair: dict[str, Store], postgres_server: LocalPostgres
) -> None:
    store = pair["b"]
    assert isinstance(store, PostgresStore)
    await store.seal(1, TIP, (await store.digest(Position(1), TIP)).value)
    behind = await connect(store._sessions._dsn)
    truncation = behind.transaction()
    await truncation.start()
    await behind.execute(f"select chain.give_up(1, 'a', {TIP}, 1, {TIP - 5})")
    await truncation.rollback()
    assert (await store.verified()).position == TIP
    await behind.close()


async def test_the_digest_is_what_the_reference_says_in_sql(pair: dict[str, Store]) -> None:
    store = pair["a"]
    assert isinstance(store, PostgresStore)
    await store.add("große", Expect.ANY, [NewEvent("Typ", b"x" * size, b"y" * size) for size in (1024, 1025)])
    (sql,) = re.findall(r"^    (select sha512\(.*?between 1 and 16384);", REFERENCE.read_text(), re.S | re.M)
    row = await store.row(sql)
    assert row[0] == (await store.digest(Position(1), Position(16_384))).value
