"""What goes wrong inside a node's database: by SQL, so on any chain that allows drills."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import asyncpg
from pydantic import Field

from failover.drills.faults.base import Fault, Party
from failover.drills.ground import BALLAST_STREAM, Ground, Undos
from failover.drills.leftovers import FAR, keep, put_back

Count = Annotated[int, Field(ge=1, le=10_000)]


class TerminatedBackends(Fault):
    """Every connection to a node's database is ended by its server, in the middle of what it does."""

    fault: Literal["terminate-backends"]
    target: Party

    async def inject(self, ground: Ground, undos: Undos) -> str:
        node = await ground.node(self.target)
        async with ground.sql(node) as connection:
            ended = await connection.fetchval(
                "select count(pg_terminate_backend(pid)) from pg_stat_activity"
                " where datname = current_database() and pid <> pg_backend_pid()"
            )
        return f"{node}: {ended} connections"


class ConnectionsExhausted(Fault):
    """All of a server's connections are taken, and others' ended, so that everybody needs a new one."""

    fault: Literal["connections-exhausted"]
    target: Party

    async def inject(self, ground: Ground, undos: Undos) -> str:
        node = await ground.node(self.target)
        taken: list[asyncpg.Connection[asyncpg.Record]] = []

        async def give_back() -> None:
            while taken:
                taken.pop().terminate()

        undos.add(f"give the connections of {node} back", give_back)
        async with ground.sql(node) as connection:
            most = int(await connection.fetchval("show max_connections"))
            for _ in range(2):  # what is ended leaves room for more
                await _take_all(ground, node, most, taken)
                await connection.execute(
                    "select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid()"
                    " and datname = current_database() and not pid = any($1::int[])",
                    [each.get_server_pid() for each in taken],
                )
            await _take_all(ground, node, most, taken)
        return f"{node}: {len(taken)} connections"


async def _take_all(
    ground: Ground, node: str, most: int, taken: list[asyncpg.Connection[asyncpg.Record]]
) -> None:
    dsn = ground.config.node(node).dsn.reveal()
    try:
        while len(taken) < most:
            taken.append(await asyncpg.connect(dsn, timeout=5.0))
    except (asyncpg.PostgresError, OSError, TimeoutError):
        return


class LongTransaction(Fault):
    """A transaction stays open on a node; with `locks_node` it holds the lock that every write needs."""

    fault: Literal["long-transaction"]
    target: Party
    locks_node: bool = False

    async def inject(self, ground: Ground, undos: Undos) -> str:
        node = await ground.node(self.target)
        connection = await ground.connect(node)

        async def give_up() -> None:
            connection.terminate()

        undos.add(f"end the transaction on {node}", give_up)
        await connection.execute("begin")
        await connection.execute("select count(*) from chain.event")
        if self.locks_node:
            await connection.execute("set lock_timeout = '5s'")
            await connection.execute("select * from chain.node for update")
        return f"{node}{', holding its row' if self.locks_node else ''}"


class _Rows(Fault):
    """Rows of the log, changed behind everybody's back. They are put back as they were, also by another if
    who changed them is killed (`failover.drills.leftovers`).
    """

    done: ClassVar[str]
    """What has become of them, for who finds them."""

    target: Party
    count: Count = 1

    async def inject(self, ground: Ground, undos: Undos) -> str:
        node = await ground.node(self.target)
        async with ground.sql(node) as connection:
            found = await connection.fetch(_BALLAST, BALLAST_STREAM)
            among = [row["position"] for row in found]
            chosen = sorted(ground.chance.sample(among, min(self.count, len(among))))
            kept: list[int] = []

            async def give_back() -> None:
                for nr in kept:
                    async with ground.sql(node) as again:
                        await put_back(again, nr)

            undos.add(f"put {_rows(len(chosen))} of {node} back", give_back)
            async with connection.transaction():
                kept.append(await keep(connection, f"{_rows(len(chosen))} {self.done}", chosen))
                await self.change(connection, chosen)
        return f"{node}, position {', '.join(map(str, chosen[:5]))}{' …' if len(chosen) > 5 else ''}"

    async def change(self, connection: Any, positions: list[int]) -> None:
        raise NotImplementedError


def _rows(count: int) -> str:
    return f"{count} row{'' if count == 1 else 's'}"


_BALLAST = "select position from chain.event where stream = $1 order by position limit 10000"
"""A drill alters nothing but events of its own."""


class AlteredRows(_Rows):
    """Events of a node's log say something else than they did."""

    fault: Literal["altered-rows"]
    done = "altered"

    async def change(self, connection: Any, positions: list[int]) -> None:
        await connection.execute(
            "update chain.event set data = '\\x666f72676564' where position = any($1)", positions
        )


class MissingRows(_Rows):
    """Events of a node's log are gone."""

    fault: Literal["missing-rows"]
    done = "deleted"

    async def change(self, connection: Any, positions: list[int]) -> None:
        await connection.execute("delete from chain.event where position = any($1)", positions)


class ExtraRows(_Rows):
    """Rows that nobody appended, far beyond the end of a node's log."""

    fault: Literal["extra-rows"]
    done = "copied beyond the end"

    async def change(self, connection: Any, positions: list[int]) -> None:
        await connection.execute(
            "insert into chain.event select position + $2, epoch, stream, revision + 1000000000,"
            " gen_random_uuid(), type, data, metadata, recorded_at from chain.event where position = any($1)",
            positions,
            FAR,
        )


class SwappedRows(_Rows):
    """Events of a node's log have changed places."""

    fault: Literal["swapped-rows"]
    done = "swapped"
    count: Annotated[int, Field(ge=2, le=10_000)] = 2

    async def change(self, connection: Any, positions: list[int]) -> None:
        for one, other in zip(positions[::2], positions[1::2], strict=False):
            for now, then in ((one, FAR), (other, one), (FAR, other)):
                await connection.execute(
                    "update chain.event set position = $2 where position = $1", now, then
                )
