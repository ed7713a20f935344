"""Databases of one's own on the tests' Postgres server."""

from __future__ import annotations

import itertools
from urllib.parse import quote

import asyncpg

from chain.postgres.sessions import Connection
from failover.local.postgres import LocalPostgres

_numbers = itertools.count(1)


async def new_database(server: LocalPostgres) -> str:
    """A fresh database; gives its dsn."""
    name = f"test_{next(_numbers)}"
    admin = await connect(dsn(server, "postgres"))
    # Without fsync copying the files takes half the time that writing them through the log does.
    strategy = "strategy file_copy" if admin.get_server_version() >= (15,) else ""
    await admin.execute(f"create database {name} template template0 encoding 'UTF8' {strategy}")
    await admin.close()
    return dsn(server, name)


def dsn(server: LocalPostgres, database: str, *, user: str = "geochain", password: str | None = None) -> str:
    secret = quote(server.password() if password is None else password, safe="")
    return f"postgresql://{user}:{secret}@127.0.0.1:{server.port}/{database}?sslmode=disable"


async def connect(dsn: str) -> Connection:
    return await asyncpg.connect(dsn)
