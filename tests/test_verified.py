"""What is said of a verifier: its word, or why there is none and what to do about it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from chain.config import Config, load_config
from failover import verified
from failover.verified import ask_verifier, wait_verified
from replicator.listening import listening

CHAIN = """\
chain: shop
registry: {dsn: postgresql://geochain@127.0.0.1:1/registry}
nodes:
  - {name: east-1, region: east, dsn: postgresql://geochain@127.0.0.1:1/east, http: 127.0.0.1:8001}
"""
LINE = {
    "source": "a",
    "target": "b",
    "verified": 7,
    "age_s": 0.1,
    "oldest_check_s": 2.0,
    "what": "",
    "why": "",
}

Configured = Callable[[int | None], Config]


@pytest.fixture
def configured(tmp_path: Path) -> Configured:
    """A chain whose verifier is at that port."""

    def configured(port: int | None) -> Config:
        path = tmp_path / "chain.yaml"
        path.write_text(CHAIN + ("" if port is None else f"verify: {{http: 127.0.0.1:{port}}}\n"))
        return load_config(path, {})

    return configured


@asynccontextmanager
async def answering(answer: Callable[[], Any]) -> AsyncIterator[int]:
    """Something that answers so on /v1/status."""

    async def status(_: web.Request) -> web.Response:
        return web.json_response(answer())

    app = web.Application()
    app.router.add_get("/v1/status", status)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    async with listening(app, "a test", "127.0.0.1", port, ""):
        yield port


async def test_where_nobody_listens_one_is_to_be_started(configured: Configured) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        said = (await ask_verifier(configured(port))).silence
    assert said == f"no verifier answers at 127.0.0.1:{port}: start one: chainctl serve verifier"


async def test_where_none_is_configured_it_is_said_how_to_have_one(configured: Configured) -> None:
    said = (await ask_verifier(configured(None))).silence
    assert said == "no verifier is known: set verify.http, and chainctl serve verifier"


async def test_one_that_hangs_is_not_called_absent(
    configured: Configured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verified, "LOOK_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        said = (await ask_verifier(configured(port))).silence
    assert said == f"the verifier at 127.0.0.1:{port} does not answer within 0.2 s"


@pytest.mark.parametrize("answer", [{"pairs": "many"}, [], {}, {"pairs": [{"source": "a"}]}])
async def test_something_else_at_its_address_is_told_from_it(configured: Configured, answer: Any) -> None:
    async with answering(lambda: answer) as port:
        said = (await ask_verifier(configured(port))).silence
    assert said == f"what answers at 127.0.0.1:{port} is no verifier: see verify.http"


async def test_its_first_word_is_waited_for_and_not_for_ever(configured: Configured) -> None:
    asked = 0

    def answer() -> Any:
        nonlocal asked
        asked += 1
        return {"pairs": [{**LINE, "result": "OK" if asked > 2 else "UNKNOWN"}], "latency": []}

    async with answering(answer) as port:
        await wait_verified(configured(port), wait_s=20.0)
        assert asked == 3
        assert (await ask_verifier(configured(port))).silence == ""
    async with asyncio.timeout(5.0):
        await wait_verified(configured(port), wait_s=0.3)
