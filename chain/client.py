"""The client that applications use: appends and reads on a chain, wherever its head is.

It finds the head by asking the nodes, follows it through switchover and failover, and tries again with the
same event ids, which the store holds once: so an `add` that returns has stored its events exactly once on
the head that answered, and on as many nodes as was asked, however many times it had to be sent.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import Final, TypeVar

from tenacity import AsyncRetrying, retry_if_exception, wait_exponential, wait_random

from chain.acks import (
    ANSWER_S,
    Ack,
    Acks,
    Decided,
    Head,
    NotYetReplicated,
    closed,
    holds,
    joins,
)
from chain.errors import (
    BadInput,
    ChainError,
    NotHead,
    Overloaded,
    Refused,
    TimedOut,
    Unavailable,
)
from chain.event import EMPTY, Appended, Expected, NewEvent, Position, Revision, Tip
from chain.finder import HeadFinder
from chain.store import Page, Store
from chain.topology import Topology

__all__ = ["Ack", "Client", "NotYetReplicated", "Recency"]

log = logging.getLogger(__name__)

IDLE_S: Final = 1.0
SHUN_S: Final = 1.0

T = TypeVar("T")


class Recency(Enum):
    """How new a read must be."""

    LATEST = "latest"
    """At the head, by its own word at the time of the read: every append that was answered before is seen."""
    ANY = "any"
    """At the nearest node that answers: it may lag, and a lost head's events may still be there."""


@dataclass(slots=True)
class _Call:
    """What a call has seen up to now, for the error at its deadline."""

    seen: ChainError | None = None
    appended: Appended | None = None
    head: Head | None = None
    """Who answered with `appended`."""


