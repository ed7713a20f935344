"""How much of a node's time verification may take: a share, and less while the node is slow or far behind."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

MAX_PAUSE_S: Final = 30.0
BRAKE: Final = 4.0
"""By how much the pauses grow while a node is under strain."""
_SLOW: Final = 5.0
"""A node that takes so many times longer than at its best is under strain, beyond _PROMPT_S."""
_PROMPT_S: Final = 0.02
_FORGETS: Final = 1.01


@dataclass(slots=True)
class Throttle:
    """Of one node. Time spent reading is followed by a pause, so that reading takes `share` of the time."""

    share: float
    behind: bool = False
    """The node is later than it may be."""
    slow: bool = False
    _best_s: float | None = None

    def answered(self, after_s: float) -> None:
        """Notes how long the node took for next to nothing."""
        best = after_s if self._best_s is None else min(after_s, self._best_s * _FORGETS)
        self._best_s = best
        self.slow = after_s > max(_PROMPT_S, _SLOW * best)

    def pause_s(self, spent_s: float) -> float:
        brake = BRAKE if self.slow or self.behind else 1.0
        return min(MAX_PAUSE_S, spent_s * ((1 / self.share - 1) + (brake - 1)))

    async def wait_turn(self, spent_s: float) -> None:
        await asyncio.sleep(self.pause_s(spent_s))
