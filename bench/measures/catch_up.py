"""Catch-up: a whole log goes from a full node into an empty one, durably, with all indexes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Final

from bench.copying import copy_by_link, full_log
from bench.delay import delay
from bench.measure import Bench, Contender, Measure, Reading
from bench.nodes import new_follower
from bench.peers import copy_pipe, logical
from bench.series import Comparison, Goal, Sense

_ROUND_TRIPS_MS: Final = (80, 0, 20, 200)
"""The first is held against the second; the others are for who wants to know more."""


async def catch_up(bench: Bench) -> Sequence[Comparison]:
    servers, full = bench.servers, await full_log(bench)
    source = full.node

    async def by_link() -> Reading:
        async with new_follower(servers, source) as target:
            return {"rate": (await copy_by_link(source, target, full.tip)).rate}

    async def by_pipe() -> Reading:
        async with new_follower(servers, source) as target:
            start = time.perf_counter()
            await copy_pipe.copy(servers.folder, source.dsn, target.dsn)
            return {"rate": full.events / (time.perf_counter() - start)}

    async def by_subscription(changes: bool) -> Reading:
        async with new_follower(servers, source) as target:
            start = time.perf_counter()
            async with logical.subscribed(servers, source.dsn, target.dsn, changes=changes):
                await logical.wait_copied(target.dsn, full.tip)
                seconds = time.perf_counter() - start
            return {"rate": full.events / seconds}

    found = await bench.side_by_side(
        "catch-up",
        [
            Contender("geochain's link", by_link),
            Contender(copy_pipe.NAME, by_pipe),
            Contender(logical.CHANGES, lambda: by_subscription(True)),
            Contender(logical.COPY, lambda: by_subscription(False)),
        ],
    )
    return [
        found.compare(
            "rate",
            "catch-up replication, durable, with indexes",
            "events/s",
            Sense.AT_LEAST,
            Goal(1.0, copy_pipe.NAME),
            Goal(2.5, logical.CHANGES),
            note="The pipe is one transaction; the link commits batch by batch, and can be cut anywhere.",
        )
    ]


async def round_trips(bench: Bench) -> Sequence[Comparison]:
    """The same link by ways of different length, all of them through the same proxy."""
    servers, full = bench.servers, await full_log(bench)
    async with delay(servers.folder, full.node.dsn) as way:
        far = replace(full.node, dsn=way.through(full.node.dsn))

        async def by_link(milliseconds: int) -> Reading:
            await way.set_round_trip(milliseconds)
            async with new_follower(servers, full.node) as target:
                copied = await copy_by_link(far, target, full.tip)
                return {"rate": copied.rate, "under way": copied.under_way}

        ways_ms = _ROUND_TRIPS_MS if bench.scale.thorough else _ROUND_TRIPS_MS[:2]
        found = await bench.side_by_side(
            "catch-up by round trip",
            [Contender(f"{ms} ms", partial(by_link, ms)) for ms in ways_ms],
        )
    return [
        found.compare(
            "under way",
            "catch-up at a round trip of 80 ms, under way",
            "events/s",
            Sense.AT_LEAST,
            Goal(0.9, "0 ms"),
            note="From a tenth of the log on. All go through the same proxy, which takes processor time from"
            " the link and the servers.",
        ),
        found.compare(
            "rate",
            "the same from the first connection on",
            "events/s",
            Sense.AT_LEAST,
        ),
    ]


MEASURES: Final = (
    Measure(
        "catch-up",
        "A whole log into a node that keeps its indexes, beside COPY and logical replication.",
        catch_up,
    ),
    Measure("round-trips", "Catch-up over 0, 20, 80 and 200 ms.", round_trips),
)
