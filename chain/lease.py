"""The lease: the head's right to take writes, for a limited time (Gray and Cheriton, 1989).

The registry keeps one record a chain. The head's daemon renews it, and sets its store's deadline from a
reading of the store's own clock that it took *before* the renewal; everybody else counts, by their own
monotonic clock, how long the record has stood unchanged since they *read* it. So no clock is ever compared
with another machine's, and a late or lost message can only make the lease shorter.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from chain.errors import ChainError, LeaseLost
from chain.event import Epoch

NOBODY = ""
"""The holder between two heads: the old one's right has ended, the new one has not taken it up yet."""

CLOCK_TOLERANCE_S = 0.2
"""How far a store's clock may step back. A margin is never smaller, or a step could outlive it."""


@dataclass(frozen=True, slots=True)
class Terms:
    """How long a lease runs, and by how much head and observers keep away from each other."""

    duration_s: float = 3.0
    margin_s: float = 0.5
    failsafe: bool = True
    """While the registry is away: go on as long as every other member promises not to be promoted."""

    @property
    def right_s(self) -> float:
        """What the head allows itself: the duration less the margin."""
        return self.duration_s - self.margin_s

    @property
    def renew_s(self) -> float:
        """How often the head renews: three tries within a lease."""
        return self.duration_s / 4


@dataclass(frozen=True, slots=True)
class Lease:
    """The record in the registry. Two readings that are equal say that nobody renewed it in between."""

    epoch: Epoch
    holder: str
    renewals: int
    duration_s: float | None
    """None if the head runs without a lease (`lease: off`): then nothing follows from its age."""


class Leases(Protocol):
    """The lease half of the registry's port. Each verb is one durable compare-and-set."""

    async def read(self, chain: str) -> Lease | None:
        """The record as it is; None if there never was a lease."""

    async def renew(self, chain: str, epoch: Epoch, holder: str, duration_s: float | None) -> Lease:
        """Renews the lease if it is `holder`'s in `epoch`. Raises LeaseLost if not."""

    async def take(
        self, chain: str, epoch: Epoch, holder: str, duration_s: float | None, seen: Lease | None
    ) -> Lease:
        """Gives the lease to `holder` in `epoch`, if the record still is what was `seen`.

        Raises LeaseLost if it is not, or if it is of a newer epoch than `epoch`.
        """


@dataclass(slots=True)
class LeaseWatch:
    """What an observer knows of a lease by its own monotonic clock.

    Counting begins anew whenever the record changed and whenever it could not be read for a while: a head
    that can't reach the registry either must get its chance to renew. Time counts up to the last reading.
    """

    margin_s: float
    lease: Lease | None = None
    known: bool = False
    """The last reading succeeded."""
    _since: float = field(default=0.0)
    _read_at: float = field(default=0.0)

    def saw(self, lease: Lease | None, now: float) -> None:
        """Notes a reading that was answered at `now`."""
        if not self.known or lease != self.lease or now - self._read_at > self._longest_gap_s:
            self._since = now
        self.known, self.lease, self._read_at = True, lease, now

    def failed(self) -> None:
        """Notes that the record could not be read. What was known stays, but counts no more."""
        self.known = False

    def left_s(self, now: float) -> float | None:
        """Seconds until the lease has certainly run out, 0 if it has; None if nothing can be said."""
        if not self.known or self.lease is None or self.lease.duration_s is None:
            return None
        return max(0.0, self._since + self.lease.duration_s + self.margin_s - min(now, self._read_at))

    def unchanged_s(self, now: float) -> float | None:
        """For how long the record is known to have stood as it is; None if nothing can be said."""
        return now - self._since if self.known else None

    def expired(self, now: float) -> bool:
        return self.left_s(now) == 0.0

    @property
    def _longest_gap_s(self) -> float:
        """Between two readings: half a lease, in which a head that lives tries twice."""
        return (self.lease.duration_s or 0.0) / 2 if self.lease is not None else 0.0


def may_take(record: Lease | None, epoch: Epoch, seen: Lease | None) -> ChainError | None:
    """The compare of the compare-and-set, for adapters: why it must not be taken; None if it may."""
    if record == seen and (record is None or epoch >= record.epoch):
        return None
    if record is None:
        return LeaseLost("the lease has gone from the registry", hint="was the registry restored?")
    holder = record.holder or "nobody"
    return LeaseLost(
        f"the lease is {holder}'s in epoch {record.epoch}, renewed {record.renewals} times",
        hint="its holder is alive, or another operation has it: chainctl status",
    )
