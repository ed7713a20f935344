"""Brings a database to the current schema `chain`, and names the node that lives there.

Numbered migrations run once each, in order, and never change: their checksums are kept. Functions and views
are loaded again whenever their text changed. All of it is one transaction under an advisory lock, so that it
happens wholly or not at all, however many daemons start at once.
"""

from __future__ import annotations

import hashlib
from importlib.resources import files
from typing import Final

from chain.errors import BadConfig, Refused, WrongIdentity
from chain.postgres.sessions import Connection
from chain.store import Identity

MIN_SERVER_VERSION: Final = 140000
_LOCK: Final = 0x67656F636861696E  # the bytes of "geochain"

_BOOKKEEPING: Final = """
create schema if not exists chain;
create table if not exists chain.migration (
    name       text        not null primary key,
    checksum   text        not null,
    applied_at timestamptz not null default now()
);
"""


async def prepare(connection: Connection, identity: Identity) -> None:
    """Raises BadConfig, Refused, WrongIdentity; then nothing was changed."""
    await _check_server(connection)
    async with connection.transaction():
        await connection.execute("select pg_advisory_xact_lock($1)", _LOCK)
        if await connection.fetchval("select to_regclass('chain.migration') is null"):
            await connection.execute(_BOOKKEEPING)
        await _migrate(connection)
        await _name(connection, identity)


async def _check_server(connection: Connection) -> None:
    encoding = await connection.fetchval("select current_setting('server_encoding')")
    if encoding != "UTF8":
        raise BadConfig(
            f"the database's encoding is {encoding}",
            hint="create it with: create database … encoding 'UTF8' template template0",
        )
    version = await connection.fetchval("select current_setting('server_version_num')::int")
    if version < MIN_SERVER_VERSION:
        raise BadConfig(f"the server is PostgreSQL {version // 10000}; 14 is the oldest that will do")


async def _migrate(connection: Connection) -> None:
    applied: dict[str, str] = {
        row["name"]: row["checksum"]
        for row in await connection.fetch("select name, checksum from chain.migration")
    }
    migrations = _scripts("migrations")
    unknown = sorted(name for name in applied if name.startswith("migrations/") and name not in migrations)
    if unknown:
        raise Refused(
            f"the schema is newer than this program: it has {unknown[-1]}", hint="upgrade geochain here"
        )
    for name, text in migrations.items():
        if name not in applied:
            await _run(connection, name, text)
        elif applied[name] != _checksum(text):
            raise Refused(f"{name} is not the one that this database was made with")

    repeatable = {**_scripts("functions"), **_scripts("views")}
    if any(applied.get(name) != _checksum(text) for name, text in repeatable.items()):
        for name, text in repeatable.items():
            await _run(connection, name, text)
        await connection.execute(_read("pin_search_path.sql"))


async def _name(connection: Connection, identity: Identity) -> None:
    row = await connection.fetchrow("select chain, node from chain.node for update")
    if row is None:
        raise Refused("chain.node has lost its row", hint="restore the node, or wipe and bootstrap it")
    if row["node"] is None:
        await connection.execute("update chain.node set chain = $1, node = $2", identity.chain, identity.node)
    elif (row["chain"], row["node"]) != (identity.chain, identity.node):
        raise WrongIdentity(
            f"this database is node {row['chain']}/{row['node']}, not {identity}",
            hint="check the dsn in chain.yaml; to reuse the database, drop its schema `chain` first",
        )


async def _run(connection: Connection, name: str, text: str) -> None:
    await connection.execute(text)
    await connection.execute(
        "insert into chain.migration (name, checksum) values ($1, $2)"
        " on conflict (name) do update set checksum = excluded.checksum, applied_at = now()",
        name,
        _checksum(text),
    )


def _scripts(folder: str) -> dict[str, str]:
    entries = sorted(files("chain.postgres").joinpath("sql", folder).iterdir(), key=lambda f: f.name)
    return {f"{folder}/{f.name}": f.read_text("utf-8") for f in entries if f.name.endswith(".sql")}


def _read(name: str) -> str:
    return files("chain.postgres").joinpath("sql", name).read_text("utf-8")


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
