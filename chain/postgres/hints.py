"""Wakes readers when the log may have grown. Only a hint: who waits always looks again by itself."""

from __future__ import annotations

import asyncio
from typing import Final

from chain.errors import ChainError
from chain.event import Position
from chain.postgres.sessions import DRIVER_ERRORS, Connection, Sessions

_CHANNEL: Final = "chain_log"


class Hints:
    """LISTENs on one connection for any number of waiters, and connects again when that breaks."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._connection: Connection | None = None
        self._connecting = asyncio.Lock()
        self._heard = asyncio.Event()
        self._tip = 0

    async def wait(self, after: Position, timeout_s: float) -> None:
        """Returns when a log longer than `after` was announced, or after `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):
                if await self._listen_anew():
                    return
                if self._tip <= after:
                    await self._heard.wait()
        except TimeoutError:
            return

    async def close(self) -> None:
        if self._connection is not None:
            self._connection.terminate()

    async def _listen_anew(self) -> bool:
        """Makes sure that somebody listens; True if only from now on, so that something may have passed."""
        async with self._connecting:
            if self._connection is not None and not self._connection.is_closed():
                return False
            try:
                connection = await self._sessions.connect()
            except ChainError:
                await asyncio.sleep(3600)  # ended by the caller's timeout; it looks again by itself
                return True
            try:
                await connection.add_listener(_CHANNEL, self._on_notify)
            except BaseException as error:
                connection.terminate()
                if isinstance(error, DRIVER_ERRORS):
                    return True
                raise
            self._connection = connection
            self._tip = 0
            return True

    def _on_notify(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        # Anybody may notify anything on a channel: what makes no sense wakes nobody for longer than a look.
        self._tip = int(str(payload)) if str(payload).isdecimal() else 0
        self._heard.set()
        self._heard = asyncio.Event()
