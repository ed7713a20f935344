"""The servers of a run: real ones, each started when it is first asked for, all with the same settings.

Everything lives in one folder. When the block of `servers` ends, however it ends, nothing of it is left.
"""

from __future__ import annotations

import asyncio
import itertools
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeAlias
from urllib.parse import quote

import asyncpg

from failover.local import processes
from failover.local.postgres import LocalPostgres

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

SETTINGS: Final = {
    "shared_buffers": "512MB",
    "max_wal_size": "4GB",
    "checkpoint_timeout": "15min",
    "max_connections": "150",
    # Native logical replication needs it; so all pay for it.
    "wal_level": "logical",
    "max_wal_senders": "10",
    "max_replication_slots": "10",
}
"""What differs from the local chain's servers. Nothing about durability: fsync, synchronous_commit and
full_page_writes are on, as they are by default."""

_STATEMENT_S: Final = 1800.0


@dataclass(slots=True)
class Servers:
    """Servers by name. Those of one name share nothing with those of another but the machine."""

    folder: Path
    _started: dict[str, LocalPostgres] = field(default_factory=dict)
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    async def get(self, name: str) -> LocalPostgres:
        if name not in self._started:
            server = LocalPostgres(self.folder / name, password_file=self.folder / "password")
            await server.init()
            await server.start(processes.free_port(), settings=SETTINGS)
            self._started[name] = server
        return self._started[name]

    async def stop(self, name: str) -> None:
        """Ends a server, and removes it."""
        server = self._started.pop(name, None)
        if server is not None:
            await server.kill()
            await asyncio.to_thread(shutil.rmtree, server.folder, ignore_errors=True)

    async def dsn(self, name: str, database: str) -> str:
        server = await self.get(name)
        secret = quote(server.password(), safe="")
        return f"postgresql://geochain:{secret}@127.0.0.1:{server.port}/{database}?sslmode=disable"

    async def new_database(self, name: str) -> str:
        """A fresh database on the server; gives its dsn."""
        database = f"bench_{next(self._numbers)}"
        await self.execute(
            await self.dsn(name, "postgres"), f"create database {database} template template0 encoding 'UTF8'"
        )
        return await self.dsn(name, database)

    async def copy_database(self, name: str, dsn: str) -> str:
        """A copy, file by file, of a database of the server that nobody uses now; gives its dsn."""
        original, copy = _database(dsn), f"bench_{next(self._numbers)}"
        await self.execute(
            await self.dsn(name, "postgres"),
            "checkpoint",
            f"create database {copy} template {original} strategy file_copy",
        )
        return await self.dsn(name, copy)

    @asynccontextmanager
    async def database(self, name: str) -> AsyncIterator[str]:
        """A fresh database for the time of the block; gives its dsn."""
        dsn = await self.new_database(name)
        try:
            yield dsn
        finally:
            await self.drop(name, dsn)

    async def drop(self, name: str, dsn: str) -> None:
        admin = await self.dsn(name, "postgres")
        await self.execute(admin, f"drop database if exists {_database(dsn)} with (force)")
        # What dropping leaves to do is done now, and not while the next one is measured.
        await self.execute(admin, "checkpoint")

    async def execute(self, dsn: str, *statements: str) -> None:
        """Each statement by itself."""
        async with connected(dsn) as connection:
            for statement in statements:
                await connection.execute(statement, timeout=_STATEMENT_S)


def _database(dsn: str) -> str:
    return dsn.rpartition("/")[2].partition("?")[0]


@asynccontextmanager
async def connected(dsn: str) -> AsyncIterator[Connection]:
    connection = await asyncpg.connect(dsn, timeout=10)
    try:
        yield connection
    finally:
        await connection.close(timeout=10)


def _new_folder(parent: Path) -> Path:
    parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="geochain-bench-", dir=parent))
    folder.chmod(0o755)  # servers may run under another account
    return folder


@asynccontextmanager
async def servers(parent: Path) -> AsyncIterator[Servers]:
    """Servers in a folder of their own below `parent`."""
    folder = _new_folder(parent)
    try:
        yield Servers(folder)
    finally:
        # Not awaited: this must happen in a run that is being cancelled, too.
        processes.kill_all(folder)
        shutil.rmtree(folder, ignore_errors=True)
