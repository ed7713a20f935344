"""The event store on PostgreSQL: a thin, fast layer over the SQL functions of the schema `chain`.

What is guaranteed is guaranteed there, in the transaction, for every program in every language; this class
adds connections with bounded waits, group commit, and pass-through copying.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from chain.encoding import COLUMNS, ENCODING, split_first
from chain.errors import Corrupt, StaleLink
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
from chain.postgres.appender import Appender
from chain.postgres.hints import Hints
from chain.postgres.sessions import Connection, Sessions
from chain.store import Batch, DeadEvent, Digest, Identity, NodeState, Page, Progress, Role

PAGE_EVENTS: Final = 1000
PAGE_BYTES: Final = 16 * 1024 * 1024
IDLE_S: Final = 1.0

_EVENT: Final = ", ".join(COLUMNS)
_COPY: Final = ", ".join(
    f"case when position = :after then '' else {column} end" if column in ("data", "metadata") else column
    for column in COLUMNS
)


def _page_query(table: str, where: str, order: str, more: str = "") -> str:
    """Rows in order, at most $1 and no more behind the one that reaches PAGE_BYTES."""
    return (
        f"select {_EVENT}{more} from ("
        f"select *, sum(octet_length(data) + octet_length(metadata))"
        f" over (order by {order} rows between unbounded preceding and 1 preceding) as bytes_before"
        f" from {table} where {where} order by {order} limit $1"
        f") as page where coalesce(bytes_before, 0) < {PAGE_BYTES} order by {order}"
    )


_LOG: Final = _page_query("chain.event", "position > $2", "position")
_GET: Final = _page_query("chain.event", "stream = $2 and revision >= $3", "revision")
_DEAD: Final = _page_query(
    "chain.dead", "(epoch, position) > ($2, $3)", "epoch, position", more=", node, fork"
)
# A COPY stream's header and trailer, and a row of it without its stream, type, data and metadata.
_COPY_BYTES: Final = 19 + 2
_COPY_ROW_BYTES: Final = 2 + 9 * 4 + 4 * 8 + 16
_FITTING: Final = """
    select count(*)
      from (select sum(octet_length(stream) + octet_length(type) + octet_length(data) + octet_length(metadata)
                       + $4) over (order by position rows unbounded preceding) as bytes
              from chain.event where position > $1 order by position limit $2) as batch
     where bytes <= $3
