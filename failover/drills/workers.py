"""Those who call: a writer, a reader, a follower. Each has one call under way at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any, Final

from chain.acks import Ack, NotYetReplicated
from chain.client import Client, Recency
from chain.errors import BadInput, ChainError, Diverged, Overloaded, WrongRevision
from chain.event import EMPTY, Appended, Epoch, Expect, Expected, NewEvent, Revision, Tip
from chain.topology import Topology
from failover.drills.history import Followed, Read, Result, Seen, Write, content, seen
from failover.drills.recorder import Recorder, now

GRACE_S: Final = 2.0
"""How much longer than the client's own deadline a call may take before it is broken off."""
SLICE_S: Final = 0.25
"""How long a follower follows before it looks again who the tail is."""
DECIDED_S: Final = 1.0
"""How long it waits to be told who the tail is."""
PAUSE_S: Final = 0.2
PAGE: Final = 50
BEHIND: Final = 10
"""A read begins so many revisions before the one that it is to see."""


@dataclass(frozen=True, slots=True)
class _Tail:
    node: str
    order: tuple[str, ...]
    epoch: Epoch


@dataclass(slots=True)
class Stage:
    """What the workers of one workload share."""

    client: Client
    topology: Callable[[], Awaitable[Topology]]
    nodes: Sequence[str]
    recorder: Recorder
    prefix: str
    call_s: float
    start: Tip = EMPTY
    ending: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when no new call is to begin."""
    latest: dict[str, Write] = field(default_factory=dict)
    """The last acknowledged append to each stream."""

    @property
    def over(self) -> bool:
        return self.ending.is_set() or self.recorder.full

    async def tail(self) -> _Tail | None:
        """The tail as decided; None if that can't be found out soon, or if the chain is of one node."""
        try:
            async with asyncio.timeout(DECIDED_S):
                topology = await self.topology()
        except (ChainError, TimeoutError):
            return None
        if len(topology.order) < 2:
            return None
        return _Tail(topology.tail, topology.order, topology.epoch)

    async def pause(self, seconds: float) -> None:
        """Returns at the end of the time, or when the end has come."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self.ending.wait(), max(0.0, seconds))


@dataclass(slots=True)
class Writer:
    """Appends, now to a stream of its own and now to a shared one, here at a revision and there anywhere."""

    name: str
    stage: Stage
    random: Random
    own: str
    shared: Sequence[str]
    acks: Sequence[Ack]
    every_s: float
    max_batch: int
    data_bytes: int
    retries: int
    _revisions: dict[str, int] = field(default_factory=dict)
    """Of a stream, as far as this writer was told."""
    _number: int = 0

    async def run(self) -> None:
        due = now()
        while not self.stage.over:
            stream = self.own if self.random.random() < 2 / 3 else self.random.choice(self.shared)
            events = self.events(self.random.randint(1, self.max_batch))
            expected = self._expected(stream)
            ack = self.random.choice(self.acks)
            for _ in range(1 + self.retries):
                write = await self.add(stream, expected, events, ack)
                if write.result is not Result.UNKNOWN or self.stage.over:
                    break
                await self.stage.pause(PAUSE_S)
            due = max(due + self.every_s, now())  # what was missed is not caught up with
            await self.stage.pause(due - now())

    def events(self, count: int) -> list[NewEvent]:
        """New ones, no two alike."""
        made = []
        for _ in range(count):
            self._number += 1
            text = f"{self.name}/{self._number}/"
            made.append(NewEvent("DrillWritten", text.encode().ljust(self.data_bytes, b".")))
        return made

    async def add(self, stream: str, expected: Expected, events: list[NewEvent], ack: Ack) -> Write:
        """One call, recorded."""
        contents = tuple(content(stream, event) for event in events)
        invoked_s = now()

        def ended(result: Result, error: str = "", appended: Appended | None = None) -> Write:
            call = (self.name, invoked_s, now(), result, error)
            return Write(*call, stream, expected, contents, ack, appended)

        try:
            async with asyncio.timeout(self.stage.call_s + GRACE_S):
                appended = await self.stage.client.add(stream, expected, events, ack)
            write = ended(Result.OK, appended=appended)
            self._revisions[stream] = appended.last_revision
            self.stage.latest[stream] = write
        except WrongRevision as error:
            write = ended(Result.FAILED, error.message)
            self._revisions[stream] = error.current
        except (BadInput, Overloaded) as error:
            write = ended(Result.FAILED, error.message)
        except NotYetReplicated as error:
            write = ended(Result.UNKNOWN, error.message, error.appended)
            self._revisions.pop(stream, None)
        except (ChainError, TimeoutError) as error:
            write = ended(Result.UNKNOWN, str(error) or f"no answer within {self.stage.call_s + GRACE_S:g} s")
            self._revisions.pop(stream, None)
        except asyncio.CancelledError:
            broken = replace(ended(Result.UNKNOWN, "broken off"), completed_s=None)
            self.stage.recorder.note_write(broken)
            raise
        self.stage.recorder.note_write(write)
        return write

    def _expected(self, stream: str) -> Expected:
        known = self._revisions.get(stream)
        if known is None or self.random.random() < 0.4:
            return Expect.ANY
        return Revision(known) if known >= 0 else Expect.NO_STREAM


@dataclass(slots=True)
class Reader:
    """Reads streams: its writers' own tokens, what it has itself seen, the latest, anywhere."""

    name: str
    stage: Stage
    random: Random
    every_s: float
    _carried: dict[str, Tip] = field(default_factory=dict)
    """Of a stream, the last event that this reader saw: it never wants to see less."""

    async def run(self) -> None:
        while not self.stage.over:
            await self.stage.pause(self.every_s)
            known = list(self.stage.latest.values())
            if known and not self.stage.over:
                await self._read(self.random.choice(known))

    async def _read(self, write: Write) -> None:
        appended = write.appended
        assert appended is not None, "only acknowledged writes are among the latest"
        revision = Revision(max(0, appended.last_revision - BEHIND))
        anywhere = self.random.choice((None, *self.stage.nodes))
        match self.random.randrange(3):
            case 0:
                await self.get(write.stream, revision, at_least=appended.token, node=anywhere)
            case 1:
                await self.get(write.stream, revision, latest=True)
            case _:
                carried = self._carried.get(write.stream)
                await self.get(write.stream, revision, at_least=carried, node=anywhere)

    async def get(
        self,
        stream: str,
        revision: Revision,
        *,
        at_least: Tip | None = None,
        latest: bool = False,
        node: str | None = None,
    ) -> None:
        """One call, recorded."""
        recency = Recency.LATEST if latest else Recency.ANY
        invoked_s = now()

        def ended(completed_s: float | None, result: Result, error: str = "", **answer: Any) -> Read:
            call = (self.name, invoked_s, completed_s, result, error)
            return Read(*call, stream, revision, at_least, latest, node, **answer)

        try:
            async with asyncio.timeout(self.stage.call_s + GRACE_S):
                page = await self.stage.client.get(
                    stream, revision, PAGE, node=node, at_least=at_least, recency=recency
                )
        except (ChainError, TimeoutError) as error:
            self._carried.pop(stream, None)  # it may lie on a dead branch
            reason = str(error) or f"no answer within {self.stage.call_s + GRACE_S:g} s"
            self.stage.recorder.note_read(ended(now(), Result.FAILED, reason))
            return
        except asyncio.CancelledError:
            self.stage.recorder.note_read(ended(None, Result.UNKNOWN, "broken off"))
            raise
        events = tuple(seen(event) for event in page.events)
        read = ended(now(), Result.OK, seen=events, next=page.next, at_tip=page.at_tip)
        if events:
            self._carried[stream] = max(events[-1].place, self._carried.get(stream, EMPTY))
        self.stage.recorder.note_read(read)


