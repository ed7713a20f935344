"""The demo: a chain takes real purchases, loses its primary region, goes on, comes home, and proves it.

Everything is done as an operator and an application would do it: appends through the client, operations
through the playbooks, servers and daemons killed with SIGKILL.
"""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final
from uuid import UUID

from chain.client import Client
from chain.connect import open_store
from chain.errors import ChainError
from chain.event import Appended, Event, Expect, Position
from chain.ledger import EntryState
from chain.store import Store
from failover import ledger_desk
from failover.fleet import Fleet, open_fleet
from failover.local.chain import LocalChain
from failover.playbook import load_playbook
from failover.purchases import Line, cents
from failover.runner import Done, execute
from replicator.projection import project
from replicator.verify import Verdict, verify_chain

WRITERS: Final = 64
SECONDS: Final = 24.0
"""How long the import takes at the most, if nothing disturbs it: long enough to watch."""
LEAST_PER_SECOND: Final = 250.0
LINGER_S: Final = 5.0
STALL_S: Final = 0.15
"""A wide-area link is never so quick as a loopback: so that there is something to lose, it stalls first."""
_BY: Final = "the demo"

Tell = Callable[[str], None]
Meter = Callable[[int, int], None]
"""Told, some times a second, how many events are acknowledged, and of how many."""


@dataclass(frozen=True, slots=True)
class Books:
    """What the purchases come to."""

    events: int = 0
    customers: frozenset[str] = frozenset()
    cds: int = 0
    cents: int = 0

    @staticmethod
    def of(lines: Iterable[tuple[str, bytes]]) -> Books:
        """The books of (stream, data)."""
        events = cds = money = 0
        customers = set()
        for stream, data in lines:
            events += 1
            customers.add(stream)
            try:
                fields = json.loads(data)
                cds += int(fields.get("cds", 0))
                money += cents(fields.get("dollars", 0))
            except (ValueError, AttributeError, TypeError):
                continue
        return Books(events, frozenset(customers), cds, money)


@dataclass(slots=True)
class Timeline:
    """What happened when, in seconds since the demo's import began."""

    began: float = field(default_factory=time.monotonic)
    rows: list[tuple[str, float, str]] = field(default_factory=list)

    def mark(self, what: str, detail: str = "", *, at: float | None = None) -> float:
        moment = (time.monotonic() if at is None else at) - self.began
        self.rows.append((what, moment, detail))
        return moment


@dataclass(slots=True)
class Importer:
    """Appends lines through the client with many writers, at a pace, and remembers every answer."""

    client: Client
    lines: Sequence[Line]
    per_second: float
    answers: dict[UUID, Appended] = field(default_factory=dict)
    answered_at: list[float] = field(default_factory=list)
    _next: int = 0
    held_open: bool = True
    """Something is to happen under load before the last line."""
    _due: float = 0.0
    _answered: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as writers:
            for _ in range(WRITERS):
                writers.create_task(self._write())

    async def _write(self) -> None:
        while self._next < len(self.lines):
            line = self.lines[self._next]
            self._next += 1
            await asyncio.sleep(self._take_turn() - time.monotonic())
            answer = await self.client.add(line.stream, Expect.ANY, [line.event])
            self.answers[line.event.id] = answer
            self.answered_at.append(time.monotonic())
            self._answered.set()
            self._answered = asyncio.Event()

    def _take_turn(self) -> float:
        """When the next line is due. Held open, the import slows down as it nears its end, never idle."""
        rate = self.per_second
        if self.held_open:
            rate = min(rate, max(20.0, (len(self.lines) - self._next) / LINGER_S))
        self._due = max(self._due, time.monotonic() - 0.1) + 1 / rate
        return self._due

    async def wait_for(self, part: float) -> None:
        """Waits until this part of the lines is answered."""
        goal = int(len(self.lines) * part)
        while len(self.answers) < goal:
            await self._answered.wait()

    def pause_ms(self, start: float, end: float) -> float:
        """The longest time between two answers, in a window."""
        inside = [t for t in self.answered_at if start <= t <= end]
        gaps = [b - a for a, b in pairwise(inside)]
        return max(gaps, default=0.0) * 1000


