"""The epochs of a log, and the fork of two logs.

Every promotion appends one event to the stream `$epoch`, so a log carries its own history and a fork is
found with the store's own `get`. The rule is KIP-101's (truncate at the end of the last common epoch, never
at a watermark), with a promotion id beside each number so that two promotions that were given the same
number, say by a restored registry, are never taken for one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from chain.errors import Corrupt
from chain.event import Epoch, Event, NewEvent, Position, Tip

EPOCH_STARTED: Final = "EpochStarted"


@dataclass(frozen=True, slots=True)
class Reign:
    """One epoch as the log tells it: `start` is the position of its first event, the promotion itself."""

    epoch: Epoch
    promotion: UUID
    node: str
    start: Position


@dataclass(frozen=True, slots=True)
class History:
    """The reigns of a log in order, and its tip."""

    reigns: tuple[Reign, ...]
    tip: Tip

    def end(self, index: int) -> Position:
        """The last position of the reign at `index`."""
        following = index + 1
        if following < len(self.reigns):
            return Position(self.reigns[following].start - 1)
        return self.tip.position


def fork(source: History, target: History) -> Position:
    """The last position that both logs share, 0 if none.

    What the target holds beyond it is a dead branch.
    """
    shared = -1
    for index, (ours, theirs) in enumerate(zip(source.reigns, target.reigns, strict=False)):
        if ours != theirs:
            break
        shared = index
    if shared < 0:
        return Position(0)
    return min(source.end(shared), target.end(shared))


def reign_event(epoch: Epoch, promotion: UUID, node: str) -> NewEvent:
    """The event that a promotion appends. Its id is the promotion's, so it can't be written twice."""
    data = {"epoch": epoch, "node": node, "promotion": str(promotion)}
    return NewEvent(EPOCH_STARTED, json.dumps(data).encode(), b"", promotion)


def read_history(events: Iterable[Event], tip: Tip) -> History:
    """Builds the history from the events of `$epoch`. Raises Corrupt if they don't grow."""
    reigns: list[Reign] = []
    for event in events:
        try:
            node = str(json.loads(event.data)["node"])
        except (ValueError, KeyError, TypeError) as error:
            raise Corrupt(f"position {event.position} is no readable {EPOCH_STARTED}") from error
        if reigns and event.epoch <= reigns[-1].epoch:
            raise Corrupt(
                f"epoch {event.epoch} at position {event.position} follows epoch {reigns[-1].epoch}"
            )
        reigns.append(Reign(event.epoch, event.id, node, event.position))
    return History(tuple(reigns), tip)
