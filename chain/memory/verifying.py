"""What a verifier asks of a node in memory."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from chain.event import Position
from chain.memory.digest import digest
from chain.memory.log import EventLog
from chain.store import SEGMENT, Checked, Digest, Glance, Knowledge, Seal


class Verifying:
    """The part of a store that is for verification (`chain.store.Verifiable`)."""

    _log: EventLog
    _clock: Callable[[], datetime]
    _seals: dict[int, Seal]

    @abstractmethod
    def _check_prepared(self) -> None: ...

    async def digest(self, first: Position, last: Position) -> Digest:
        self._check_prepared()
        events = self._log.events[max(0, first - 1) : max(0, last)]
        return Digest(first, last, len(events), digest(events))

    async def strays(self, limit: int) -> tuple[Position, ...]:
        self._check_prepared()
        return ()  # the log is a list

    async def seal(self, number: int, last: Position, agreed: bytes | None = None) -> Checked:
        first = Position((number - 1) * SEGMENT + 1)
        fresh, seal = await self.digest(first, last), self._seals.get(number)
        if seal is not None:
            if (await self.digest(first, seal.last)).value != seal.value:
                return Checked(fresh, intact=False)
            if seal.last >= last:
                self._seals[number] = replace(seal, checked_at=self._clock())
                return Checked(fresh, intact=True)
        if fresh.count == last - first + 1 and fresh.value == agreed:
            self._seals[number] = Seal(number, last, agreed, self._clock())
        return Checked(fresh, intact=True)

    async def seals(self) -> tuple[Seal, ...]:
        self._check_prepared()
        return tuple(self._seals[number] for number in sorted(self._seals))

    async def verified(self) -> Knowledge:
        whole = [seal for nth, seal in enumerate(await self.seals(), 1) if seal.number == nth]
        if not whole:
            return Knowledge(Position(0), None)
        oldest = min(seal.checked_at for seal in whole)
        return Knowledge(whole[-1].last, (self._clock() - oldest).total_seconds())

    async def glance(self, after: Position) -> Glance:
        self._check_prepared()
        events = self._log.events
        recorded_at = events[after].recorded_at if 0 <= after < len(events) else None
        return Glance(self._log.tip, self._clock(), recorded_at)

    def _forget_seals(self, fork: Position) -> None:
        self._seals = {number: seal for number, seal in self._seals.items() if seal.last <= fork}