async def run_demo(
    chain: LocalChain, lines: Sequence[Line], tell: Tell, meter: Meter = lambda done, all_: None
) -> dict[str, Any]:
    """Runs the whole story on a fresh local chain; the servers are gone when it returns.

    The result has the keys that `chainctl demo -o json` promises. `ok` says whether nothing was lost or
    duplicated, all nodes are equal, and the books match.
    """
    started = time.monotonic()
    await chain.wipe()
    try:
        tell("Starting a registry and three nodes: east-1 ─▶ west-1 ─▶ east-2.")
        config = await chain.up()
        client = Client(
            [n.name for n in config.nodes], lambda node: open_store(config, node), deadline_s=60.0
        )
        try:
            async with open_fleet(config, timeout_s=2.0) as fleet:
                story = _Story(chain, fleet, client, lines, tell, meter)
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
    timeline: Timeline = field(default_factory=Timeline)
    importer: Importer = field(init=False)

    async def run(self) -> dict[str, Any]:
        self.importer = Importer(
            self.client, self.lines, per_second=max(LEAST_PER_SECOND, len(self.lines) / SECONDS)
        )
        self.timeline = Timeline()
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
        await self._wait_lost()
        detected = time.monotonic()
        self.timeline.mark("detected", "east-1 does not answer", at=detected)
        done = await self._execute("failover", {"head_is_dead": True})
        self.timeline.mark("fenced", "west-1 refuses the old epoch", at=done.at["fence-others"])
        self.timeline.mark("promoted", "west-1 is head in epoch 2", at=done.at["promote"])
        first = await self._first_write_in(done.topology.epoch)
        self.timeline.mark("first write", "", at=first)
        start = (await self.fleet.registry.topology()).began or Position(0)
        unreplicated = sum(
            1
            for answer in self.importer.answers.values()
            if answer.epoch < done.topology.epoch and answer.last_position >= start
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
        rejoined = await self._execute("rejoin", {"node": "east-1"})
        self.timeline.mark("east-1 rejoined", " ─▶ ".join(rejoined.topology.order))
        kept, requeued = await self._requeue()
        self.timeline.mark("ledger settled", f"{kept} events kept, {requeued} requeued")
        start = time.monotonic()
        home = await self._execute("rotate", {"node": rejoined.topology.tail})
        end = time.monotonic()
        await self._first_write_in(home.topology.epoch)
        self.importer.held_open = False
        pause = self.importer.pause_ms(start - 0.5, max(end, time.monotonic()))
        self.timeline.mark("failed back", f"{' ─▶ '.join(home.topology.order)}; writes paused {pause:.0f} ms")
        self.tell(f"Home again: {' ─▶ '.join(home.topology.order)}; writes paused for {pause:.0f} ms.")
        return {"ledger": kept, "requeued": requeued, "failback_pause_ms": round(pause)}

    async def _requeue(self) -> tuple[int, int]:
        """Puts back what the ledger holds; what its writer has sent again by itself is only noted."""
        topology = await self.fleet.registry.topology()
        head = self.fleet.store(topology.head)
        entries = await ledger_desk.entries(head)
        answers = await asyncio.gather(
            *(
                ledger_desk.requeue(self.client, head, entry, by=_BY, at_end=True)
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
            "books": {"file": _plain(ours), "tail": _plain(theirs)},
            "customers": len(theirs.customers),
            "cds": theirs.cds,
            "dollars": f"{theirs.cents / 100:.2f}",
            "ok": not lost and not duplicated and verify == "OK" and ours == theirs,
        }

    async def _execute(self, playbook: str, parameters: dict[str, Any]) -> Done:
        return await execute(self.fleet, load_playbook(playbook), parameters, by=_BY, why="the demo's story")

    async def _wait_lost(self) -> None:
        """Detection as an operator's monitoring would do it: the head's store does not answer."""
        store = self.fleet.store("east-1")
        while True:
            try:
                await store.tip()
            except ChainError:
                return
            await asyncio.sleep(0.05)

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


def _plain(books: Books) -> dict[str, Any]:
    return {
        "events": books.events,
        "customers": len(books.customers),
        "cds": books.cds,
        "dollars": f"{books.cents / 100:.2f}",
    }
