"""Verification: two full nodes are compared by content, event by event."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from bench.copying import copy_by_link, full_log
from bench.delay import delay
from bench.measure import Bench, Contender, Measure, NotMeasured, Reading
from bench.nodes import FullLog, Node, new_follower, opened
from bench.programs import program, run
from bench.series import Comparison, Goal, Sense
from chain.event import Position
from chain.store import SEGMENT
from replicator.verify import Verdict, verify_chain

_ALONE: Final = "geochain, one node's digests"
_PAIR: Final = "geochain, two nodes at once"
_COPY: Final = "COPY of the log to /dev/null"


async def verify(bench: Bench) -> Sequence[Comparison]:
    servers, full = bench.servers, await full_log(bench)
    async with new_follower(servers, full.node) as target:
        await copy_by_link(full.node, target, full.tip)
        await servers.execute(target.dsn, "vacuum (analyze) chain.event")

        async def alone() -> Reading:
            return {"rate": full.events / await digest_all(full)}

        async def pair() -> Reading:
            return {"rate": full.events / await verify_pair(full.node, target)}

        async def copy() -> Reading:
            psql = (program("psql"), "--no-psqlrc", "--quiet", full.node.dsn)
            start = time.perf_counter()
            await run(servers.folder, *psql, "--command=\\copy chain.event to /dev/null (format binary)")
            return {"rate": full.events / (time.perf_counter() - start)}

        async def bytes_between() -> Reading:
            return {"share": await _share(bench, full, target)}

        found = await bench.side_by_side(
            "verify", [Contender(_ALONE, alone), Contender(_PAIR, pair), Contender(_COPY, copy)]
        )
        between = await bench.side_by_side("verify", [Contender("geochain", bytes_between)], repeats=1)
    return [
        found.compare("rate", "verify", "events/s a node", Sense.AT_LEAST, Goal(500_000)),
        between.compare(
            "share",
            "verify: bytes over the link",
            "% of the data",
            Sense.AT_MOST,
            Goal(0.1),
            note="All that a verifier beside one node exchanges with the other, of a COPY of the log.",
        ),
    ]


async def digest_all(full: FullLog) -> float:
    """Every segment's digest, one after the other; gives the seconds."""
    async with opened(full.node) as store:
        start = time.perf_counter()
        for first in range(1, full.tip + 1, SEGMENT):
            last = Position(min(first + SEGMENT - 1, full.tip))
            digest = await store.digest(Position(first), last)
            if digest.count != last - first + 1:
                raise RuntimeError(f"a digest of {digest.count} events from {first} to {last}")
        return time.perf_counter() - start


async def verify_pair(source: Node, target: Node) -> float:
    """The whole verification as shipped; gives the seconds."""
    async with opened(source) as ours, opened(target) as theirs:
        start = time.perf_counter()
        (found,) = await verify_chain({source.name: ours, target.name: theirs})
        seconds = time.perf_counter() - start
    if found.verdict is not Verdict.OK:
        raise RuntimeError(f"verification says {found.verdict.value}: {found.reason or found.findings}")
    return seconds


async def _share(bench: Bench, full: FullLog, target: Node) -> float:
    async with delay(bench.servers.folder, target.dsn) as way:
        await verify_pair(full.node, replace(target, dsn=way.through(target.dsn)))
        carried = await way.set_round_trip(0)
    if not carried:
        raise NotMeasured("the proxy carried nothing")
    size = await _copy_bytes(full)
    return carried / size * 100


async def _copy_bytes(full: FullLog) -> int:
    async with opened(full.node) as store:
        row = await store.row(
            "select sum(70 + octet_length(stream) + octet_length(type) + octet_length(data)"
            " + octet_length(metadata) + 16) as bytes from chain.event"
        )
    return int(row["bytes"])


MEASURES: Final = (Measure("verify", "Two full nodes are compared by content.", verify),)
