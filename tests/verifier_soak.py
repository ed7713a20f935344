"""A chain under full load, with a planned move and a lost head in it, under a verifier that may only read.

`python -m tests.verifier_soak --seconds 600`. It ends badly if the verifier says DIFF at any time, if it does
not come to OK for everything at the end, or if it does not find the row that is altered then.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp
import asyncpg

from chain.client import Client
from chain.errors import ChainError
from chain.event import Expect, NewEvent
from chain.tasks import end
from failover.local.chain import LocalChain
from tests.support import client_of, fleet_of, operate, operator, wait_head, wait_until

OPERATIONS: Final = Path(__file__).parent.parent / "docs" / "operations.md"
EVERY_S: Final = 0.2


@dataclass
class Seen:
    """What was seen in a soak."""

    seconds: float = 0.0
    written: int = 0
    results: Counter[str] = field(default_factory=Counter)
    """How often each pair was said to be what."""
    reasons: Counter[str] = field(default_factory=Counter)
    differences: list[str] = field(default_factory=list)
    """Said before anything was altered: each is a false report."""
    verified: int = 0
    found_within_s: float = 0.0
    latency: list[dict[str, Any]] = field(default_factory=list)


async def soak(chain: LocalChain, seconds: float) -> Seen:
    """`chain` is a fresh one, made with `options()`."""
    seen, loop = Seen(), asyncio.get_running_loop()
    await make_role(chain)
    start = loop.time()
    async with (
        fleet_of(chain) as fleet,
        client_of(chain) as client,
        operator("serve", "verifier", "-c", str(chain.config_path)),
        watched(chain, seen),
    ):
        async with under_load(client, seen):
            await asyncio.sleep(seconds / 3)
            await operate(fleet, "switchover", node="west-1")
            await asyncio.sleep(seconds / 3)
            await chain.kill("west-1")
            await operate(fleet, "failover")
            await wait_head(fleet, (await fleet.registry.topology()).head)
            await asyncio.sleep(seconds / 3)
            await chain.start("west-1")
            await operate(fleet, "rejoin", node="west-1")
        topology = await fleet.registry.topology()
        tip = (await fleet.store(topology.head).tip()).position
        await wait_said(chain, "OK", 2, up_to=tip)
        seen.verified = tip
        seen.latency = (await ask(chain))["latency"]
        seen.seconds = loop.time() - start
    return seen


async def find_altered(chain: LocalChain, seen: Seen) -> None:
    """The proof that it can fail: a row is altered, and has to be found where it is."""
    loop = asyncio.get_running_loop()
    async with operator("serve", "verifier", "-c", str(chain.config_path)):
        await wait_said(chain, "OK", 2)
        place = seen.verified // 2
        where = chain.config().node("east-2").dsn.reveal()
        connection = await asyncpg.connect(where)
        await connection.execute("update chain.event set type = type || '!' where position = $1", place)
        await connection.close()
        start = loop.time()
        await wait_said(chain, "DIFF", 1)
        seen.found_within_s = loop.time() - start
        found = {f["position"] for p in (await ask(chain))["pairs"] for f in p["found"]}
        assert found == {place}, f"altered was {place}, found was {found}"


def options(port: int) -> dict[str, Any]:
    """Of a chain whose verifier has a user of its own, and hurries."""
    return {
        "verify": {
            "http": f"127.0.0.1:{port}",
            "user": "chain_verifier",
            "password_file": "secrets/verifier",
            "again": "5s",
            "share": 0.2,
        },
    }


async def make_role(chain: LocalChain) -> None:
    """As docs/operations.md says, on every server."""
    statements = r"```sql\n((?:create|alter) role chain_verifier.*?)```"
    sql = "\n".join(re.findall(statements, OPERATIONS.read_text(), re.S))
    config = chain.config()
    for dsn in (config.registry.dsn, *(node.dsn for node in config.nodes)):
        connection = await asyncpg.connect(dsn.reveal())
        await connection.execute(sql)
        await connection.close()


async def ask(chain: LocalChain) -> dict[str, Any]:
    """The verifier's word. Raises what aiohttp raises."""
    timeout = aiohttp.ClientTimeout(total=5)
    async with (
        aiohttp.ClientSession(timeout=timeout) as http,
        http.get(f"http://{chain.config().verify.http}/v1/status") as response,
    ):
        word: dict[str, Any] = await response.json()
        return word


async def wait_said(chain: LocalChain, result: str, pairs: int, *, up_to: int = 0) -> None:
    """Waits until so many pairs are said to be that, and to be equal up to a position."""

    async def said() -> bool:
        try:
            word = await ask(chain)
        except (aiohttp.ClientError, TimeoutError):
            return False
        return len([p for p in word["pairs"] if p["result"] == result and p["verified"] >= up_to]) >= pairs

    await wait_until(f"{pairs} pairs are {result}", said, wait_s=120.0, every_s=EVERY_S)


@asynccontextmanager
async def watched(chain: LocalChain, seen: Seen) -> AsyncIterator[None]:
    """Notes whatever the verifier says while the block runs."""

    async def watch() -> None:
        while True:
            try:
                for pair in (await ask(chain))["pairs"]:
                    seen.results[pair["result"]] += 1
                    if pair["result"] == "UNKNOWN":
                        seen.reasons[re.sub(r"[\d,.]+", "N", pair["why"])] += 1
                    if pair["result"] == "DIFF":
                        seen.differences.append(f"{pair['source']} and {pair['target']}: {pair['what']}")
            except (aiohttp.ClientError, TimeoutError):
                pass
            await asyncio.sleep(EVERY_S)

    task = asyncio.create_task(watch())
    try:
        yield
    finally:
        await end(task)


@asynccontextmanager
async def under_load(client: Client, seen: Seen, *, writers: int = 32) -> AsyncIterator[None]:
    """As many writes as the chain takes while the block runs."""

    async def write(writer: int) -> None:
        while True:
            try:
                await client.add(f"w-{writer}", Expect.ANY, [NewEvent("Soaked", b"x" * 300, b"y" * 40)])
                seen.written += 1
            except ChainError:
                await asyncio.sleep(0.1)

    tasks = [asyncio.create_task(write(n)) for n in range(writers)]
    try:
        yield
    finally:
        for task in tasks:
            await end(task)


async def _main(seconds: float) -> int:
    from failover.local import processes

    with tempfile.TemporaryDirectory() as folder:
        chain = LocalChain(Path(folder) / "chain")
        try:
            await prepare(chain, processes.free_port())
            seen = await soak(chain, seconds)
            await find_altered(chain, seen)
        finally:
            await chain.wipe()
    print(json.dumps(seen.__dict__, indent=2, default=str))  # noqa: T201
    # What was acknowledged is in the log, or in the ledger, which is in the log.
    return 1 if seen.differences or seen.verified < seen.written else 0


async def prepare(chain: LocalChain, port: int) -> None:
    """Starts the chain; nothing here tests the loss of power: no fsync."""
    await chain.prepare()
    (chain.folder / "secrets" / "verifier").write_text("choose-one\n")
    await chain.up(settings={"fsync": "off"}, options=options(port))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0)
    sys.exit(asyncio.run(_main(parser.parse_args().seconds)))
