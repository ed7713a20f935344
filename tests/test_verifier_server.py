"""A verifier as a process: what it says over HTTP, and that nothing a chain does ends it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any
from uuid import uuid4

import aiohttp
import pytest

from chain.errors import Unavailable
from chain.event import Expect, NewEvent
from chain.memory import MemoryStore
from chain.store import Store
from chain.tasks import end
from failover.local import processes
from replicator.verifier import Verifier
from replicator.verifier_server import serve
from tests.conformance.stores import CHAIN, copy
from tests.planted import COUNT, NODES, filled
from tests.support import wait_until
from tests.test_verifier import FAST, registry_of

Get = Callable[[str], Awaitable[tuple[int, Any]]]


@pytest.fixture
async def stores() -> dict[str, Store]:
    made: dict[str, Store] = {node: MemoryStore(node) for node in NODES}
    await filled(made)
    return made


@pytest.fixture
async def verifier(stores: dict[str, Store]) -> AsyncIterator[Verifier]:
    made = Verifier(CHAIN, await registry_of(), stores.__getitem__, FAST)
    running = asyncio.create_task(made.run())
    yield made
    assert not running.done()
    await end(running)


@pytest.fixture
async def get(verifier: Verifier) -> AsyncIterator[Get]:
    port = processes.free_port()
    async with serve(verifier, "127.0.0.1", port), aiohttp.ClientSession() as http:

        async def ask(path: str) -> tuple[int, Any]:
            async with http.get(f"http://127.0.0.1:{port}{path}") as response:
                text = await response.text()
                return response.status, text if path == "/metrics" else await response.json()

        yield ask


def said(verifier: Verifier) -> list[tuple[str, str, str]]:
    return [(w.source, w.target, w.verdict.value) for w in verifier.words()]


async def wait_said(verifier: Verifier, *expected: tuple[str, str, str]) -> None:
    async def as_expected() -> bool:
        return said(verifier) == list(expected)

    await wait_until(f"the verifier says {expected}", as_expected)


WELL = (("a", "b", "OK"), ("b", "c", "OK"))


async def test_it_says_what_it_knows(verifier: Verifier, get: Get) -> None:
    await wait_said(verifier, *WELL)
    assert (await get("/livez"))[0] == 200
    assert (await get("/readyz"))[0] == 200

    async def noted() -> bool:
        return [node["noted"] for node in (await get("/v1/status"))[1]["nodes"]] == [COUNT] * 3

    await wait_until("all is noted", noted)
    _, word = await get("/v1/status")
    assert [(p["result"], p["verified"], p["found"], p["why"]) for p in word["pairs"]] == [
        ("OK", COUNT, [], "")
    ] * 2
    assert [late["node"] for late in word["latency"]] == ["b", "c"]
    _, metrics = await get("/metrics")
    for line in (
        'chain_verify_result{chain="orders",result="OK",source="a",target="b"} 1.0',
        f'chain_verify_position{{chain="orders",source="b",target="c"}} {float(COUNT)}',
        'chain_verify_differences{chain="orders",source="a",target="b"} 0.0',
        'chain_visible_latency_seconds_bucket{chain="orders",le="+Inf",node="c"}',
    ):
        assert line in metrics


async def test_a_node_that_goes_away_and_comes_back(
    verifier: Verifier, stores: dict[str, Store], get: Get, monkeypatch: pytest.MonkeyPatch
) -> None:
    await wait_said(verifier, *WELL)

    async def away() -> object:
        raise Unavailable("c: connection refused")

    with monkeypatch.context() as patch:
        patch.setattr(stores["c"], "tip", away)
        await wait_said(verifier, WELL[0], ("b", "c", "UNKNOWN"))
        assert verifier.words()[1].reason == "c: connection refused"
        assert verifier.words()[1].verified == COUNT
        assert (await get("/readyz"))[0] == 503
    await wait_said(verifier, *WELL)


async def test_who_is_compared_follows_what_is_decided(verifier: Verifier, stores: dict[str, Store]) -> None:
    await wait_said(verifier, *WELL)
    epoch = (await stores["c"].state()).epoch
    verifier.registry = await registry_of(("a", "c"))
    await stores["c"].follow_upstream(epoch, "a", (await stores["c"].state()).role)
    await stores["a"].add("s", Expect.ANY, [NewEvent("T")])
    await copy(stores["a"], stores["c"], "a")

    async def compared() -> bool:
        return [(w.source, w.target, w.verified) for w in verifier.words()] == [("a", "c", COUNT + 1)]

    await wait_until("a and c are neighbours", compared)
    assert said(verifier) == [("a", "c", "OK")]


async def test_one_that_is_restarted_goes_on_from_what_was_noted(
    verifier: Verifier, stores: dict[str, Store]
) -> None:
    await wait_said(verifier, *WELL)
    other = Verifier(CHAIN, verifier.registry, stores.__getitem__, replace(FAST, again_s=3600.0))
    words = await other.pass_once()
    assert [(w.verdict.value, w.verified) for w in words] == [("OK", COUNT)] * 2
    assert [pair.events for pair in other._pairs.values()] == [0, 0]  # nothing was new


async def test_a_task_that_crashes_is_said_and_begun_again(
    verifier: Verifier, stores: dict[str, Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    await wait_said(verifier, *WELL)

    async def crash() -> object:
        raise ZeroDivisionError(str(uuid4()))

    with monkeypatch.context() as patch:
        patch.setattr(stores["b"], "seals", crash)

        async def crashed() -> bool:
            return "ZeroDivisionError" in verifier.last_error

        await wait_until("the crash is said", crashed)
    await wait_said(verifier, *WELL)
