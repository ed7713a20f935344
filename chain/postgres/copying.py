"""A node's log on PostgreSQL as links copy it: in binary COPY rows, undecoded where there are many.

A batch of a few events, as they come to a node that keeps up, is one call instead of five, since there the
way to and fro is what takes the time. Of large ones, one is copied while the one before it still is
(`chain.apply_begin`, COPY, `chain.apply_end`): two processes of the server share the work.
"""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import ClassVar, Final

import asyncpg

from chain.encoding import COLUMNS, decode, split_first
from chain.errors import ChainError, Corrupt, OutcomeUnknown, StaleLink, Unavailable
from chain.event import Epoch, Position, Tip
from chain.postgres.rows import SETTLED, TIPPED, tip_of
from chain.postgres.sessions import Sessions
from chain.store import Batch

LOAD_S: Final = 3600.0
"""The most that the indexes of a loaded node may take to be made."""

_APPLY: Final = "select * from chain.apply($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)"
_COPY: Final = ", ".join(
    f"case when position = :after then '' else {column} end" if column in ("data", "metadata") else column
    for column in COLUMNS
)
_LEFT_OUT: Final = ("event_stream on chain.event (stream, revision)", "event_id on chain.event (id)")
_BLOCK_BYTES: Final = 256 * 1024
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


class Copying:
    """The part of a store that is for links (`chain.store.Replica`)."""

    few: ClassVar[int] = 100
    """Batches of at most so many events are applied in one call."""
    name: str
    _sessions: Sessions

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
        block = bytearray()  # the server sends a few KiB at a time: copied on as they are, they cost the most
        size = 0

        async def collect(chunk: bytes) -> None:
            nonlocal block, size
            size += len(chunk)
            if size > max_bytes and limit > 1:
                raise _TooManyBytes
            block += chunk
            if len(block) >= _BLOCK_BYTES:
                chunks.append(bytes(block))
                block.clear()

        # The event at `after` comes first, without its payload: it tells, in the same snapshot as the
        # others, on which branch they are.
        async with self._sessions.use() as connection:
            tag = await connection.copy_from_query(
                f"select {_COPY} from chain.event where position >= {int(after)} and {TIPPED} and {SETTLED}"
                f" order by position limit {int(limit) + (after > 0)}".replace(":after", str(int(after))),
                output=collect,
                format="binary",
            )
        chunks.append(bytes(block))
        count = _copied(tag)
        if after == 0:
            return Batch(after, Epoch(0), count, tuple(chunks), at_tip=count < limit)
        if count == 0:
            raise StaleLink(f"the log of {self.name} does not come up to position {after}")
        previous, rest = split_first(chunks)
        if previous.position != after:
            raise StaleLink(f"the log of {self.name} has no event at position {after}")
        return Batch(after, previous.epoch, count - 1, rest, at_tip=count - 1 < limit)

    async def apply(
        self, batch: Batch, epoch: Epoch, upstream: str, *, behind: Future[Tip] | None = None
    ) -> Tip:
        is_small = batch.count <= self.few and batch.size_bytes <= _BLOCK_BYTES
        try:
            if is_small:
                return await self._apply_few(batch, epoch, upstream, behind)
            return await self._copy(batch, epoch, upstream, behind)
        except Corrupt as error:
            # Rows that are there already: the batch holds some twice, or another link has put them there.
            if isinstance(error.__cause__, asyncpg.UniqueViolationError):
                await self._check_nobody_else_applied(batch, behind)
            raise
        except (OutcomeUnknown, Unavailable) as error:
            # A copier that froze within its batch would be in the way of every try.
            if isinstance(error.__cause__, asyncpg.LockNotAvailableError | TimeoutError):
                with suppress(ChainError):
                    await self._end_copies(epoch, upstream)
            raise

    async def _copy(self, batch: Batch, epoch: Epoch, upstream: str, behind: Future[Tip] | None) -> Tip:
        link = epoch, upstream, batch.after, batch.after_epoch
        async with self._sessions.transaction(writes=True) as connection:
            await connection.execute("select chain.apply_begin($1, $2, $3, $4)", *link)
            tag = await connection.copy_to_table(
                "event",
                schema_name="chain",
                columns=COLUMNS,
                source=_each(batch.chunks),
                format="binary",
            )
            self._check_count(batch, _copied(tag))
            if behind is not None:
                await asyncio.wait({behind})
            row = await connection.fetchrow(
                "select * from chain.apply_end($1, $2, $3, $4, $5, $6)",
                *link,
                batch.count,
                batch.at_tip,  # else the disk writes it while the next one comes
            )
            return tip_of(row)

    async def _apply_few(self, batch: Batch, epoch: Epoch, upstream: str, behind: Future[Tip] | None) -> Tip:
        events = decode(batch.chunks)
        self._check_count(batch, len(events))
        columns = zip(*events, strict=True) if events else ((),) * len(COLUMNS)
        if behind is not None:
            await asyncio.wait({behind})
        async with self._sessions.use(writes=True) as connection:
            row = await connection.fetchrow(
                _APPLY, epoch, upstream, batch.after, batch.after_epoch, *map(list, columns)
            )
        return tip_of(row)

    async def _end_copies(self, epoch: Epoch, upstream: str) -> None:
        """Of this link and all others, unless this one is stale."""
        async with self._sessions.use(writes=True) as connection:
            await connection.execute(
                "select chain.end_copies() from chain.node where epoch = $1 and upstream = $2",
                epoch,
                upstream,
            )

    async def _check_nobody_else_applied(self, batch: Batch, behind: Future[Tip] | None) -> None:
        """Raises StaleLink if the tip is not, or no more, where the batch begins."""
        if behind is not None:
            await asyncio.wait({behind})
        async with self._sessions.use() as connection:
            position = await connection.fetchval("select tip_position from chain.node")
        if position != batch.after:
            raise StaleLink(f"{self.name} is at position {position}, and a batch begins behind {batch.after}")

    def _check_count(self, batch: Batch, count: int) -> None:
        if count != batch.count:
            raise Corrupt(f"{self.name}: a batch of {batch.count} events held {count}")

    async def begin_load(self, epoch: Epoch, upstream: str) -> None:
        async with self._sessions.use(writes=True) as connection:
            await connection.execute("select chain.begin_load($1, $2)", epoch, upstream)

    async def end_load(self) -> None:
        async with self._sessions.use() as connection:
            if not await connection.fetchval("select chain.loading()"):
                return
            await connection.execute("select chain.end_copies()")  # of others: they hold the table, too
        try:
            async with asyncio.TaskGroup() as making:
                for index in _LEFT_OUT:
                    making.create_task(self._make_index(index), name=f"make an index of {self.name}")
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0] from None
        async with self._sessions.use(writes=True) as connection:
            await connection.execute("select chain.end_load()")

    async def _make_index(self, index: str) -> None:
        async with self._sessions.use(writes=True, timeout_s=LOAD_S) as connection:
            await connection.execute(f"create unique index if not exists {index}")


class _TooManyBytes(Exception):
    """A batch went past its bound; it is read again with as many events as fit."""


async def _each(chunks: Sequence[bytes]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk
        await asyncio.sleep(0)


def _copied(tag: str) -> int:
    return int(tag.removeprefix("COPY "))