"""


class PostgresStore:
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
        sessions: int = 4,
        group_events: int = 4096,
    ) -> None:
        self.name = name
        self._sessions = Sessions(dsn, name=name, size=sessions, timeout_s=timeout_s)
        self._appender = Appender(
            Sessions(dsn, name=name, size=1, timeout_s=timeout_s), group_events=group_events
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
            return _tip(await connection.fetchrow("select tip_position, tip_epoch from chain.node"))

    async def at(self, position: Position) -> Event | None:
        async with self._sessions.use() as connection:
            row = await connection.fetchrow(f"select {_EVENT} from chain.event where position = $1", position)
        return None if row is None else _event(row)

    # The log, for links.

    async def history(self) -> History:
        # The tip first: a promotion in between then adds a reign that lies beyond the tip, never a tip
        # beyond its reign.
        tip = await self.tip()
        events: list[Event] = []
        page = await self.get(EPOCH_STREAM)
        while page.events:
            events += (event for event in page.events if event.position <= tip.position)
            page = await self.get(EPOCH_STREAM, Revision(page.next))
        return read_history(events, tip)

    async def read(self, after: Position, limit: int, max_bytes: int) -> Batch:
        while True:
            try:
                return await self._read(after, limit, max_bytes)
            except _TooManyBytes:
                limit = await self._fitting(after, limit, max_bytes)

    async def _fitting(self, after: Position, limit: int, max_bytes: int) -> int:
        """How many events behind `after` fit into `max_bytes`; 1 if none does."""
        async with self._sessions.use() as connection:
            count = await connection.fetchval(
                _FITTING, after, limit, max_bytes - _COPY_BYTES, _COPY_ROW_BYTES
            )
        return max(1, int(count))

    async def _read(self, after: Position, limit: int, max_bytes: int) -> Batch:
        chunks: list[bytes] = []
        size = 0

        async def collect(chunk: bytes) -> None:
            nonlocal size
            size += len(chunk)
            if size > max_bytes and limit > 1:
                raise _TooManyBytes
            chunks.append(chunk)

        # The event at `after` comes first, without its payload: it tells, in the same snapshot as the
        # others, on which branch they are.
        async with self._sessions.use() as connection:
            tag = await connection.copy_from_query(
                f"select {_COPY} from chain.event where position >= {int(after)}"
                f" order by position limit {int(limit) + (after > 0)}".replace(":after", str(int(after))),
                output=collect,
                format="binary",
            )
        count = _copied(tag)
        if after == 0:
            return Batch(after, Epoch(0), count, tuple(chunks), at_tip=count < limit)
        if count == 0:
            raise StaleLink(f"the log of {self.name} does not come up to position {after}")
        previous, rest = split_first(chunks)
        if previous.position != after:
            raise StaleLink(f"the log of {self.name} has no event at position {after}")
        return Batch(after, previous.epoch, count - 1, rest, at_tip=count - 1 < limit)

    async def apply(self, batch: Batch, epoch: Epoch, upstream: str) -> Tip:
        async with self._sessions.transaction(writes=True) as connection:
            await connection.execute(
                "select chain.apply_begin($1, $2, $3, $4)", epoch, upstream, batch.after, batch.after_epoch
            )
            tag = await connection.copy_to_table(
                "event",
                schema_name="chain",
                columns=COLUMNS,
                source=_each(batch.chunks),
                format="binary",
            )
            if _copied(tag) != batch.count:
                raise Corrupt(f"{self.name}: a batch of {batch.count} events held {_copied(tag)}")
            return _tip(await connection.fetchrow("select * from chain.apply_end($1)", batch.count))

    async def give_up(self, fork: Position, tip: Tip, epoch: Epoch, upstream: str) -> int:
        async with self._sessions.use(writes=True) as connection:
            count = await connection.fetchval(
                "select chain.give_up($1, $2, $3, $4, $5)", epoch, upstream, tip.position, tip.epoch, fork
            )
        return int(count)

    async def dead_branch(self, after: Tip = EMPTY, limit: int = 100) -> tuple[DeadEvent, ...]:
        async with self._sessions.use() as connection:
            rows = await connection.fetch(_DEAD, limit, after.epoch, after.position)
        return tuple(DeadEvent(_event(row), row["node"], Position(row["fork"])) for row in rows)

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
        tip = _tip(row)
        assert row is not None
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
        )

    async def fence(self, epoch: Epoch) -> Tip:
        async with self._sessions.use(writes=True) as connection:
            return _tip(await connection.fetchrow("select * from chain.fence($1)", epoch))

    async def promote(self, epoch: Epoch, promotion: UUID, lease_until: datetime | None = None) -> Tip:
        data = reign_event(epoch, promotion, self.name).data
        async with self._sessions.use(writes=True) as connection:
            row = await connection.fetchrow(
                "select * from chain.promote($1, $2, $3, $4)", epoch, promotion, data, lease_until
            )
        return _tip(row)

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

    async def strays(self, limit: int) -> tuple[Position, ...]:
        async with self._sessions.use() as connection:
            rows = await connection.fetch("select position from chain.strays($1)", limit)
        return tuple(Position(row["position"]) for row in rows)

    async def digest(self, first: Position, last: Position) -> Digest:
        async with self._sessions.use() as connection:
            row = await connection.fetchrow("select * from chain.digest($1, $2)", first, last)
        if row is None:
            raise Corrupt(f"{self.name}: chain.digest gave no row")
        return Digest(first, last, row["count"], row["value"])

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
        size = sum(len(row["data"]) + len(row["metadata"]) for row in rows)
        return tuple(map(_event, rows)), len(rows) == limit or size >= PAGE_BYTES


class _TooManyBytes(Exception):
    """A batch went past its bound; it is read again with as many events as fit."""


async def _each(chunks: Sequence[bytes]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk
        await asyncio.sleep(0)


def _copied(tag: str) -> int:
    return int(tag.removeprefix("COPY "))


def _tip(row: Any) -> Tip:
    if row is None:
        raise Corrupt("chain.node has lost its row", hint="restore the node, or wipe and bootstrap it")
    return Tip(Position(row["tip_position"]), Epoch(row["tip_epoch"]))


def _event(row: Any) -> Event:
    return Event(*(row[index] for index in range(len(COLUMNS))))
