"""What the steps share: the run that they belong to, the parties, and a few bounded waits."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from chain.errors import ChainError, Different, NotPrepared, Refused
from chain.event import Position, Tip
from chain.store import NodeState, Store
from chain.topology import Run, Topology
from failover.fleet import Fleet
from replicator.verify import Verdict

Result = dict[str, Any]

LOOK_S = 1.0
"""How long a node is waited for that may well be dead."""


@dataclass(frozen=True, slots=True)
class Context:
    """What a step works with. `run` holds the results of the steps before it."""

    fleet: Fleet
    run: Run
    by: str
    why: str
    kept: dict[str, Any] = field(default_factory=dict)
    """What a step keeps for those after it, in this process: whoever carries the run on begins without it."""

    def given(self, name: str, default: Any = None) -> Any:
        """A parameter of the run."""
        value = self.run.parameters.get(name)
        return default if value is None else value

    def found(self, *steps: str) -> Result:
        """What the first of these steps that has been done gave; empty if none has."""
        return next((dict(r) for s in steps if (r := self.run.result(s)) is not None), {})

    @property
    def node(self) -> str:
        """The node that the run is about: chosen with the last word first, or asked for."""
        for step in ("fence-others", "choose-candidate"):
            node = self.found(step).get("node")
            if node:
                return str(node)
        return str(self.run.parameters["node"])

    @property
    def old_head(self) -> str:
        return str(self.found("choose-candidate")["head"])

    async def topology(self) -> Topology:
        return await self.fleet.registry.topology()

    def store(self, node: str) -> Store:
        return self.fleet.store(node)

    async def look(self, node: str) -> NodeState | ChainError:
        """A node's own word, or what kept it from answering."""
        try:
            async with asyncio.timeout(LOOK_S):
                return await self.store(node).state()
        except TimeoutError:
            return ChainError(f"{node}: no answer in time")
        except ChainError as error:
            return error

    async def states(self, nodes: Iterable[str]) -> dict[str, NodeState]:
        """The words of those that answer."""
        names = list(nodes)
        answers = await asyncio.gather(*(self.look(n) for n in names))
        return {n: a for n, a in zip(names, answers, strict=True) if isinstance(a, NodeState)}


async def wait_position(store: Store, position: Position) -> Tip:
    while True:
        tip = await store.tip()
        if tip.position >= position:
            return tip
        await store.wait(Position(position - 1), 0.2)


async def wait_prepared(store: Store) -> None:
    """Waits for a new node's daemon to make the schema; a node that can't be reached fails at once."""
    while True:
        try:
            await store.tip()
            return
        except NotPrepared:
            await asyncio.sleep(0.1)


def require_ok(verdict: Verdict, what: str, verified: Any) -> None:
    if verdict is Verdict.DIFF:
        raise Different(
            f"{what}: position {verified.differing[0]} differs: {verified.findings[0]}",
            hint="see all: chainctl verify",
        )
    if verdict is Verdict.UNKNOWN:
        raise Refused(f"{what} could not be verified: {verified.reason}")
