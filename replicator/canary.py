"""The canary: an event that a head writes when nobody else does, so that an idle chain shows its latency.

The head's own daemon writes it, since it may write; whoever measures only reads.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from chain.errors import ChainError
from chain.event import Expect, NewEvent, Position
from chain.store import Store

log = logging.getLogger(__name__)

CANARY_STREAM: Final = "$canary"


async def sing(store: Store, every_s: float) -> None:
    """Writes for ever: an event each time that a head has come through `every_s` without one."""
    seen: Position | None = None
    while True:
        await asyncio.sleep(every_s)
        try:
            state = await store.state()
            if state.writable and state.tip.position == seen:
                appended = await store.append_system(CANARY_STREAM, Expect.ANY, [NewEvent("Canary")])
                seen = appended.last_position
            else:
                seen = state.tip.position
        except ChainError as error:
            log.debug("the canary is silent: %s", error)