@dataclass(slots=True)
class Follower:
    """Follows the log from the workload's first event on: at the tail, whoever that is, or at any node."""

    name: str
    stage: Stage
    at_tail: bool
    ending: asyncio.Event
    """Later than the stage's: it is to see what was written last."""
    _place: Tip = EMPTY
    _session: int = 0

    async def run(self) -> None:
        self._place = self.stage.start
        tail = await self.stage.tail() if self.at_tail else None
        while not self.ending.is_set():
            pages = await self._slice(tail.node if tail else None)
            after = await self.stage.tail() if self.at_tail else None
            for at_s, session, events in pages:
                of_tail = tail is not None and tail == after
                node = tail.node if tail else None
                page = Followed(self.name, session, at_s, node, of_tail, events)
                self.stage.recorder.note_followed(page)
            tail = after or tail

    async def _slice(self, node: str | None) -> list[tuple[float, int, tuple[Seen, ...]]]:
        pages: list[tuple[float, int, tuple[Seen, ...]]] = []
        try:
            async with asyncio.timeout(SLICE_S):
                async for page in self.stage.client.follow(self._place, node=node):
                    last = page.events[-1]
                    pages.append((now(), self._session, tuple(seen(event) for event in page.events)))
                    self._place = Tip(last.position, last.epoch)
        except TimeoutError:
            pass
        except Diverged:  # what it had read was taken away; whether it may have been, the checker says
            self._session += 1
            self._place = self.stage.start
        except ChainError:
            await asyncio.sleep(PAUSE_S)
        return pages
