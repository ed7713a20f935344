"""Appends: one caller, many, many connections, many processes, batches, large events, conflicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from bench.measure import Bench, Contender, Measure, Reading
from bench.peers import event_sourcing, geochain, limits, message_db
from bench.peers.appending import PREPARES
from bench.series import Comparison, Goal, Sense
from bench.workload import Workload, run

_STORES: Final = (event_sourcing.NAME, message_db.NAME)


@dataclass(frozen=True, slots=True)
class _Case:
    name: str
    workload: Workload
    peers: tuple[str, ...]
    goals: tuple[Goal, ...] = ()
    p99_ms: float | None = None
    """A bound for the time of one append."""


_CASES: Final = (
    _Case("append, one caller", Workload(), (*_STORES, limits.COMMITS)),
    _Case(
        "append, 64 callers in a process",
        Workload(callers=64),
        (*_STORES, limits.COMMITS),
        (Goal(20_000), Goal(5.0, event_sourcing.NAME), Goal(5.0, message_db.NAME)),
    ),
    _Case(
        "append, 32 connections",
        Workload(callers=32, connection_each=True),
        (geochain.INSIDE, limits.COUNTER, *_STORES),
        (Goal(2.0, geochain.INSIDE),),
        p99_ms=20.0,
    ),
    _Case("append, 8 processes of 8 callers", Workload(callers=64, processes=8), _STORES),
    _Case("append, batches of 10", Workload(callers=8, batch=10), (*_STORES, limits.COMMITS)),
    _Case(
        "append, batches of 100", Workload(callers=8, batch=100), (*_STORES, limits.COMMITS), (Goal(100_000),)
    ),
    _Case(
        "append, batches of 100 by 64 callers",
        Workload(callers=64, batch=100),
        (*_STORES, limits.COMMITS),
        (Goal(100_000),),
    ),
    _Case("append, batches of 1,000", Workload(callers=8, batch=1000), (*_STORES, limits.COMMITS)),
    _Case("append, events of 64 KiB", Workload(callers=8, data_bytes=65_536), (*_STORES, limits.COMMITS)),
    _Case("append, 1 % conflicts", Workload(callers=64, conflicts=0.01), _STORES),
    _Case("append, 50 % conflicts", Workload(callers=64, conflicts=0.5), _STORES),
)


async def append(bench: Bench) -> Sequence[Comparison]:
    comparisons: list[Comparison] = []
    for case in _CASES if bench.scale.thorough else [c for c in _CASES if c.goals]:
        workload = replace(case.workload, seconds=bench.scale.seconds)
        contenders = [_contender(bench, peer, workload) for peer in (geochain.NAME, *case.peers)]
        found = await bench.side_by_side(case.name, contenders)
        comparisons.append(found.compare("rate", case.name, "events/s", Sense.AT_LEAST, *case.goals))
        bound = () if case.p99_ms is None else (Goal(case.p99_ms),)
        if workload.batch == 1 and not workload.conflicts:
            comparisons.append(found.compare("p99", f"{case.name}: p99", "ms", Sense.AT_MOST, *bound))
    return comparisons


def _contender(bench: Bench, peer: str, workload: Workload) -> Contender:
    async def once() -> Reading:
        async with bench.servers.database("alone") as dsn:
            await PREPARES[peer](dsn)
            return await run(bench.servers.folder, peer, dsn, workload)

    return Contender(peer, once)


MEASURES: Final = (Measure("append", "Durable appends in ten ways, beside other event stores.", append),)
