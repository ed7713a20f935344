"""Ending tasks for certain."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final

log = logging.getLogger(__name__)

_PATIENCE_S: Final = 1.0


async def end(task: asyncio.Task[Any]) -> None:
    """Cancels a task and waits until it has ended; its outcome is dropped.

    A cancellation can be lost where it meets the end of what was awaited, so it is given again until heard.
    """
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=_PATIENCE_S)
        if not task.done():
            log.warning("%s has not ended %g s after it was told to", task.get_name(), _PATIENCE_S)
    if not task.cancelled():
        task.exception()
