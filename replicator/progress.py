"""Progress flows back: each node tells its upstream how far it is, and how far those behind it are.

So the head knows every node's tip without asking, and a caller can wait for an event to be on another node,
or on all. What is told was durable on the node before it was told.
"""

from __future__ import annotations

import asyncio
import logging

from chain.errors import ChainError
from chain.event import Tip
from chain.store import Store

log = logging.getLogger(__name__)

PAUSE_S = 0.02


async def tell_upstream(node: str, store: Store, upstream: Store, idle_s: float) -> None:
    """Tells for ever, whenever something changed, and every `idle_s` in any case. Never raises ChainError."""
    told: dict[str, Tip] = {}
    told_at = 0.0
    loop = asyncio.get_running_loop()
    while True:
        try:
            own = await store.tip()
            behind = await store.progress()
            progress = {name: told_by.tip for name, told_by in behind.items() if name != node} | {node: own}
            if progress != told or loop.time() - told_at >= idle_s:
                await upstream.tell(progress)
                told, told_at = progress, loop.time()
            await store.wait(own.position, idle_s / 4)
        except ChainError as error:
            log.debug("%s can't tell its progress: %s", node, error)
            told = {}
            await asyncio.sleep(idle_s)
        await asyncio.sleep(PAUSE_S)
