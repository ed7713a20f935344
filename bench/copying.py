"""Full logs, and the shipped link that copies them."""

from __future__ import annotations

import asyncio
import sys
import time
from dataclasses import dataclass
from typing import Final

from bench.measure import Bench
from bench.nodes import CHAIN, EPOCH, FullLog, Node, fill, make_head, opened
from bench.peers import logical
from chain.config.models import LinksConfig
from chain.event import Position
from chain.store import Role
from chain.tasks import end
from chain.topology import Follow
from replicator.link import Link
from replicator.read_ahead import Pace

_GIVES_UP_S: Final = 1800.0


async def full_log(bench: Bench) -> FullLog:
    """A head with the scale's events on the server `source`, made once a run. It can be subscribed to."""
    if bench.full is None:
        node = await make_head(bench.servers, "source")
        await logical.publish(node.dsn)
        bench.full = FullLog(node, await fill(node.dsn, bench.scale.events))
    return bench.full


def shipped_pace() -> Pace:
    """As a daemon's with no word about links in chain.yaml, for a follower that was away for long.

    One that begins with nothing would be loaded without its indexes: that is what `bootstrap` measures.
    """
    links = LinksConfig()
    return Pace(
        batch_events=links.batch_events,
        batch_bytes=links.batch_bytes,
        idle_s=links.idle,
        load_events=sys.maxsize,
    )


@dataclass(frozen=True, slots=True)
class Copied:
    """What a link did."""

    events: int
    seconds: float
    under_way: float
    """Events a second once a tenth was there: without the connections, and the batches that still grow."""

    @property
    def rate(self) -> float:
        return self.events / self.seconds


async def copy_by_link(source: Node, target: Node, tip: Position) -> Copied:
    """Runs the shipped link until the target is at `tip` or past it."""
    async with opened(source) as ours, opened(target) as theirs:
        before = (await theirs.tip()).position
        link = Link(
            chain=CHAIN,
            source_name=source.name,
            target_name=target.name,
            source=ours,
            target=theirs,
            assignment=Follow(epoch=EPOCH, upstream=source.name, role=Role.TAIL),
            pace=shipped_pace(),
        )
        start = time.perf_counter()
        tenth: tuple[Position, float] | None = None
        running = asyncio.create_task(link.run())
        try:
            async with asyncio.timeout(_GIVES_UP_S):
                while (at := link.status.target_tip.position) < tip:
                    if running.done():
                        running.result()
                    if tenth is None and at >= before + (tip - before) // 10:
                        tenth = at, time.perf_counter()
                    await asyncio.sleep(0.002)
            ended = time.perf_counter()
            since, began = tenth or (before, start)
            return Copied(at - before, ended - start, (at - since) / (ended - began))
        finally:
            await end(running)
