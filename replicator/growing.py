"""Verifying a log while it comes, so that little is left to be read once it is there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from chain.errors import ChainError
from chain.event import Position
from chain.store import SEGMENT, Store
from replicator.comparison import Comparison
from replicator.verify import START, segment_of

_TRIES: Final = 3


@dataclass(slots=True)
class Growing:
    """A target that is being filled from a source which is off every dead branch: what is equal stays so."""

    source_name: str
    source: Store
    target_name: str
    target: Store
    verified: Position = START
    """Up to here both have the same, event by event, and as either of them has noted it."""
    stopped: bool = False
    """Not so the segment behind `verified`, or it can't be read. For `verify_pair` to say, from there on."""
    _failures: int = 0

    def is_due(self, tip: Position) -> bool:
        """Whether a target at `tip` has a segment that was not compared yet."""
        return not self.stopped and tip >= self.verified + SEGMENT

    async def advance(self) -> None:
        """Compares whole segments up to where the target is. Raises nothing."""
        comparison = Comparison(self.source_name, self.source, self.target_name, self.target)
        try:
            seals = [*await self.source.seals(), *await self.target.seals()]
            tip = (await self.target.tip()).position
            while self.is_due(tip):
                number, first, last = segment_of(Position(self.verified + 1))
                value = await comparison.equal(first, last)
                noted = [(seal.last, seal.value) for seal in seals if seal.number == number]
                self.stopped = value is None or any(note != (last, value) for note in noted)
                if not self.stopped:
                    self.verified, self._failures = last, 0
        except ChainError:
            self._failures += 1
            self.stopped = self._failures >= _TRIES
