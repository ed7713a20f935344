"""An HTTP address that a daemon listens on while it runs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from chain.errors import Unavailable


@asynccontextmanager
async def listening(app: web.Application, whose: str, host: str, port: int, hint: str) -> AsyncIterator[None]:
    """Serves `app` while the block runs. Raises Unavailable, with `hint`, if the address can't be had."""
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise Unavailable(
                f"{whose} can't listen on {host}:{port}: {error.strerror or error}", hint=hint
            ) from error
        yield
    finally:
        await runner.cleanup()
