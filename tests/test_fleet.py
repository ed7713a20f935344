"""What the parties of a chain say, and what is made of an answer that is none."""

from __future__ import annotations

from typing import Any

import pytest
from aiohttp import web

from chain.config import Config
from failover.fleet import open_fleet

GOOD: dict[str, Any] = {
    "node": "a",
    "last_error": "",
    "store": {"role": "middle", "epoch": 1, "writable": False, "lease": "none"},
    "link": {
        "source": "b",
        "state": "streaming",
        "cut_off_s": 0.0,
        "position": 7,
        "lag_events": None,
        "last_error": "",
    },
}
ODD: tuple[Any, ...] = (
    {},
    [],
    "middle",
    None,
    {**GOOD, "link": {"state": "streaming", "lag_events": 0}},
    {**GOOD, "link": ["x"]},
    {**GOOD, "store": "x"},
    {k: v for k, v in GOOD.items() if k != "last_error"},
)


@pytest.mark.parametrize("answer", [GOOD, {**GOOD, "store": None, "link": None, "new": 1}], ids=repr)
async def test_a_daemons_word_is_heard(answer: Any, unused_tcp_port: int) -> None:
    assert await _asked(answer, unused_tcp_port) == answer


@pytest.mark.parametrize("answer", ODD, ids=repr)
async def test_an_answer_that_is_no_daemons_word_is_none(answer: Any, unused_tcp_port: int) -> None:
    assert await _asked(answer, unused_tcp_port) is None


async def _asked(answer: Any, port: int) -> Any:
    async def status(_: web.Request) -> web.Response:
        return web.json_response(answer)

    app = web.Application()
    app.add_routes([web.get("/v1/status", status)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    nowhere = "postgresql://u@127.0.0.1:1/x"
    node = {"name": "a", "region": "east", "dsn": nowhere, "http": f"127.0.0.1:{port}"}
    config = Config.model_validate({"chain": "c", "registry": {"dsn": f"{nowhere}r"}, "nodes": [node]})
    try:
        async with open_fleet(config) as fleet:
            return await fleet.ask_daemon("a")
    finally:
        await runner.cleanup()
