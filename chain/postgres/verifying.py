"""What a verifier asks of a node on PostgreSQL; the SQL functions say what is guaranteed."""

from __future__ import annotations

from chain.errors import Corrupt
from chain.event import Epoch, Position, Tip
from chain.postgres.sessions import Sessions
from chain.store import SEGMENT, Checked, Digest, Glance, Knowledge, Seal


class Verifying:
    """The part of a store that is for verification (`chain.store.Verifiable`)."""

    name: str
    _sessions: Sessions

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

    async def seal(self, number: int, last: Position, agreed: bytes | None = None) -> Checked:
        async with self._sessions.use() as connection:
            row = await connection.fetchrow("select * from chain.seal($1, $2, $3)", number, last, agreed)
        if row is None:
            raise Corrupt(f"{self.name}: chain.seal gave no row")
        first = Position((number - 1) * SEGMENT + 1)
        return Checked(Digest(first, last, row["count"], row["value"]), row["intact"])

    async def seals(self) -> tuple[Seal, ...]:
        async with self._sessions.use() as connection:
            rows = await connection.fetch(
                "select number, last, value, checked_at from chain.segment order by number"
            )
        return tuple(Seal(*row) for row in rows)

    async def verified(self) -> Knowledge:
        async with self._sessions.use() as connection:
            row = await connection.fetchrow("select * from chain.verified")
        assert row is not None
        oldest = row["oldest_check"]
        age_s = None if oldest is None else (row["clock"] - oldest).total_seconds()
        return Knowledge(Position(row["position"]), age_s)

    async def glance(self, after: Position) -> Glance:
        async with self._sessions.use() as connection:
            row = await connection.fetchrow("select * from chain.glance($1)", after)
        if row is None:
            raise Corrupt("chain.node has lost its row", hint="restore the node, or wipe and bootstrap it")
        tip = Tip(Position(row["tip_position"]), Epoch(row["tip_epoch"]))
        return Glance(tip, row["clock"], row["next_recorded_at"])
