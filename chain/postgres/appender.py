"""Group commit: concurrent appends of one process share one statement and one commit.

While a group is on its way the next one gathers, so the size of a group follows the load by itself. One
caller's conflict fails only that caller.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from chain.errors import BadInput, ChainError, Corrupt, OutcomeUnknown, WrongRevision
from chain.event import Appended, Epoch, Expect, Expected, NewEvent, Position, Revision
from chain.postgres.sessions import Sessions

MAX_GROUP_BYTES: Final = 32 * 1024 * 1024

_APPEND: Final = "select * from chain.append_group($1, $2, $3, $4, $5, $6, $7, $8, $9)"


@dataclass(slots=True, eq=False)
class _Request:
    stream: str
    expected: Expected
    events: Sequence[NewEvent]
    answer: asyncio.Future[Appended]


class Appender:
    """Gathers appends and sends them in groups of at most `group_events` events."""

    def __init__(self, sessions: Sessions, *, group_events: int = 4096) -> None:
        self._sessions = sessions
        self._group_events = group_events
        self._waiting: deque[_Request] = deque()
        self._sending: asyncio.Task[None] | None = None

    async def add(self, stream: str, expected: Expected, events: Sequence[NewEvent]) -> Appended:
        request = _Request(stream, expected, events, asyncio.get_running_loop().create_future())
        self._waiting.append(request)
        if self._sending is None:
            self._sending = asyncio.create_task(self._send_all(), name=f"append to {self._sessions.name}")
        return await request.answer

    async def close(self) -> None:
        """Waits for what was begun; bounded by the sessions' timeout."""
        if self._sending is not None:
            await asyncio.wait({self._sending})
        await self._sessions.close()

    async def _send_all(self) -> None:
        try:
            while group := self._next_group():
                try:
                    await self._send_or_part(group)
                except BaseException as error:
                    _fail((*group, *self._waiting), error)
                    self._waiting.clear()
                    raise
        finally:
            self._sending = None

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
        """As many requests, in order, as fit into one statement; an event id at most once."""
        group: list[_Request] = []
        ids: set[UUID] = set()
        events = size = 0
        while self._waiting:
            request = self._waiting[0]
            if request.answer.done():  # its caller has gone
                self._waiting.popleft()
                continue
            own = {event.id for event in request.events}
            events += len(own)
            size += sum(len(event.data) + len(event.metadata) for event in request.events)
            if group and (events > self._group_events or size > MAX_GROUP_BYTES or ids & own):
                break
            ids |= own
            group.append(self._waiting.popleft())
        return group

    async def _send(self, group: Sequence[_Request]) -> None:
        names = dict.fromkeys(request.stream for request in group)
        streams = {name: number for number, name in enumerate(names, 1)}
        events = [event for request in group for event in request.events]
        clock = asyncio.get_running_loop().time
        async with self._sessions.use(writes=True) as connection:
            sent_at = clock()
            rows = await connection.fetch(
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
        left_s = rows[0]["lease_left"]
        if left_s is not None and clock() - sent_at >= left_s:
            # A server that froze after it had checked its lease: another head may have taken over since.
            raise OutcomeUnknown(
                f"{self._sessions.name} answered when the lease that it wrote under had run out",
                hint="try again with the same event ids: what was stored is not stored twice",
            )
        for request, row in zip(group, rows, strict=True):
            if not request.answer.done():
                _answer(request, row["outcome"], row["first_position"], row["last_revision"], row["in_epoch"])


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
