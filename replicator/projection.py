"""Projections: a fold over a node's log, from any position, page by page.

Read from the tail, a projection never sees an event that a failover takes away: what the tail holds, every
node holds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from chain.event import Event, Position
from chain.store import Log

S = TypeVar("S")


async def project(
    log: Log, state: S, fold: Callable[[S, Event], S], *, after: Position = Position(0), until: Position
) -> S:
    """Folds the events behind `after` up to and with `until`, waiting for what is not there yet."""
    while after < until:
        async for page in log.follow(after):
            for event in page.events:
                if event.position > until:
                    break
                state = fold(state, event)
            after = Position(page.next)
            break
    return state
