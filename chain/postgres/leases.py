"""Leases in a table of the registry's database: one row a chain, changed by compare-and-set."""

from __future__ import annotations

from typing import Any

from chain.errors import LeaseLost
from chain.event import Epoch
from chain.lease import Lease, may_take
from chain.postgres.store import PostgresStore


class PostgresLeases:
    """The leases in the database of a store."""

    def __init__(self, store: PostgresStore) -> None:
        self._store = store

    async def read(self, chain: str) -> Lease | None:
        return _lease(await self._store.row("select * from chain.lease where chain = $1", chain))

    async def renew(self, chain: str, epoch: Epoch, holder: str, duration_s: float | None) -> Lease:
        row = await self._store.row(
            "select * from chain.renew_lease($1, $2, $3, $4)",
            chain,
            epoch,
            holder,
            _ms(duration_s),
            writes=True,
        )
        return _lease(row) or await self._lost(chain, epoch, holder)

    async def take(
        self, chain: str, epoch: Epoch, holder: str, duration_s: float | None, seen: Lease | None
    ) -> Lease:
        before = (seen.epoch, seen.holder, seen.renewals) if seen is not None else (None, None, None)
        row = await self._store.row(
            "select * from chain.take_lease($1, $2, $3, $4, $5, $6, $7)",
            chain,
            epoch,
            holder,
            _ms(duration_s),
            *before,
            writes=True,
        )
        lease = _lease(row)
        if lease is None:
            raise may_take(await self.read(chain), epoch, seen) or LeaseLost(
                "the lease was changed by another at the same time", hint="try again"
            )
        return lease

    async def _lost(self, chain: str, epoch: Epoch, holder: str) -> Lease:
        record = await self.read(chain)
        said = f"{record.holder or 'nobody'}'s in epoch {record.epoch}" if record else "nobody's"
        raise LeaseLost(f"{holder} can't renew the lease of epoch {epoch}: it is {said}")


def _ms(duration_s: float | None) -> int | None:
    return None if duration_s is None else round(duration_s * 1000)


def _lease(row: Any) -> Lease | None:
    if row is None:
        return None
    duration = row["duration_ms"]
    return Lease(
        Epoch(row["epoch"]), row["holder"], row["renewals"], None if duration is None else duration / 1000
    )
