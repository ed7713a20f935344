"""What daemons say over HTTP, and the address that one listens on while it runs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.registry import Collector

from chain.errors import Unavailable

S = TypeVar("S")


def words(
    look: Callable[[], S],
    report: Callable[[S], Mapping[str, Any]],
    checks: Mapping[str, Callable[[S, web.Request], bool]],
    metrics: Collector,
) -> web.Application:
    """Answers each path of `checks` with the report of what is seen then: 200 if the check holds, else 503.

    /v1/status has no check, and /metrics is for Prometheus.
    """
    registry = CollectorRegistry()
    registry.register(metrics)

    def answer(check: Callable[[S, web.Request], bool]) -> Callable[[web.Request], Any]:
        async def handle(request: web.Request) -> web.Response:
            seen = look()
            return web.json_response(report(seen), status=200 if check(seen, request) else 503)

        return handle

    async def expose(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(registry), content_type="text/plain", charset="utf-8")

    app = web.Application()
    app.add_routes([web.get(path, answer(check)) for path, check in checks.items()])
    app.add_routes([web.get("/v1/status", answer(lambda _seen, _request: True)), web.get("/metrics", expose)])
    return app


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
