"""Reads what the nodes finally hold, for the checker."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final as Constant
from uuid import UUID

from chain.errors import ChainError
from chain.event import EMPTY, Position, Tip
from chain.ledger import EntryState
from chain.store import Store
from chain.topology import Topology
from failover import ledger_desk
from failover.drills.history import Final, Seen, seen

PAGE: Constant = 1000
READ_S: Constant = 60.0
"""The bound for all nodes together."""


async def read_final(stores: Mapping[str, Store], topology: Topology, start: Tip) -> Final:
    """What is on all nodes, members or not, from `start` on. Raises nothing: what can't be read is noted.

    Call it when nobody writes any more and the members have come to the head's tip.
    """
    logs: dict[str, tuple[Seen, ...]] = {}
    kept: list[Seen] = []
    unread: dict[str, str] = {}
    ledger: tuple[Seen, ...] = ()
    requeued: frozenset[UUID] = frozenset()

    async def read(node: str, store: Store) -> None:
        try:
            async with asyncio.timeout(READ_S):
                logs[node] = await _log(store, start)
                kept.extend(await _kept(store))
        except (ChainError, TimeoutError) as error:
            logs.pop(node, None)
            unread[node] = str(error) or f"not read within {READ_S:g} s"

    await asyncio.gather(*(read(node, store) for node, store in stores.items()))
    head = topology.head
    if head in logs:
        try:
            async with asyncio.timeout(READ_S):
                entries = await ledger_desk.entries(stores[head])
            ledger = tuple(seen(entry.event) for entry in entries)
            requeued = frozenset(e.event.id for e in entries if e.state is EntryState.REQUEUED)
        except (ChainError, TimeoutError) as error:
            unread[f"the ledger on {head}"] = str(error) or f"not read within {READ_S:g} s"
    return Final(topology.order, topology.regions, logs, ledger, requeued, tuple(kept), unread)


async def _log(store: Store, start: Tip) -> tuple[Seen, ...]:
    events: list[Seen] = []
    after = Position(max(0, start.position - 1))
    while True:
        page = await store.log(after, PAGE)
        events += (seen(event) for event in page.events)
        after = Position(page.next)
        if page.at_tip:
            return tuple(events)


async def _kept(store: Store) -> list[Seen]:
    events: list[Seen] = []
    after = EMPTY
    while dead := await store.dead_branch(after, PAGE):
        events += (seen(each.event) for each in dead)
        after = Tip(dead[-1].event.position, dead[-1].event.epoch)
    return events
