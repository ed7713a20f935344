"""The event store on PostgreSQL: a thin, fast layer over the SQL functions of the schema `chain`.

What is guaranteed is guaranteed there, in the transaction, for every program in every language; this class
adds connections with bounded waits, group commit, and pass-through copying.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from chain.encoding import ENCODING
from chain.errors import NotPrepared
from chain.event import (
    EMPTY,
    EPOCH_STREAM,
    Appended,
    Epoch,
    Event,
    Expected,
    NewEvent,
    Position,
    Revision,
    Tip,
    check_append,
)
from chain.history import History, read_history, reign_event
from chain.postgres import migrate
from chain.postgres.appender import IN_FLIGHT, Appender
from chain.postgres.copying import Copying
from chain.postgres.hints import Hints
from chain.postgres.rows import EVENT, SETTLED, TIPPED, event_of, tip_of
from chain.postgres.sessions import Connection, Sessions
from chain.postgres.verifying import Verifying
from chain.store import DeadEvent, Ground, Identity, NodeState, Page, Progress, Role

PAGE_EVENTS: Final = 1000
PAGE_BYTES: Final = 16 * 1024 * 1024
IDLE_S: Final = 1.0


def _page_query(table: str, where: str, order: str, more: str = "") -> str:
    """Rows in order, at most $1 and no more behind the one that reaches PAGE_BYTES."""
    return (
        f"select {EVENT}{more} from ("
        f"select *, sum(octet_length(data) + octet_length(metadata))"
        f" over (order by {order} rows between unbounded preceding and 1 preceding) as bytes_before"
        f" from {table} where {where} order by {order} limit $1"
        f") as page where coalesce(bytes_before, 0) < {PAGE_BYTES} order by {order}"
    )


_LOG: Final = _page_query("chain.event", f"position > $2 and {TIPPED} and {SETTLED}", "position")
_GET: Final = _page_query("chain.event", f"stream = $2 and revision >= $3 and {SETTLED}", "revision")
_TIP: Final = f"select tip_position, tip_epoch from chain.node where {SETTLED}"
_DEAD: Final = _page_query(
    "chain.dead", "(epoch, position) > ($2, $3)", "epoch, position", more=", node, fork"
)
# Both in one statement: the way to a far node is what it takes.
_HISTORY: Final = (
    f"select {EVENT}, tip_position, tip_epoch from (select tip_position, tip_epoch from chain.node) as node"
    f" left join chain.event on stream = '{EPOCH_STREAM}' and position <= tip_position"
    f" where {SETTLED} order by revision"
)


class PostgresStore(Copying, Verifying):
    """One node's log in the database at `dsn`. Connects when first used; `close` ends it.

    `name` is what errors call it. Every call ends within `timeout_s`, by Unavailable if not otherwise.
    """

    encoding = ENCODING

    def __init__(
        self,
        dsn: str,
        *,
        name: str,
        timeout_s: float = 10.0,
        sessions: int = 10,
        group_events: int = 4096,
    ) -> None:
        self.name = name
        self._sessions = Sessions(dsn, name=name, size=sessions, timeout_s=timeout_s)
        self._appender = Appender(
            Sessions(dsn, name=name, size=IN_FLIGHT, timeout_s=timeout_s), group_events=group_events
        )
        self._hints = Hints(self._sessions)

    async def close(self) -> None:
        await self._appender.close()
        await self._hints.close()
        await self._sessions.close()

    # The log, for applications.

    async def get(self, stream: str, revision: Revision = Revision(0), limit: int = PAGE_EVENTS) -> Page:
        events, more = await self._page(_GET, limit, stream, revision)
        return Page(events, events[-1].revision + 1 if events else revision, at_tip=not more)

    async def add(self, stream: str, expected: Expected, events: Sequence[NewEvent]) -> Appended:
        check_append(stream, events)
        return await self._appender.add(stream, expected, events)

    async def append_system(self, stream: str, expected: Expected, events: Sequence[NewEvent]) -> Appended:
        check_append(stream, events, system=True)
        return await self._appender.add(stream, expected, events)

    async def log(self, after: Position = Position(0), limit: int = PAGE_EVENTS) -> Page:
        events, more = await self._page(_LOG, limit, after)
        return Page(events, events[-1].position if events else after, at_tip=not more)

    async def follow(self, after: Position = Position(0)) -> AsyncIterator[Page]:
        while True:
            page = await self.log(after)
            if page.events:
                yield page
                after = Position(page.next)
            else:
                await self.wait(after, IDLE_S)

    async def tip(self) -> Tip:
        async with self._sessions.use() as connection:
            return tip_of(await connection.fetchrow(_TIP))

    async def at(self, position: Position) -> Event | None:
        async with self._sessions.use() as connection:
            row = await connection.fetchrow(
                f"select {EVENT} from chain.event where position = $1 and {SETTLED}", position
            )
        return None if row is None else event_of(row)

    # The log, for links.

    async def history(self) -> History:
        async with self._sessions.use() as connection:
            rows = await connection.fetch(_HISTORY)
        events = [event_of(row) for row in rows if row["position"] is not None]
        return read_history(events, tip_of(rows[0] if rows else None))

    async def give_up(self, fork: Position, tip: Tip, epoch: Epoch, upstream: str) -> int:
        async with self._sessions.use(writes=True) as connection:
            count = await connection.fetchval(
                "select chain.give_up($1, $2, $3, $4, $5)", epoch, upstream, tip.position, tip.epoch, fork
            )
        return int(count)

    async def dead_branch(self, after: Tip = EMPTY, limit: int = 100) -> tuple[DeadEvent, ...]:
        async with self._sessions.use() as connection:
            rows = await connection.fetch(_DEAD, limit, after.epoch, after.position)
        return tuple(DeadEvent(event_of(row), row["node"], Position(row["fork"])) for row in rows)

    async def holds(self, ids: Sequence[UUID]) -> frozenset[UUID]:
        async with self._sessions.use() as connection:
            rows = await connection.fetch("select id from chain.event where id = any($1)", list(ids))
        return frozenset(row["id"] for row in rows)

    async def release(self, dead: Sequence[DeadEvent]) -> None:
        # By place, not by id alone: a requeued event can die again, on another branch.
        async with self._sessions.use(writes=True) as connection:
            await connection.execute(
                "delete from chain.dead d using unnest($1::uuid[], $2::bigint[], $3::bigint[])"
                " as r (id, position, epoch)"
                " where (d.id, d.position, d.epoch) = (r.id, r.position, r.epoch)",
                [d.event.id for d in dead],
                [d.event.position for d in dead],
                [d.event.epoch for d in dead],
            )

    async def wait(self, after: Position, timeout_s: float) -> None:
        await self._hints.wait(after, timeout_s)

    async def tell(self, progress: Mapping[str, Tip]) -> None:
        async with self._sessions.use() as connection:
            await connection.execute(
                "select chain.tell($1, $2, $3)",
                list(progress),
                [tip.position for tip in progress.values()],
                [tip.epoch for tip in progress.values()],
            )

    async def progress(self) -> Mapping[str, Progress]:
        async with self._sessions.use() as connection:
            rows = await connection.fetch("select node, position, epoch, told_at from chain.progress")
        return {
            row["node"]: Progress(Tip(Position(row["position"]), Epoch(row["epoch"])), row["told_at"])
            for row in rows
        }

    # The node, for those who govern it.

    async def prepare(self, identity: Identity) -> None:
        async with self._sessions.use(writes=True) as connection:
            await migrate.prepare(connection, identity)

    async def state(self) -> NodeState:
        async with self._sessions.use() as connection:
            row = await connection.fetchrow("select * from chain.state")
        tip = tip_of(row)
        if row is None or "loading" not in row:
            raise NotPrepared(
                f"{self.name} has an older schema", hint="start its daemon: it brings it up to date"
            )
        return NodeState(
            identity=Identity(row["chain"], row["node"]) if row["node"] else None,
            role=Role(row["role"]),
            epoch=Epoch(row["epoch"]),
            reign=Epoch(row["reign"]),
            promotion=row["promotion"],
            upstream=row["upstream"],
            tip=tip,
            clock=row["clock"],
            restarted=row["restarted"],
            clock_is_back=row["clock_is_back"],
            lease_left_s=row["lease_left"],
            promised=row["promised"],
            loading=row["loading"],
        )

    async def fence(self, epoch: Epoch) -> Tip:
        async with self._sessions.use(writes=True) as connection:
            return tip_of(await connection.fetchrow("select * from chain.fence($1)", epoch))

    async def promote(
        self,
        epoch: Epoch,
        promotion: UUID,
        lease_until: datetime | None = None,
        *,
        ground: Ground | None = None,
    ) -> Tip:
        data = reign_event(epoch, promotion, self.name).data
        async with self._sessions.use(writes=True) as connection:
            row = await connection.fetchrow(
                "select * from chain.promote($1, $2, $3, $4, $5, $6, $7)",
                epoch,
                promotion,
                data,
                lease_until,
                ground and ground.tip.position,
                ground and ground.tip.epoch,
                ground and ground.clock,
            )
        return tip_of(row)

    async def renew(self, epoch: Epoch, read_at: datetime, duration: timedelta | None) -> None:
        async with self._sessions.use(writes=True) as connection:
            await connection.execute("select chain.renew($1, $2, $3)", epoch, read_at, duration)

    async def lapse(self, epoch: Epoch, until: datetime) -> bool:
        async with self._sessions.use(writes=True) as connection:
            return bool(await connection.fetchval("select chain.lapse($1, $2)", epoch, until))

    async def promise(self, epoch: Epoch, duration: timedelta) -> None:
        async with self._sessions.use(writes=True) as connection:
            await connection.execute("select chain.promise($1, $2)", epoch, duration)

    async def follow_upstream(self, epoch: Epoch, upstream: str, role: Role) -> None:
        async with self._sessions.use(writes=True) as connection:
            await connection.execute("select chain.follow_upstream($1, $2, $3)", epoch, upstream, role.value)

    async def detach(self, epoch: Epoch) -> None:
        async with self._sessions.use(writes=True) as connection:
            await connection.execute("select chain.detach($1)", epoch)

    # Beside the log.

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Connection]:
        """A connection of the caller's own, for what must live as long as a session: an advisory lock."""
        connection = await self._sessions.connect()
        try:
            yield connection
        finally:
            connection.terminate()

    async def row(self, query: str, *arguments: object, writes: bool = False) -> Any:
        """One row of a query, or None, for what keeps its own tables beside the log."""
        async with self._sessions.use(writes=writes) as connection:
            return await connection.fetchrow(query, *arguments)

    async def _page(self, query: str, limit: int, *start: object) -> tuple[tuple[Event, ...], bool]:
        """At most `limit` events and PAGE_BYTES, and whether there may be more."""
        async with self._sessions.use() as connection:
            rows = await connection.fetch(query, limit, *start)
        events = tuple(map(event_of, rows))
        more = len(events) == limit or sum(len(e.data) + len(e.metadata) for e in events) >= PAGE_BYTES
        return events, more
