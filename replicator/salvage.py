"""Brings a dead branch into the ledger, and forgets it only when the ledger has come back.

The events are safe from the moment that they leave the log: `give_up` keeps them in the same transaction.
They are let go of when this node's own log holds their ledger entries, which it can only have from the head.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from chain.event import EMPTY, LEDGER_STREAM, Epoch, Expect, Tip
from chain.ledger import entry_event
from chain.store import DeadEvent, Store
from replicator.peers import Peers

log = logging.getLogger(__name__)

_PAGE: Final = 64


@dataclass(slots=True)
class Salvage:
    """Salvages what the store of node `node` has given up."""

    node: str
    store: Store
    peers: Peers
    _published: set[UUID] = field(default_factory=set)
    """Entries appended in `_epoch`: not appended again. Of another epoch's head nothing is assumed."""
    _epoch: Epoch | None = None

    async def publish(self, head: str, epoch: Epoch) -> int:
        """Appends what is kept to the ledger on `head`; returns how many entries were new to it.

        Idempotent: an entry always has the same id. Raises what the stores raise; then call it again.
        """
        if epoch != self._epoch:
            self._epoch = epoch
            self._published.clear()
        after = EMPTY
        new = 0
        while dead := await self.store.dead_branch(after, _PAGE):
            done = self._published | await self._release_what_came_back(dead)
            missing = [d for d in dead if entry_event(d)[1] not in done]
            if missing:
                new += await self._append(head, missing)
            after = Tip(dead[-1].event.position, dead[-1].event.epoch)
        if new:
            log.info("%s brought %d events of a dead branch into the ledger on %s", self.node, new, head)
        return new

    async def _release_what_came_back(self, dead: tuple[DeadEvent, ...]) -> frozenset[UUID]:
        """Which entries that are. Nothing is assumed of them later: their branch may die, too."""
        entries = {entry_event(d)[1]: d for d in dead}
        back = await self.store.holds(list(entries))
        if back:
            await self.store.release([entries[entry] for entry in back])
        return back

    async def _append(self, head: str, dead: list[DeadEvent]) -> int:
        ledger = self.store if head == self.node else self.peers(head)
        entries = [entry_event(d) for d in dead]
        try:
            answers = await asyncio.gather(
                *(ledger.append_system(LEDGER_STREAM, Expect.ANY, [event]) for event, _ in entries)
            )
        finally:
            if ledger is not self.store:
                await ledger.close()
        self._published |= {entry for _, entry in entries}
        return sum(not answer.repeated for answer in answers)