class Client:
    """A client of the chain of `nodes` (node to region, the nearest first).

    `open_store` opens the store of a node by its name. `topology` tells what is decided; the acknowledgement
    of a whole chain needs it. `deadline_s` bounds every call, retries and a failover included. Appends that
    are under way, or wait for a head, hold `buffer_events` events at most. Any number of tasks may share a
    client; their appends are grouped. `on_close` is awaited by `close`.
    """

    def __init__(
        self,
        nodes: Mapping[str, str],
        open_store: Callable[[str], Store],
        *,
        topology: Callable[[], Awaitable[Topology]] | None = None,
        deadline_s: float = 30.0,
        buffer_events: int = 100_000,
        on_close: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._regions = dict(nodes)
        self._stores = {node: open_store(node) for node in nodes}
        self._decided = Decided(topology) if topology else None
        self._acks = Acks(self._regions, self._stores, self._decided)
        self._deadline_s = deadline_s
        self._buffer_events = buffer_events
        self._on_close = on_close
        self._buffered = 0
        self._finder = HeadFinder(self._stores, self._decided)
        self._shunned: dict[str, float] = {}
        self._closed = False

    async def add(
        self, stream: str, expected: Expected, events: Sequence[NewEvent], ack: Ack = Ack.HEAD
    ) -> Appended:
        """Appends to the head; when it returns, the events are durable where `ack` says.

        Raises BadEvent, WrongRevision; Refused, BadInput if the chain has no such `ack`; Overloaded. At the
        deadline NotYetReplicated if a head has the events, else Unavailable: then it is open whether they
        were stored. Either way, call again with the same events.
        """
        call = _Call()
        with self._buffer(len(events)):
            try:
                async with asyncio.timeout(self._deadline_s):
                    await self._acks.prepare(ack)
                    return await _tried(call, lambda: self._add(call, stream, expected, events, ack))
            except (TimeoutError, Refused) as error:
                if isinstance(error, Refused) and call.appended is None:
                    raise
                raise self._late(call, ack) from call.seen

    async def get(
        self,
        stream: str,
        revision: Revision = Revision(0),
        limit: int = 1000,
        *,
        node: str | None = None,
        at_least: Tip | None = None,
        recency: Recency = Recency.LATEST,
    ) -> Page:
        """Events of a stream, from `node`, or from where `recency` says.

        With `at_least`, the token of an append, waits until the node has that event. Raises TimedOut if it
        has not by the deadline, Diverged if the token lies on a dead branch.
        """
        return await self._read(lambda s: s.get(stream, revision, limit), node, at_least, recency)

    async def log(
        self,
        after: Position = Position(0),
        limit: int = 1000,
        *,
        node: str | None = None,
        at_least: Tip | None = None,
        recency: Recency = Recency.LATEST,
    ) -> Page:
        """Events behind position `after`; the rest as `get`."""
        return await self._read(lambda s: s.log(after, limit), node, at_least, recency)

    async def follow(
        self,
        after: Position | Tip = Position(0),
        *,
        node: str | None = None,
        recency: Recency = Recency.ANY,
    ) -> AsyncIterator[Page]:
        """Events behind `after`, and then, for ever, what comes; no position twice, none left out.

        A page is never empty. When a node fails it goes on at another that holds the last event. Give the
        `Tip` of the last event, not only its position, and that is held to from the start. Raises Diverged
        if a lost head took it away; Unavailable if no node was of use for `deadline_s`.
        """
        place = after if isinstance(after, Tip) and after != EMPTY else None
        position = after.position if isinstance(after, Tip) else after
        source: str | Head | None = None

        async def once() -> Page:
            nonlocal source
            if source is None:
                source = await self._source(place, node, recency)
            try:
                return await self._behind(source, position, place)
            except (NotHead, Unavailable) as error:
                self._leave(source, error)
                source = None
                raise

        while True:
            page = await self._in_time(_Call(), once)
            if page.events:
                last = page.events[-1]
                position, place = last.position, Tip(last.position, last.epoch)
                yield page

    async def head(self) -> str:
        """The node that takes writes, as last known, or found by asking all. Raises Unavailable."""
        return (await self._current_head()).node

    async def _current_head(self) -> Head:
        if self._closed:
            raise closed()
        return await self._finder.head()

    async def close(self) -> None:
        """Ends what is waiting by an error, and closes the stores."""
        self._closed = True
        await self._acks.close()
        for store in self._stores.values():
            await store.close()
        if self._on_close is not None:
            await self._on_close()

    # Appending.

    async def _add(
        self, call: _Call, stream: str, expected: Expected, events: Sequence[NewEvent], ack: Ack
    ) -> Appended:
        # The reign is known before the append: if it is the same after the wait, the head's log has lost
        # nothing in between, and what was told of it holds.
        head = await self._current_head()
        with self._finder.forgetting(head):
            appended = await self._stores[head.node].add(stream, expected, events)
            call.appended, call.head = appended, head
            await self._acks.wait(head, appended.token, ack)
        return appended

    @contextmanager
    def _buffer(self, count: int) -> Iterator[None]:
        if count > self._buffer_events:
            raise BadInput(
                f"{count:,} events in one append; the client holds {self._buffer_events:,} at most"
            )
        if self._buffered + count > self._buffer_events:
            raise Overloaded(
                f"{self._buffered:,} events are under way or wait for a head;"
                f" the client holds {self._buffer_events:,} at most",
                hint="slow down, or wait for the head: chainctl status",
            )
        self._buffered += count
        try:
            yield
        finally:
            self._buffered -= count

    def _late(self, call: _Call, asked: Ack) -> ChainError:
        if call.appended is None or call.head is None:
            return self._unavailable(call, "whether the events are stored is open: send them again, same ids")
        token = call.appended.token
        return NotYetReplicated(
            f"{call.head.node} has the events, up to {token}; what was asked, {asked.value!r}, was not"
            f" reached in time{_last_seen(call)}",
            appended=call.appended,
            reached=self._acks.reached(call.head, token),
            asked=asked,
        )

    # Reading.

    async def _read(
        self,
        read: Callable[[Store], Awaitable[Page]],
        node: str | None,
        at_least: Tip | None,
        recency: Recency,
    ) -> Page:
        call = _Call()

        async def read_there(name: str) -> Page:
            if at_least is not None:
                await self._wait_for(call, name, at_least)
            return await read(self._stores[name])

        async def once() -> Page:
            if node is not None:
                self._check_known(node)
                return await read_there(node)
            if recency is Recency.ANY:
                return await self._at_nearest(read_there)
            return await self._at_head(read_there)

        return await self._in_time(call, once)

    async def _at_head(self, read: Callable[[str], Awaitable[T]]) -> T:
        """Reads at the head, and asks it meanwhile whether it still is that: a former head answers, too."""
        head = await self._current_head()
        with self._finder.forgetting(head):
            answer, state = await asyncio.gather(
                read(head.node), self._stores[head.node].state(), return_exceptions=True
            )
            if isinstance(state, BaseException):
                raise state
            head.check(state)
            if isinstance(answer, BaseException):
                raise answer
            return answer

    async def _at_nearest(self, read: Callable[[str], Awaitable[T]]) -> T:
        """Reads at the nearest node that answers soon; at the last of them with patience."""
        nodes = self._near_first()
        failed: ChainError = Unavailable("there are no nodes")
        for node in nodes:
            try:
                async with asyncio.timeout(ANSWER_S if node != nodes[-1] else None):
                    return await read(node)
            except TimeoutError:
                failed = Unavailable(f"{node} has not answered within {ANSWER_S:g} s")
            except (NotHead, Unavailable) as error:
                failed = error
            self._leave(node, failed)
        raise failed

    async def _wait_for(self, call: _Call, node: str, token: Tip) -> None:
        store = self._stores[node]
        while True:
            tip = await store.tip()
            if await holds(store, token):
                return
            call.seen = TimedOut(f"{node} has not come to {token} within {self._deadline_s:g} s")
            # A node on a dead branch may be past the token's position without having it.
            await store.wait(max(tip.position, Position(token.position - 1)), IDLE_S)

    # Following.

    async def _source(self, place: Tip | None, node: str | None, recency: Recency) -> str | Head:
        """A node that holds `place`, to be followed; a Head as long as it is that."""

        async def holding(name: str) -> str:
            if not await holds(self._stores[name], place or EMPTY):
                raise Unavailable(f"{name} does not hold {place}")
            return name

        if node is not None:
            self._check_known(node)
            return await holding(node)
        if recency is Recency.ANY:
            return await self._at_nearest(holding)
        await self._at_head(holding)
        return await self._current_head()

    async def _behind(self, source: str | Head, position: Position, place: Tip | None) -> Page:
        """The next page, which joins `place`; an empty one after a while. Raises NotHead, Unavailable."""
        name = source if isinstance(source, str) else source.node
        store = self._stores[name]
        page = await store.log(position)
        if isinstance(source, Head):
            source.check(await store.state())
        if not page.events:
            await store.wait(position, min(IDLE_S, self._deadline_s / 2))
            joined = await holds(store, place or EMPTY)
        else:
            joined = place is None or await joins(store, place, page.events[0])
        if not joined:  # its dead branch was cut off, or grown anew, behind our back
            raise Unavailable(f"{name} does not hold {place} any more")
        return page

    def _leave(self, source: str | Head, error: ChainError) -> None:
        node = source if isinstance(source, str) else source.node
        log.debug("%s is passed over: %s", node, error)
        self._shunned[node] = asyncio.get_running_loop().time() + SHUN_S
        if isinstance(source, Head):
            self._finder.forget(source, error)

    def _near_first(self) -> list[str]:
        """All nodes, the nearest first, those that failed within the last second at the end."""
        if self._closed:
            raise closed()
        now = asyncio.get_running_loop().time()
        return sorted(self._stores, key=lambda node: self._shunned.get(node, now) > now)

    # Trying again.

    async def _in_time(self, call: _Call, once: Callable[[], Awaitable[T]]) -> T:
        """The answer of a read; at the deadline TimedOut if a node was slow, else Unavailable."""
        try:
            async with asyncio.timeout(self._deadline_s):
                return await _tried(call, once)
        except TimeoutError:
            if isinstance(call.seen, TimedOut):
                raise call.seen from None
            raise self._unavailable(call, "see: chainctl status") from call.seen

    def _unavailable(self, call: _Call, hint: str) -> Unavailable:
        return Unavailable(f"not done within {self._deadline_s:g} s{_last_seen(call)}", hint=hint)

    def _check_known(self, node: str) -> None:
        if self._closed:
            raise closed()
        if node not in self._stores:
            raise BadInput(f"the chain has no node {node!r}", hint=f"its nodes are {', '.join(self._stores)}")


async def _tried(call: _Call, once: Callable[[], Awaitable[T]]) -> T:
    """Tries until it is done, or fails for good; the caller's timeout ends it."""
    async for attempt in AsyncRetrying(retry=retry_if_exception(_retriable), wait=_WAIT):
        with attempt:
            try:
                return await once()
            except ChainError as error:
                call.seen = error
                raise
    raise AssertionError("tenacity ends by an answer or an error")


def _retriable(error: BaseException) -> bool:
    return isinstance(error, ChainError) and error.retriable


# Short at first: a planned move takes a fraction of a second, and the head is asked for once for all callers.
_WAIT: Final = wait_exponential(multiplier=0.01, max=0.21) + wait_random(0, 0.04)


def _last_seen(call: _Call) -> str:
    return f"; last seen: {call.seen.message}" if call.seen else ""
