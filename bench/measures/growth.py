"""Growth: whether appends, reads, replication and verification cost the same in a log ten times as long.

The logs lie side by side in one server, and take turns. Each has a follower, made as a copy of the database
when all but the last rows were there; those are what its link copies.
"""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from bench.copying import copy_by_link
from bench.measure import Bench, Contender, Measure, Reading
from bench.nodes import EPOCH, FullLog, Node, fill, make_head, opened
from bench.peers import geochain
from bench.series import Comparison, Goal, Sense, percentile
from bench.servers import connected
from bench.workload import Workload, run
from chain.event import Position, Revision

_SERVER: Final = "grown"
_COPIED: Final = 300_000
"""Rows that a link copies in one run, at most a fifth of the smallest log."""
_VERIFIED: Final = 1_000_000
"""Rows of which the digests are computed in one run, from all over the log."""
_SEGMENT: Final = 16_384
_GETS: Final = 200


@dataclass(slots=True)
class _Grown:
    full: FullLog
    follower: Node
    copied: Position
    """How far the follower is."""
    chance: random.Random = field(default_factory=lambda: random.Random(1))
    runs: int = 0


async def growth(bench: Bench) -> Sequence[Comparison]:
    sizes = sorted(bench.scale.growth)
    share = min(_COPIED, sizes[0] // 5)
    logs = {size: await _grow(bench, size, share) for size in sizes}
    try:
        found = {
            what: await bench.side_by_side(
                f"growth, {what}",
                # The largest first: it is held against the smallest.
                [
                    Contender(_called(size), _bound(measured, bench, logs[size], share))
                    for size in reversed(sizes)
                ],
            )
            for what, measured in _MEASURED.items()
        }
    finally:
        await bench.servers.stop(_SERVER)
    least = _called(sizes[0])
    return [
        found[what].compare(
            "figure", f"{what} in a log of {_called(sizes[-1])}", unit, sense, Goal(bound, least)
        )
        for what, unit, sense, bound in (
            ("append, 64 callers", "events/s", Sense.AT_LEAST, 0.8),
            ("get an order of 50 events", "ms", Sense.AT_MOST, 1.2),
            ("get 1,000 events", "ms", Sense.AT_MOST, 1.2),
            ("replicate", "events/s", Sense.AT_LEAST, 0.8),
            ("verify", "events/s a node", Sense.AT_LEAST, 0.8),
        )
    ]


def _called(size: int) -> str:
    return f"{size:,} events"


async def _grow(bench: Bench, size: int, share: int) -> _Grown:
    """A head of so many rows, and a follower that lacks what is to be copied."""
    servers = bench.servers
    start = time.monotonic()
    head = replace(await make_head(servers, _SERVER), name=f"head-{size}")
    before = size - share * bench.scale.repeats
    await fill(head.dsn, before)
    dsn = await servers.copy_database(_SERVER, head.dsn)
    follower = Node(f"tail-{size}", _SERVER, dsn)
    await servers.execute(
        dsn,
        f"update chain.node set node = '{follower.name}', role = 'tail', upstream = '{head.name}'",
    )
    await servers.execute(head.dsn, f"update chain.node set node = '{head.name}'")
    tip = await fill(head.dsn, size, after=before)
    bench.tell(f"growth: a log of {size:,} events and its follower took {time.monotonic() - start:.0f} s")
    return _Grown(FullLog(head, tip), follower, Position(before + 1))


async def _append(bench: Bench, log: _Grown, share: int) -> Reading:
    """What is appended is taken out again: the rows behind it have their places."""
    tip = log.full.tip
    # New streams in each run.
    workload = Workload(callers=64, seconds=bench.scale.seconds, first_process=log.runs)
    log.runs += 1
    reading = await run(bench.servers.folder, geochain.NAME, log.full.node.dsn, workload)
    async with connected(log.full.node.dsn) as connection, connection.transaction():
        await connection.execute("select from chain.node for no key update")
        await connection.execute("delete from chain.event where position > $1", tip, timeout=600)
        await connection.execute("update chain.node set tip_position = $1, tip_epoch = $2", tip, EPOCH)
    return {"figure": reading["rate"]}


async def _get_orders(bench: Bench, log: _Grown, share: int) -> Reading:
    """Orders from all over the log, each but once."""
    orders = log.full.events // 50_000 * 898 or 898 // 2
    async with opened(log.full.node) as store:
        await store.get("nothing")
        taken = []
        for _ in range(_GETS):
            stream = f"order-{log.chance.randrange(orders)}"
            start = time.perf_counter()
            await store.get(stream)
            taken.append((time.perf_counter() - start) * 1000)
    return {"figure": percentile(taken, 0.5)}


async def _get_many(bench: Bench, log: _Grown, share: int) -> Reading:
    async with opened(log.full.node) as store:
        await store.get("nothing")
        taken = []
        for _ in range(max(1, _GETS // 20)):
            start = time.perf_counter()
            await store.get(
                "account-100000", Revision(log.chance.randrange(max(1, log.full.events // 20))), 1000
            )
            taken.append((time.perf_counter() - start) * 1000)
    return {"figure": percentile(taken, 0.5)}


async def _replicate(bench: Bench, log: _Grown, share: int) -> Reading:
    goal = Position(min(log.copied + share, log.full.tip))
    copied = await copy_by_link(log.full.node, log.follower, goal)
    log.copied = Position(log.copied + copied.events)
    if not copied.events:
        raise RuntimeError("an earlier run has copied all there is")
    return {"figure": copied.rate}


async def _verify(bench: Bench, log: _Grown, share: int) -> Reading:
    """Segments from all over the log."""
    count = min(_VERIFIED, log.full.events)
    step = max(_SEGMENT, log.full.events // max(1, count // _SEGMENT))
    async with opened(log.full.node) as store:
        start, done = time.perf_counter(), 0
        for first in range(1, log.full.tip, step):
            last = Position(min(first + _SEGMENT - 1, log.full.tip))
            done += (await store.digest(Position(first), last)).count
        return {"figure": done / (time.perf_counter() - start)}


_MEASURED: Final[dict[str, Callable[[Bench, _Grown, int], Awaitable[Reading]]]] = {
    "append, 64 callers": _append,
    "get an order of 50 events": _get_orders,
    "get 1,000 events": _get_many,
    "replicate": _replicate,
    "verify": _verify,
}


def _bound(
    measured: Callable[[Bench, _Grown, int], Awaitable[Reading]], bench: Bench, log: _Grown, share: int
) -> Callable[[], Awaitable[Reading]]:
    return lambda: measured(bench, log, share)


MEASURES: Final = (Measure("growth", "The same work in a short log and in a long one (`--sizes`).", growth),)
