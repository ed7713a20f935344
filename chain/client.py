"""The client that applications use: appends and reads on a chain, wherever its head is.

It finds the head by asking the nodes, follows it through switchover and failover, and tries again with the
same event ids, which the store holds once: so an `add` that returns has stored its events exactly once on
the head that answered, however many times it had to be sent.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_delay, wait_random

from chain.errors import ChainError, Diverged, NotHead, TimedOut, Unavailable
from chain.event import Appended, Expected, NewEvent, Position, Revision, Tip
from chain.store import NodeState, Page, Store

log = logging.getLogger(__name__)

_ASK_S: Final = 2.0


class Client:
    """A client of the chain of `nodes`; `open_store` opens the store of a node by its name.

    `deadline_s` bounds every call, retries and a failover included. Any number of tasks may share a client;
    their appends are grouped.
    """

    def __init__(
        self, nodes: Sequence[str], open_store: Callable[[str], Store], *, deadline_s: float = 30.0
    ) -> None:
        self._stores = {node: open_store(node) for node in nodes}
        self._deadline_s = deadline_s
        self._head: str | None = None
        self._finding = asyncio.Lock()

    async def add(self, stream: str, expected: Expected, events: Sequence[NewEvent]) -> Appended:
        """Appends to the head. Raises BadEvent, WrongRevision; Unavailable when the deadline is over.

        After Unavailable it is open whether the events were stored: call again with the same events.
        """
        async for attempt in self._trying():
            with attempt:
                head = await self.head()
                try:
                    return await self._stores[head].add(stream, expected, events)
                except (NotHead, Unavailable) as error:
                    self._forget(head, error)
                    raise
        raise AssertionError("tenacity ends by an answer or an error")

    async def get(
        self,
        stream: str,
        revision: Revision = Revision(0),
        limit: int = 1000,
        *,
        node: str | None = None,
        at_least: Tip | None = None,
    ) -> Page:
        """Events of a stream, from `node`, or from the head.

        With `at_least`, the token of an append, waits until the node has that event. Raises TimedOut if it
        has not by the deadline, Diverged if the token lies on a dead branch.
        """
        store = self._stores[node or await self.head()]
        if at_least is not None:
            await self._wait_for(store, at_least)
        return await store.get(stream, revision, limit)

    async def head(self) -> str:
        """The node that takes writes, as last known, or found by asking all. Raises Unavailable."""
        if self._head is not None:
            return self._head
        async with self._finding:
            if self._head is None:
                self._head = await self._find()
            return self._head

    async def close(self) -> None:
        for store in self._stores.values():
            await store.close()

    def _forget(self, head: str, error: ChainError) -> None:
        if self._head == head:
            log.info("%s takes no writes now: %s", head, error)
            self._head = None

    async def _find(self) -> str:
        """The writable node of the newest epoch, by the nodes' own words."""
        asked = {asyncio.create_task(self._ask(node)): node for node in self._stores}
        answered, late = await asyncio.wait(asked, timeout=_ASK_S)
        for task in late:
            task.cancel()
        states = {asked[task]: state for task in answered if (state := task.result()) is not None}
        newest = max((state.epoch for state in states.values()), default=0)
        for node, state in states.items():
            if state.writable and state.epoch == newest:
                log.info("%s is the head, in epoch %s", node, state.epoch)
                return node
        heard = ", ".join(f"{n} is {s.role.value} in epoch {s.epoch}" for n, s in states.items())
        raise Unavailable(
            f"no node takes writes now ({heard or 'none can be reached'})", hint="see: chainctl status"
        )

    async def _ask(self, node: str) -> NodeState | None:
        try:
            return await self._stores[node].state()
        except ChainError:
            return None

    async def _wait_for(self, store: Store, token: Tip) -> None:
        try:
            async with asyncio.timeout(self._deadline_s):
                while (await store.tip()).position < token.position:
                    await store.wait(Position(token.position - 1), 1.0)
        except TimeoutError:
            raise TimedOut(f"the node has not come to {token} within {self._deadline_s:g} s") from None
        event = await store.at(token.position)
        if event is None or event.epoch != token.epoch:
            raise Diverged(
                f"{token} is on a dead branch",
                hint="the write was on a head that was lost: chainctl ledger list",
            )

    def _trying(self) -> AsyncRetrying:
        return AsyncRetrying(
            retry=retry_if_exception(lambda e: isinstance(e, ChainError) and e.retriable),
            stop=stop_after_delay(self._deadline_s),
            wait=_wait,
            reraise=True,
        )


_JITTER: Final = wait_random(0.01, 0.05)


def _wait(attempt: RetryCallState) -> float:
    """Short: a planned move takes a fraction of a second, and the head is asked for once for all callers."""
    return float(_JITTER(attempt))
