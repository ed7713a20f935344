"""message-db, by its own SQL functions, each caller on a connection of its own.

Its SQL comes with the npm package @eventide/message-db, installed into a folder of the bench's. Its installer
needs `pgcrypto` for nothing that Postgres 13 and later have not built in; servers without contrib do without.
Its lock is a category's: callers are spread over eight categories, or they would all wait for one.
"""

from __future__ import annotations

import shutil
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

import asyncpg

from bench.data import METADATA, payloads
from bench.measure import NotMeasured
from bench.peers.geochain import wants_conflict
from bench.programs import run
from bench.servers import connected
from bench.workload import Tally, Workload, drive
from chain.event import new_id

NAME: Final = "message-db"
PACKAGE: Final = "@eventide/message-db@1.3.1"
CATEGORIES: Final = 8

_HOME: Final = Path(__file__).resolve().parent.parent.parent / ".bench" / "message-db"
_SQL: Final = _HOME / "node_modules" / "@eventide" / "message-db" / "database"
# In the order of its install.sh, without the role, the views and the privileges.
_SCRIPTS: Final = (
    "schema/message-store",
    "tables/messages",
    "types/message",
    *(
        f"functions/{name}"
        for name in (
            "message-store-version",
            "hash-64",
            "acquire-lock",
            "category",
            "is-category",
            "id",
            "cardinal-id",
            "stream-version",
            "write-message",
            "get-stream-messages",
            "get-category-messages",
            "get-last-stream-message",
        )
    ),
    "indexes/messages-id",
    "indexes/messages-stream",
    "indexes/messages-category",
)
_WRITE: Final = "select write_message($1, $2, 'OrderPlaced', $3::text::jsonb, $4::text::jsonb, $5)"


async def install() -> None:
    """Once a checkout. Raises NotMeasured if it can't be had."""
    if (_SQL / "VERSION.txt").exists():
        return
    npm = shutil.which("npm")
    if npm is None:
        raise NotMeasured("its SQL comes by npm, which is not installed")
    _HOME.mkdir(parents=True, exist_ok=True)
    try:
        await run(_HOME, npm, "install", "--silent", "--no-save", "--prefix", str(_HOME), PACKAGE, wait_s=120)
    except (RuntimeError, TimeoutError, OSError) as error:
        raise NotMeasured(f"npm can't install {PACKAGE}: {error}") from error


async def prepare(dsn: str) -> None:
    await install()
    async with connected(dsn) as connection:
        database = await connection.fetchval("select quote_ident(current_database())")
        await connection.execute(f"alter database {database} set search_path = message_store, public")
        await connection.execute("set search_path = message_store, public; set client_min_messages = error")
        for script in _SCRIPTS:
            await connection.execute((_SQL / f"{script}.sql").read_text())


async def append(
    dsn: str, workload: Workload, process: int, wait_told: Callable[[], Awaitable[None]]
) -> Tally:
    """A batch is a transaction of as many calls: it has no other."""
    data = [body.decode() for body in payloads(256, workload.data_bytes)]
    metadata = METADATA.decode()
    last: dict[int, int] = {}
    async with AsyncExitStack() as stack:
        connections = [await stack.enter_async_context(connected(dsn)) for _ in range(workload.callers_each)]
        writes: list[asyncpg.prepared_stmt.PreparedStatement[asyncpg.Record]] = [
            await connection.prepare(_WRITE) for connection in connections
        ]

        async def one(caller: int, number: int) -> bool:
            stream, at = f"order{caller % CATEGORIES}-{process}x{caller}", last.get(caller, -1)
            if wants_conflict(number, workload.conflicts):
                at += 1
            try:
                if workload.batch == 1:
                    body = data[number % len(data)]
                    at = await writes[caller].fetchval(str(new_id()), stream, body, metadata, at)
                else:
                    first = number * workload.batch
                    async with connections[caller].transaction():
                        for n in range(first, first + workload.batch):
                            body = data[n % len(data)]
                            at = await writes[caller].fetchval(str(new_id()), stream, body, metadata, at)
            except asyncpg.RaiseError:
                return False
            last[caller] = at
            return True

        return await drive(one, workload, wait_told)
