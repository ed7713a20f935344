"""What a drill has changed on a chain, kept on that chain until it is taken back.

The rows of a node are kept beside its log, in the transaction that alters them, and forgotten in the one that
puts them back. So there is no moment at which a drill can be killed, with its machine or without, that leaves
a fault which nobody finds; and what is found was surely done.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import asyncpg

from chain.commands import resume_automation
from chain.errors import Busy, ChainError, Refused
from failover.drills.ground import BALLAST_STREAM, Ground

BY: Final = "the operator of a drill"
"""Who decides what an operator decides in a drill."""
FAR: Final = 10**15
"""Beyond the end of any log: there, a fault may put rows that were nowhere."""

_MAKE: Final = """
    create table if not exists chain.drilled (
        nr        bigint generated always as identity primary key,
        at        timestamptz not null default now(),
        what      text        not null,
        positions bigint[]    not null,
        following uuid        not null,
        rows      jsonb       not null
    )
"""
_LOCK: Final = "select from chain.node for update"
_THERE: Final = "select to_regclass('chain.drilled') is not null"
_FOLLOWING: Final = """
    select id from chain.event where position > $1 and position < $2 and stream <> $3
     order by position limit 1
"""
"""The first event behind the rows that no drill alters: if it is the same, so is all that is before it."""
_KEEP: Final = """
    insert into chain.drilled (what, positions, following, rows)
    select $1, $2, $3, coalesce(jsonb_agg(to_jsonb(e)), '[]') from chain.event e where position = any($2)
    returning nr
"""
_FORGET: Final = "delete from chain.drilled where nr = $1 returning positions, following, rows"
_CLEAR: Final = "delete from chain.event where position = any($1) or position > $2"
_INSERT: Final = """
    insert into chain.event (position, epoch, stream, revision, id, type, data, metadata, recorded_at)
    select position, epoch, stream, revision, id, type, data, metadata, recorded_at
      from jsonb_populate_recordset(null::chain.event, $1)
"""


@dataclass(frozen=True, slots=True)
class Kept:
    """Rows of a node that are not as they were."""

    node: str
    nr: int
    what: str

    def __str__(self) -> str:
        return f"{self.node}: {self.what}"


@dataclass(frozen=True, slots=True)
class Left:
    """What is left on a chain of the drills that were there."""

    rows: tuple[Kept, ...] = ()
    paused: str = ""
    """How automation is paused by a drill; empty if it is not."""
    unfinished: str = ""
    """The playbook whose run a drill began that is under way: it is carried on or taken back as any other."""
    unknown: tuple[str, ...] = ()
    """Nodes that could not be asked."""

    def __bool__(self) -> bool:
        """Is there anything that `clean` takes back?"""
        return bool(self.rows or self.paused)

    @property
    def lines(self) -> tuple[str, ...]:
        """For people, what is to be taken back."""
        paused = (f"automation is paused {self.paused}",) if self.paused else ()
        return (*map(str, self.rows), *paused)


async def keep(connection: Any, what: str, positions: list[int]) -> int:
    """Keeps the rows as they are, within the caller's transaction, which is about to change them.

    Raises Refused if nothing follows them by which their log could be known again.
    """
    await connection.execute(_LOCK)  # one that is put back now may take the table with it
    await connection.execute(_MAKE)
    following = await _following(connection, positions)
    if following is None:
        raise Refused("nothing was written behind the rows that are to be altered")
    return int(await connection.fetchval(_KEEP, what, positions, following))


async def put_back(connection: Any, nr: int) -> None:
    """Puts what was kept back, unless the node has another log by now, and forgets it. Idempotent."""
    async with connection.transaction():
        if not await connection.fetchval(_THERE):
            return
        await connection.execute(_LOCK)
        if not await connection.fetchval(_THERE):
            return
        kept = await connection.fetchrow(_FORGET, nr)
        if kept is None:
            return
        if await _following(connection, kept["positions"]) == kept["following"]:
            await connection.execute(_CLEAR, kept["positions"], FAR)
            await connection.execute(_INSERT, kept["rows"])
        if not await connection.fetchval("select exists (select from chain.drilled)"):
            await connection.execute("drop table chain.drilled")


@asynccontextmanager
async def alone_on(ground: Ground) -> AsyncIterator[None]:
    """Keeps other drills, and whoever cleans up behind them, off the chain. Raises Busy."""
    async with AsyncExitStack() as stack:
        try:
            await stack.enter_async_context(ground.fleet.registry.hold_for_drills())
        except Busy:
            raise Busy(
                f"another drill is at work on chain {ground.config.chain}", hint="wait until it has ended"
            ) from None
        yield


async def look(ground: Ground) -> Left:
    """What is left there. Raises Unavailable if the registry does not answer."""
    topology = await ground.fleet.registry.topology()
    nodes = ground.fleet.names(topology)
    answers = await asyncio.gather(*(_kept(ground, node) for node in nodes))
    run, paused = topology.run, topology.paused or ""
    return Left(
        tuple(kept for answer in answers for kept in answer or ()),
        paused if paused.startswith(f"by {BY}") else "",
        run.playbook if run is not None and run.by == BY else "",
        tuple(node for node, answer in zip(nodes, answers, strict=True) if answer is None),
    )


async def clean(ground: Ground) -> Left:
    """Takes back what drills have left, and says what that was. Raises Busy; Unavailable."""
    async with alone_on(ground):
        left = await look(ground)
        for kept in left.rows:
            async with ground.sql(kept.node) as connection:
                await put_back(connection, kept.nr)
        if left.paused:
            await ground.fleet.registry.decide(resume_automation(), by=BY, why="a drill was killed")
        return left


def check_clean(left: Left, on: str) -> None:
    """Raises Refused if drills have left something: what a further one finds would be theirs."""
    if left:
        raise Refused(
            f"a drill that was killed has left something on this chain: {'; '.join(left.lines)}",
            hint=f"take it back first: chainctl drill clean --on {on}",
        )


async def _following(connection: Any, positions: list[int]) -> UUID | None:
    found: UUID | None = await connection.fetchval(_FOLLOWING, positions[-1], FAR, BALLAST_STREAM)
    return found


async def _kept(ground: Ground, node: str) -> tuple[Kept, ...] | None:
    """The latest first; None if the node does not answer."""
    try:
        async with ground.sql(node) as connection:
            if not await connection.fetchval(_THERE):
                return ()
            rows = await connection.fetch("select nr, what from chain.drilled order by nr desc")
            return tuple(Kept(node, row["nr"], row["what"]) for row in rows)
    except (ChainError, OSError, TimeoutError, asyncpg.PostgresError):
        return None
