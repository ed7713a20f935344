"""Steady replication: how long after its commit on the head an event is committed on each node behind it.

By the commit timestamps of the servers themselves (`track_commit_timestamp`), which have one clock here: no
observer takes part, and every event counts. A timestamp is taken just before its commit is flushed, on both
sides, so a flush is left out on the target and counted on the head.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

from bench.chains import far_apart, names, running_chain
from bench.data import METADATA, payloads
from bench.measure import Bench, Contender, Measure, Reading
from bench.series import Comparison, Goal, Sense, percentile
from bench.servers import connected
from chain.config import Config
from chain.connect import open_store
from chain.event import Expect, NewEvent, Position
from chain.postgres import PostgresStore

_PER_S: Final = 2_000
_ROUND_TRIPS_MS: Final = (0, 80, 20, 200)
_SETTLES_S: Final = 1.0
"""Of load before what is counted."""
_ARRIVES_WITHIN_S: Final = 60.0
_OPTIONS: Final = {"lease": {"duration": "10s", "margin": "1s"}}
_TIMES: Final = """
    select position, extract(epoch from pg_xact_commit_timestamp(xmin))::double precision as at
      from chain.event where position > $1 and position <= $2
"""


async def steady(bench: Bench) -> Sequence[Comparison]:
    near = [comparison for count in (3, 5) for comparison in await _hops(bench, count)]
    return [*near, *await _by_round_trip(bench)]


async def _hops(bench: Bench, count: int) -> list[Comparison]:
    nodes = names(count)
    async with running_chain(
        bench.servers.folder, nodes, options=_OPTIONS, settings={"track_commit_timestamp": "on"}
    ) as chain:
        config = chain.config()

        async def once() -> Reading:
            return await _loaded(config, list(nodes), bench.scale.seconds)

        found = await bench.side_by_side(f"steady, chain of {count}", [Contender("geochain", once)])
    comparisons = []
    for hop in sorted({1, min(3, count - 1), count - 1}):
        bound = {1: 10.0, 3: 15.0}.get(hop)
        where = f"{hop} {'hop' if hop == 1 else 'hops'} away in a chain of {count}"
        goals = () if bound is None else (Goal(bound),)
        comparisons += [
            found.compare(f"p50 {hop}", f"commit to visible {where}: p50", "ms", Sense.AT_MOST),
            found.compare(f"p99 {hop}", f"commit to visible {where}: p99", "ms", Sense.AT_MOST, *goals),
        ]
    return comparisons


async def _by_round_trip(bench: Bench) -> list[Comparison]:
    """The same, with a long way between all nodes; beyond a half of the round trip it is ours."""
    nodes = names(3)
    async with (
        running_chain(
            bench.servers.folder, nodes, options=_OPTIONS, settings={"track_commit_timestamp": "on"}
        ) as chain,
        far_apart(chain) as ways,
    ):
        config = chain.config()

        async def once(milliseconds: int) -> Reading:
            await ways.set_round_trip(milliseconds)
            return await _loaded(config, list(nodes), bench.scale.seconds)

        ways_ms = _ROUND_TRIPS_MS if bench.scale.thorough else _ROUND_TRIPS_MS[:2]
        found = await bench.side_by_side(
            "steady by round trip",
            [Contender(f"{ms} ms", partial(once, ms)) for ms in ways_ms],
        )
    note = "Through a proxy, which takes time of its own; the first is a round trip of 0 ms."
    return [
        found.compare(
            f"{p} 1",
            f"commit to visible on the next node, by round trip: {p}",
            "ms",
            Sense.AT_MOST,
            note=note,
        )
        for p in ("p50", "p99")
    ]


async def _loaded(config: Config, nodes: Sequence[str], seconds: float) -> Reading:
    """2,000 appends/s for a while; percentiles of the events after the load has settled."""
    head = open_store(config, nodes[0])
    try:
        await _append(head, _SETTLES_S)
        first = (await head.tip()).position
        start = time.perf_counter()
        await _append(head, max(0.5, 2 * seconds))
        taken = time.perf_counter() - start
        last = (await head.tip()).position
        await _wait_everywhere(config, nodes, last)
    finally:
        await head.close()
    times = {node: await _commits(config, node, first, last) for node in nodes}
    reading = {"rate": (last - first) / taken}
    for hop, node in enumerate(nodes[1:], 1):
        behind = [(times[node][position] - at) * 1000 for position, at in times[nodes[0]].items()]
        reading[f"p50 {hop}"] = percentile(behind, 0.5)
        reading[f"p99 {hop}"] = percentile(behind, 0.99)
    return reading


async def _append(head: PostgresStore, seconds: float) -> None:
    """Single events at a pace, whether the ones before are answered or not."""
    data = payloads(256)
    start = time.perf_counter()
    async with asyncio.TaskGroup() as tasks:
        for number in range(round(seconds * _PER_S)):
            if (early_s := start + number / _PER_S - time.perf_counter()) > 0:
                await asyncio.sleep(early_s)
            event = NewEvent("OrderPlaced", data[number % len(data)], METADATA)
            tasks.create_task(head.add(f"order-{number % 500}", Expect.ANY, [event]))


async def _wait_everywhere(config: Config, nodes: Sequence[str], last: Position) -> None:
    for name in nodes[1:]:
        store = open_store(config, name)
        try:
            async with asyncio.timeout(_ARRIVES_WITHIN_S):
                while (await store.tip()).position < last:
                    await asyncio.sleep(0.05)
        finally:
            await store.close()


async def _commits(config: Config, node: str, first: Position, last: Position) -> Mapping[int, float]:
    async with connected(config.node(node).dsn.reveal()) as connection:
        return {row["position"]: row["at"] for row in await connection.fetch(_TIMES, first, last)}


MEASURES: Final = (
    Measure("steady", "2,000 events/s through chains of real daemons, near and far apart.", steady),
)
