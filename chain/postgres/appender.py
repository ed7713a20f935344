"""Group commit: concurrent appends of one process share one statement and one commit.

While groups are on their way the next one gathers, so the size of a group follows the load by itself. Two
may be under way, of about the same size unless one stream has more: while one waits for the disk, the other
writes. More of them would be smaller ones, which cost what large ones do. Appends to one stream keep the
order in which they were called. One caller's conflict fails only that caller.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

import asyncpg

from chain.errors import BadInput, ChainError, Corrupt, OutcomeUnknown, WrongRevision
from chain.event import Appended, Epoch, Expect, Expected, NewEvent, Position, Revision
from chain.postgres.sessions import Sessions

MAX_GROUP_BYTES: Final = 32 * 1024 * 1024

IN_FLIGHT: Final = 2
"""Groups under way at a time, each on a connection of its own."""

_COMPANY: Final = 8
"""Fewer events are not worth a second group."""

_APPEND: Final = "call chain.append_and_flush($1, $2, $3, $4, $5, $6, $7, $8, $9)"
_APPEND_ONE: Final = "call chain.append_one($1, $2, $3, $4, $5, $6)"


@dataclass(slots=True, eq=False)
class _Request:
    stream: str
    expected: Expected
    events: Sequence[NewEvent]
    answer: asyncio.Future[Appended]


@dataclass(slots=True, eq=False)
class _Lane:
    """The appends to one stream that wait, in the order in which they were called."""

    stream: str
    waiting: deque[_Request] = field(default_factory=deque)


class Appender:
    """Gathers appends and sends them in groups of at most `group_events` events, on IN_FLIGHT sessions.

    A lane is in one place at a time: ready, held while an event id of it is under way elsewhere, or part of a
    group that is under way. So forming a group costs no more than what goes into it.
    """

    def __init__(self, sessions: Sessions, *, group_events: int = 4096) -> None:
        self._sessions = sessions
        self._group_events = group_events
        self._lanes: dict[str, _Lane] = {}
        self._ready: deque[_Lane] = deque()
        self._held: deque[_Lane] = deque()
        """Those that wait for an event id; each group that ends may have let go of it."""
        self._under_way: dict[asyncio.Task[None], Sequence[_Request]] = {}
        self._waiting_events = 0
        self._sent_events = 0
        """Of the groups that are under way."""
        self._ids: set[UUID] = set()
        """Of the events that are under way."""

    async def add(self, stream: str, expected: Expected, events: Sequence[NewEvent]) -> Appended:
        request = _Request(stream, expected, events, asyncio.get_running_loop().create_future())
        lane = self._lanes.get(stream)
        if lane is None:
            lane = self._lanes[stream] = _Lane(stream)
            self._ready.append(lane)
        lane.waiting.append(request)
        self._waiting_events += len(events)
        self._send_what_may_go()
        return await request.answer

    async def close(self) -> None:
        """Waits for what was begun; bounded by twice the sessions' timeout."""
        while self._under_way:
            await asyncio.wait(self._under_way)
        await self._sessions.close()

    def _send_what_may_go(self) -> None:
        while self._is_worth_a_group() and (group := self._next_group()):
            task = asyncio.create_task(self._send_or_part(group), name=f"append to {self._sessions.name}")
            self._under_way[task] = group
            task.add_done_callback(self._on_sent)

    def _is_worth_a_group(self) -> bool:
        """What waits goes at once, or, if a group is under way, when it is about as much as that."""
        under_way = len(self._under_way)
        share = max(_COMPANY, self._events // IN_FLIGHT)
        return under_way == 0 or (under_way < IN_FLIGHT and self._waiting_events >= share)

    @property
    def _events(self) -> int:
        """All that wait or are under way."""
        return self._waiting_events + self._sent_events

    def _on_sent(self, task: asyncio.Task[None]) -> None:
        group = self._under_way.pop(task)
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if error is not None:
            _fail(group, error)
        for request in group:
            self._ids.difference_update(event.id for event in request.events)
            self._sent_events -= len(request.events)
        self._ready.extend(self._held)
        self._held.clear()
        self._ready.extend(self._lanes[name] for name in dict.fromkeys(r.stream for r in group))
        self._send_what_may_go()

    async def _send_or_part(self, group: Sequence[_Request]) -> None:
        """Sends a group; if one of them can't be stored at all, each alone, so that only that one fails."""
        try:
            await self._send(group)
        except (BadInput, Corrupt) as error:
            if len(group) == 1:
                _fail(group, error)
            else:
                for request in group:
                    await self._send_or_part([request])
        except ChainError as error:
            _fail(group, error)

    def _next_group(self) -> list[_Request]:
        """About the same as the other groups get, lane by lane; an event id at most once.

        A lane goes whole if it fits into a statement: what stays behind of it has to wait for this group.
        """
        group: list[_Request] = []
        events = size = 0
        share = max(_COMPANY, -(-self._events // IN_FLIGHT))
        while self._ready and events < share:
            lane, taken = self._ready[0], len(group)
            while lane.waiting:
                request = lane.waiting[0]
                if request.answer.done():  # its caller has gone
                    lane.waiting.popleft()
                    self._waiting_events -= len(request.events)
                    continue
                own = {event.id for event in request.events}
                if own & self._ids:
                    break
                events += len(own)
                size += sum(len(event.data) + len(event.metadata) for event in request.events)
                if group and (events > self._group_events or size > MAX_GROUP_BYTES):
                    if len(group) > taken:
                        self._ready.popleft()
                    return group
                self._ids |= own
                group.append(lane.waiting.popleft())
                self._waiting_events -= len(request.events)
                self._sent_events += len(request.events)
            self._ready.popleft()
            if len(group) == taken and lane.waiting:
                self._held.append(lane)
            elif len(group) == taken:
                del self._lanes[lane.stream]
        return group

    async def _send(self, group: Sequence[_Request]) -> None:
        if len(group) == 1 and await self._sent_alone(group[0]):
            return
        names = dict.fromkeys(request.stream for request in group)
        streams = {name: number for number, name in enumerate(names, 1)}
        events = [event for request in group for event in request.events]
        clock = asyncio.get_running_loop().time
        async with self._sessions.use(writes=True) as connection:
            sent_at = clock()
            row = await connection.fetchrow(
                _APPEND,
                list(streams),
                [streams[request.stream] for request in group],
                [_expected(request.expected) for request in group],
                [len(request.events) for request in group],
                [number for number, request in enumerate(group, 1) for _ in request.events],
                [event.id for event in events],
                [event.type for event in events],
                [event.data for event in events],
                [event.metadata for event in events],
            )
        assert row is not None
        self._check_lease(row, clock() - sent_at)
        answers = zip(row["r_outcome"], row["r_position"], row["r_revision"], row["r_epoch"], strict=True)
        for request, answer in zip(group, answers, strict=True):
            if not request.answer.done():
                _answer(request, *answer)

    async def _sent_alone(self, request: _Request) -> bool:
        """Appends one event where its stream is expected to end, the short way; False if that was refused."""
        expected = _expected(request.expected)
        if len(request.events) > 1 or request.expected is Expect.ANY:
            return False
        event = request.events[0]
        clock = asyncio.get_running_loop().time
        async with self._sessions.use(writes=True) as connection:
            sent_at = clock()
            try:
                row = await connection.fetchrow(
                    _APPEND_ONE, request.stream, expected, event.id, event.type, event.data, event.metadata
                )
            except asyncpg.UniqueViolationError:
                return False
        assert row is not None
        if row["r_position"] is None:
            return False
        self._check_lease(row, clock() - sent_at)
        if not request.answer.done():
            _answer(request, "appended", row["r_position"], expected + 1, row["r_epoch"])
        return True

    def _check_lease(self, row: asyncpg.Record, taken_s: float) -> None:
        """An answer that took longer than the lease had left proves nothing: a server that froze after it had
        checked its lease may have a successor since. Raises OutcomeUnknown.
        """
        left_s = row["r_lease_left"]
        if left_s is not None and taken_s >= left_s:
            raise OutcomeUnknown(
                f"{self._sessions.name} answered when the lease that it wrote under had run out",
                hint="try again with the same event ids: what was stored is not stored twice",
            )


def _answer(request: _Request, outcome: str, first: int | None, revision: int, epoch: int) -> None:
    if outcome == "conflict" or first is None:
        request.answer.set_exception(
            WrongRevision(
                f"stream {request.stream!r} is at revision {revision}, not at"
                f" {_describe(request.expected)} as expected, or an event id is taken",
                current=revision,
            )
        )
        return
    request.answer.set_result(
        Appended(
            Position(first),
            Position(first + len(request.events) - 1),
            Revision(revision),
            Epoch(epoch),
            repeated=outcome == "repeated",
        )
    )


def _fail(requests: Iterable[_Request], error: BaseException) -> None:
    for request in requests:
        if not request.answer.done():
            request.answer.set_exception(error)


def _expected(expected: Expected) -> int:
    return expected.value if isinstance(expected, Expect) else expected


def _describe(expected: Expected) -> str:
    if expected is Expect.ANY:
        return "any"
    if expected is Expect.NO_STREAM:
        return "no stream"
    return str(expected)
