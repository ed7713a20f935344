"""Leases in memory."""

from __future__ import annotations

from chain.errors import LeaseLost
from chain.event import Epoch
from chain.lease import Lease, may_take


class MemoryLeases:
    """As durable as its object."""

    def __init__(self) -> None:
        self._records: dict[str, Lease] = {}

    async def read(self, chain: str) -> Lease | None:
        return self._records.get(chain)

    async def renew(self, chain: str, epoch: Epoch, holder: str, duration_s: float | None) -> Lease:
        record = self._records.get(chain)
        if record is None or (record.epoch, record.holder) != (epoch, holder):
            raise LeaseLost(f"{holder} can't renew the lease of epoch {epoch}: it is another's")
        return self._set(chain, epoch, holder, duration_s)

    async def take(
        self, chain: str, epoch: Epoch, holder: str, duration_s: float | None, seen: Lease | None
    ) -> Lease:
        refusal = may_take(self._records.get(chain), epoch, seen)
        if refusal is not None:
            raise refusal
        return self._set(chain, epoch, holder, duration_s)

    def _set(self, chain: str, epoch: Epoch, holder: str, duration_s: float | None) -> Lease:
        before = self._records.get(chain)
        renewals = before.renewals + 1 if before is not None else 0
        self._records[chain] = Lease(epoch, holder, renewals, duration_s)
        return self._records[chain]
