"""Finds the head among nodes, by their own words, and remembers it until it fails."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from chain.acks import ANSWER_S, Decided, Head, Shared
from chain.errors import ChainError, NotHead, Unavailable
from chain.store import NodeState, Store
from chain.tasks import end

log = logging.getLogger(__name__)

GRACE_S: Final = 0.1
"""How long the others are waited for once a head has answered: a node that hangs must not hold it up."""


class HeadFinder:
    """The head of the chain of `stores`, found once for all who ask at the same time."""

    def __init__(self, stores: Mapping[str, Store], decided: Decided | None) -> None:
        self._stores = stores
        self._decided = decided
        self._head: Head | None = None
        self._find = Shared(self._ask_all)

    async def head(self) -> Head:
        """As last known, or found by asking all. Raises Unavailable."""
        if self._head is None:
            self._head = await self._find()
        return self._head

    @contextmanager
    def forgetting(self, head: Head) -> Iterator[None]:
        """Lets the next try find the head again, if this one fails by it."""
        try:
            yield
        except (NotHead, Unavailable) as error:
            self.forget(head, error)
            raise

    def forget(self, head: Head, error: ChainError) -> None:
        if self._head == head:
            log.info("%s takes no writes now: %s", head.node, error)
            self._head = None

    async def _ask_all(self) -> Head:
        """The writable node of the newest epoch among those that answer."""
        states = await self._answers()
        newest = max((state.epoch for state in states.values()), default=0)
        for node, state in states.items():
            if state.writable and state.epoch == newest:
                log.info("%s is the head, in epoch %s", node, state.epoch)
                return Head(node, state.reign)
        heard = ", ".join(f"{n} is {s.role.value} in epoch {s.epoch}" for n, s in states.items())
        decided = f"; {await self._decided.hearsay()}" if self._decided else ""
        raise Unavailable(
            f"no node takes writes now ({heard or 'none can be reached'}{decided})",
            hint="see: chainctl status",
        )

    async def _answers(self) -> dict[str, NodeState]:
        """The words of all nodes, or of those that answered soon after one that takes writes."""
        asked = {asyncio.create_task(self._ask(n), name=f"ask {n}"): n for n in self._stores}
        waiting, states = set(asked), dict[str, NodeState]()
        try:
            limit_s = ANSWER_S
            while waiting:
                done, waiting = await asyncio.wait(
                    waiting, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED
                )
                if not done:
                    break
                states |= {asked[task]: state for task in done if (state := task.result()) is not None}
                if any(state.writable for state in states.values()):
                    limit_s = GRACE_S
        finally:
            for task in waiting:
                await end(task)
        return {node: states[node] for node in self._stores if node in states}

    async def _ask(self, node: str) -> NodeState | None:
        try:
            async with asyncio.timeout(ANSWER_S):
                return await self._stores[node].state()
        except (ChainError, TimeoutError):
            return None
