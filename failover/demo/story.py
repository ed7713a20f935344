"""The demo's story: purchases, the loss of a region, the way home, and the proof that all is there.

Everything is done as an operator and an application would do it: appends through the client, operations
through the playbooks, servers and daemons killed with SIGKILL.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from chain.client import Client
from chain.connect import open_client
from chain.event import Event, Position
from chain.ledger import EntryState
from chain.store import Store
from failover import ledger_desk
from failover.demo.books import Books
from failover.demo.hands import BY, Hands, Nobody, Operator
from failover.demo.importer import WRITERS, Importer, Timeline
from failover.fleet import Fleet, open_fleet
from failover.local.chain import LocalChain
from failover.purchases import Line
from replicator.projection import project
from replicator.verify import Verdict, verify_chain

SECONDS: Final = 24.0
"""How long the import takes at the most, if nothing disturbs it: long enough to watch."""
LEAST_PER_SECOND: Final = 250.0
STALL_S: Final = 0.15
"""A wide-area link is never so quick as a loopback: so that there is something to lose, it stalls first."""

_AUTOMATIC: Final = {"automation": {"policy": "automatic", "come_home": True}}

Tell = Callable[[str], None]
Meter = Callable[[int, int], None]
"""Told, some times a second, how many events are acknowledged, and of how many."""


async def run_demo(
    chain: LocalChain,
    lines: Sequence[Line],
    tell: Tell,
    meter: Meter = lambda done, all_: None,
    *,
    automatic: bool = False,
) -> dict[str, Any]:
    """Runs the whole story on a fresh local chain; the servers are gone when it returns.

    `automatic` runs two controllers, and then nobody gives a command.

    The result has the keys that `chainctl demo -o json` promises. `ok` says whether nothing was lost or
    duplicated, all nodes are equal, and the books match.
    """
    started = time.monotonic()
    await chain.wipe()
    try:
        tell("Starting a registry and three nodes: east-1 ─▶ west-1 ─▶ east-2.")
        config = await chain.up(options=_AUTOMATIC if automatic else None)
        if automatic:
            tell("Two controllers watch them; from here on nobody gives a command.")
            chain.start_controller("one")
            chain.start_controller("two")
        client = open_client(config, deadline_s=60.0)
        try:
            async with open_fleet(config, timeout_s=5.0) as fleet:
                story = _Story(chain, fleet, client, lines, tell, meter, automatic)
                result = await story.run()
        finally:
            await client.close()
    finally:
        await chain.wipe()
    result["seconds"] = round(time.monotonic() - started, 1)
    return result


@dataclass(slots=True)
class _Story:
    chain: LocalChain
    fleet: Fleet
    client: Client
    lines: Sequence[Line]
    tell: Tell
    meter: Meter
    automatic: bool
    timeline: Timeline = field(default_factory=Timeline)
    importer: Importer = field(init=False)
    hands: Hands = field(init=False)

    async def run(self) -> dict[str, Any]:
        self.importer = Importer(
            self.client, self.lines, per_second=max(LEAST_PER_SECOND, len(self.lines) / SECONDS)
        )
        self.timeline = Timeline()
        hands = Nobody if self.automatic else Operator
        self.hands = hands(self.fleet, self.timeline)
        self.tell(f"Importing {len(self.lines):,} events with {WRITERS} writers.")
        async with asyncio.TaskGroup() as tasks:
            importing = tasks.create_task(self.importer.run())
            metering = tasks.create_task(self._measure())
            lost = await self._during(importing, self._lose_the_region)
            back = await self._during(importing, self._come_home)
            await asyncio.wait({importing})
            metering.cancel()
        self.timeline.mark("all written", f"{len(self.importer.answers):,} events acknowledged")
        proof = await self._prove()
        return {**lost, **back, **proof, "timeline": self.timeline.rows}

    async def _measure(self) -> None:
        while True:
            self.meter(len(self.importer.answers), len(self.lines))
            await asyncio.sleep(0.2)

    async def _during(
        self, importing: asyncio.Task[None], act: Callable[[], Awaitable[dict[str, Any]]]
    ) -> dict[str, Any]:
        """Acts while the import runs; if the import fails, that is what failed."""
        acting = asyncio.ensure_future(act())
        await asyncio.wait({importing, acting}, return_when=asyncio.FIRST_COMPLETED)
        if importing.done() and importing.exception() is not None:
            acting.cancel()
            await importing
        return await acting

    async def _lose_the_region(self) -> dict[str, Any]:
        await self.importer.wait_for(1 / 3)
        self.tell(f"The link between the regions stalls for {STALL_S * 1000:.0f} ms.")
        self.timeline.mark("link stalls", "SIGSTOP: the daemon of west-1")
        self.chain.signal_daemon("west-1", signal.SIGSTOP)
        await asyncio.sleep(STALL_S)
        killed = time.monotonic()
        self.timeline.mark("region east killed", "SIGKILL: servers and daemons of east-1 and east-2")
        self.tell("Killing region east: head and tail, servers and daemons, with SIGKILL.")
        await self.chain.kill("east-1", "east-2")
        self.chain.signal_daemon("west-1", signal.SIGCONT)
        detected, topology = await self.hands.replace_head()
        first = await self._first_write_in(topology.epoch)
        self.timeline.mark("first write", "", at=first)
        start = (await self.fleet.registry.topology()).began or Position(0)
        unreplicated = sum(
            1
            for answer in self.importer.answers.values()
            if answer.epoch < topology.epoch and answer.last_position >= start
        )
        self.tell(
            f"west-1 is head {(first - killed) * 1000:,.0f} ms after the loss;"
            f" {unreplicated} acknowledged events had not been replicated."
        )
        return {
            "failover_ms": round((first - detected) * 1000),
            "outage_ms": round((first - killed) * 1000),
            "unreplicated": unreplicated,
        }

    async def _come_home(self) -> dict[str, Any]:
        await self.importer.wait_for(2 / 3)
        self.tell("Region east is back: its servers and daemons start again.")
        await self.chain.start("east-1", "east-2")
        self.timeline.mark("region east is back")
        start = time.monotonic()
        back = await self.hands.bring_back()
        self.timeline.mark("east-1 is a member again", " ─▶ ".join(back.order))
        home = await self.hands.go_home()
        end = time.monotonic()
        await self._first_write_in(home.epoch)
        pause = self.importer.pause_ms(start - 0.5, max(end, time.monotonic()))
        self.timeline.mark("failed back", f"{' ─▶ '.join(home.order)}; writes paused {pause:.0f} ms")
        self.tell(f"Home again: {' ─▶ '.join(home.order)}; writes paused for {pause:.0f} ms.")
        kept, requeued = await self._requeue()
        self.timeline.mark("ledger settled", f"{kept} events kept, {requeued} requeued")
        self.importer.held_open = False
        return {"ledger": kept, "requeued": requeued, "failback_pause_ms": round(pause)}

    async def _requeue(self) -> tuple[int, int]:
        """Puts back what the ledger holds; what its writer has sent again by itself is only noted."""
        topology = await self.fleet.registry.topology()
        head = self.fleet.store(topology.head)
        entries = await ledger_desk.entries(head)
        answers = await asyncio.gather(
            *(
                ledger_desk.requeue(self.client, head, entry, by=BY, at_end=True)
                for entry in entries
                if entry.state is EntryState.OPEN and not entry.is_system
            )
        )
        requeued = sum(not answer.repeated for _, answer in answers)
        self.tell(f"The ledger held {len(entries)} events of the dead branch; {requeued} had to be requeued.")
        return len(entries), requeued

    async def _prove(self) -> dict[str, Any]:
        """Verifies all nodes, and sums the tail's own events against the file."""
        topology = await self.fleet.registry.topology()
        stores = {n: self.fleet.store(n) for n in topology.order}
        tip = await stores[topology.head].tip()
        for store in stores.values():
            await _wait_for(store, tip.position)
        verified = await verify_chain(stores, last=tip.position)
        for pair in verified:
            self.tell(f"Verified {pair.source} = {pair.target} up to {pair.last:,}: {pair.verdict.value}.")
        found: list[Event] = await project(stores[topology.tail], [], _collect, until=tip.position)
        ours = Books.of((line.stream, line.event.data) for line in self.lines)
        theirs = Books.of((event.stream, event.data) for event in found)
        ids = [event.id for event in found]
        sent = {line.event.id for line in self.lines}
        lost = len(sent - set(ids))
        duplicated = len(ids) - len(set(ids)) + len(set(ids) - sent)
        verify = "OK" if all(v.verdict is Verdict.OK for v in verified) else "DIFF"
        if any(v.verdict is Verdict.UNKNOWN for v in verified):
            verify = "UNKNOWN"
        return {
            "events": len(self.lines),
            "acknowledged": len(self.importer.answers),
            "lost": lost,
            "duplicated": duplicated,
            "verify": verify,
            "chain": list(topology.order),
            "epoch": topology.epoch,
            "books": {"file": ours.plain(), "tail": theirs.plain()},
            "customers": len(theirs.customers),
            "cds": theirs.cds,
            "dollars": f"{theirs.cents / 100:.2f}",
            "ok": not lost and not duplicated and verify == "OK" and ours == theirs,
        }

    async def _first_write_in(self, epoch: int) -> float:
        """When the first append in an epoch was answered."""
        seen = 0
        while True:
            answers = list(self.importer.answers.values())
            for index in range(seen, len(answers)):
                if answers[index].epoch >= epoch:
                    return self.importer.answered_at[index]
            if len(answers) == len(self.lines):
                return self.importer.answered_at[-1]
            seen = len(answers)
            await asyncio.sleep(0.005)


async def _wait_for(store: Store, position: Position) -> None:
    while (await store.tip()).position < position:
        await store.wait(Position(position - 1), 0.2)


def _collect(found: list[Event], event: Event) -> list[Event]:
    if not event.stream.startswith("$"):
        found.append(event)
    return found
