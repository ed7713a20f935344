"""A chain that was started, until every member is as decided."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from chain.config import Config
from chain.errors import ChainError, TimedOut
from chain.event import EMPTY
from chain.topology import Follow, Lead, assignment
from failover.fleet import Fleet, open_fleet

SETTLED_S: Final = 30.0


async def wait_settled(config: Config, *, wait_s: float = SETTLED_S) -> None:
    """Waits until every member is what the registry says, and none is empty. Raises TimedOut."""
    async with _bounded(wait_s) as bound, open_fleet(config) as fleet:
        while True:
            try:
                bound.reason = await _unsettled(fleet)
            except ChainError as error:
                bound.reason = error.message
            if not bound.reason:
                return
            await asyncio.sleep(0.05)


async def _unsettled(fleet: Fleet) -> str:
    """Why the chain is not as decided yet; empty if it is."""
    seen = await fleet.observe()
    for node in seen.topology.order:
        asked, state = assignment(seen.topology, node), seen.nodes[node].state
        if state is None:
            return f"{node}: {seen.nodes[node].trouble}"
        if isinstance(asked, Lead) and not (state.writable and state.reign == asked.epoch):
            return f"{node} is not the head of epoch {asked.epoch} yet"
        if isinstance(asked, Follow) and (state.upstream, state.epoch) != (asked.upstream, asked.epoch):
            return f"{node} does not follow {asked.upstream} yet"
        if state.tip == EMPTY:
            return f"{node} has no event yet, and could not replace the head"
        if seen.nodes[node].daemon is None:
            return f"the daemon of {node} does not answer yet"
    return ""


@dataclass(slots=True)
class _Bound:
    reason: str = ""


@asynccontextmanager
async def _bounded(wait_s: float) -> AsyncIterator[_Bound]:
    bound = _Bound()
    try:
        async with asyncio.timeout(wait_s):
            yield bound
    except TimeoutError:
        raise TimedOut(
            f"the chain has not settled within {wait_s:g} s: {bound.reason}",
            hint="see nodes/*/daemon.log in its folder, or chainctl status",
        ) from None
