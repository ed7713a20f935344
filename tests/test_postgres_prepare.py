"""What `prepare` promises: the current schema or none, and never somebody else's database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from chain.errors import BadConfig, Refused, Unavailable
from chain.postgres import PostgresStore
from chain.postgres.sessions import Connection
from chain.store import Identity
from failover.local.postgres import LocalPostgres
from tests.conformance.stores import CHAIN, ONE
from tests.databases import connect, dsn, new_database

IDENTITY = Identity(CHAIN, "a")


@pytest.fixture
async def database(postgres_server: LocalPostgres) -> AsyncIterator[tuple[PostgresStore, Connection]]:
    """A store that is not prepared yet, and a connection behind its back."""
    where = await new_database(postgres_server)
    store, connection = PostgresStore(where, name="a"), await connect(where)
    yield store, connection
    connection.terminate()
    await store.close()


async def schema(connection: Connection) -> object:
    return await connection.fetch("select name, checksum, applied_at from chain.migration order by name")


async def test_again_it_changes_nothing(database: tuple[PostgresStore, Connection]) -> None:
    store, behind = database
    await store.prepare(IDENTITY)
    before = await schema(behind)
    await store.prepare(IDENTITY)
    assert await schema(behind) == before


async def test_many_at_once_do_it_once(postgres_server: LocalPostgres) -> None:
    where = await new_database(postgres_server)
    stores = [PostgresStore(where, name="a") for _ in range(6)]
    await asyncio.gather(*(store.prepare(IDENTITY) for store in stores))
    assert (await stores[0].state()).identity == IDENTITY
    for store in stores:
        await store.close()


async def test_changed_functions_are_loaded_again_and_locked_down(
    database: tuple[PostgresStore, Connection],
) -> None:
    store, behind = database
    await store.prepare(IDENTITY)
    await store.promote(ONE, uuid4())
    await behind.execute(
        "create or replace function chain.fence(p_epoch bigint)"
        " returns table (tip_position bigint, tip_epoch bigint) language sql as 'select 99, 99';"
        "update chain.migration set checksum = 'older' where name = 'functions/fence.sql'"
    )
    await store.prepare(IDENTITY)
    assert (await store.fence(ONE)).position == 1
    unpinned = await behind.fetch(
        "select proname from pg_proc where pronamespace = 'chain'::regnamespace"
        " and prokind = 'f' and not 'search_path=pg_catalog, pg_temp' = any(coalesce(proconfig, '{}'))"
    )
    assert unpinned == []


async def test_a_migration_that_is_not_ours_is_refused(database: tuple[PostgresStore, Connection]) -> None:
    store, behind = database
    await store.prepare(IDENTITY)
    await behind.execute("update chain.migration set checksum = 'x' where name like 'migrations/%'")
    with pytest.raises(Refused, match="is not the one"):
        await store.prepare(IDENTITY)


async def test_a_newer_schema_is_refused(database: tuple[PostgresStore, Connection]) -> None:
    store, behind = database
    await store.prepare(IDENTITY)
    await behind.execute(
        "insert into chain.migration (name, checksum) values ('migrations/9999_more.sql', 'x')"
    )
    with pytest.raises(Refused, match="newer than this program"):
        await store.prepare(IDENTITY)


async def test_another_encoding_is_refused(postgres_server: LocalPostgres) -> None:
    admin = await connect(dsn(postgres_server, "postgres"))
    await admin.execute("drop database if exists latin")
    await admin.execute("create database latin encoding 'LATIN1' template template0 locale 'C'")
    await admin.close()
    store = PostgresStore(dsn(postgres_server, "latin"), name="a")
    with pytest.raises(BadConfig, match="LATIN1"):
        await store.prepare(IDENTITY)
    await store.close()


async def test_a_role_that_may_not_create_is_refused_and_nothing_is_changed(
    postgres_server: LocalPostgres, database: tuple[PostgresStore, Connection]
) -> None:
    _, behind = database
    await behind.execute("drop role if exists guest; create role guest login password 'guest'")
    name = await behind.fetchval("select current_database()")
    guest = PostgresStore(dsn(postgres_server, name, user="guest", password="guest"), name="a")
    with pytest.raises(Refused, match="permission denied"):
        await guest.prepare(IDENTITY)
    assert await behind.fetchval("select to_regnamespace('chain') is null")
    await guest.close()


async def test_a_wrong_password_or_database_is_a_matter_of_configuration(
    postgres_server: LocalPostgres,
) -> None:
    for where in (
        dsn(postgres_server, "postgres", password="wrong"),
        dsn(postgres_server, "no_such_database"),
    ):
        store = PostgresStore(where, name="a")
        with pytest.raises(BadConfig):
            await store.prepare(IDENTITY)
        await store.close()


async def test_a_closed_store_connects_no_more(database: tuple[PostgresStore, Connection]) -> None:
    store, behind = database
    await store.prepare(IDENTITY)
    await store.close()
    await store.close()
    with pytest.raises(Unavailable, match="closed"):
        await store.tip()
    async with asyncio.timeout(5):
        while await behind.fetchval(
            "select count(*) from pg_stat_activity where application_name = 'geochain a'"
            " and datname = current_database()"
        ):
            await asyncio.sleep(0.01)
