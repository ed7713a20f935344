"""Who operates the demo's chain: an operator, command by command, or the chain itself."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from chain.decisions import RunStarted, StepFinished
from chain.errors import ChainError
from chain.topology import Topology
from failover.demo.importer import Timeline
from failover.fleet import Fleet
from failover.playbook import load_playbook
from failover.runner import Done, execute

BY: Final = "the demo"


class Hands(Protocol):
    """Each verb returns when it has come about."""

    async def replace_head(self) -> tuple[float, Topology]:
        """A new head in the lost one's place, and when the loss was noticed, by the monotonic clock."""

    async def bring_back(self) -> Topology:
        """The lost head is a member again."""

    async def go_home(self) -> Topology:
        """The head is in the home region again."""


@dataclass(slots=True)
class Operator:
    """Gives the commands as a person would, on an alarm: the head's store does not answer."""

    fleet: Fleet
    timeline: Timeline

    async def replace_head(self) -> tuple[float, Topology]:
        await self._wait_lost()
        detected = time.monotonic()
        self.timeline.mark("detected", "east-1 does not answer", at=detected)
        done = await self._execute("failover", {"head_is_dead": True})
        self.timeline.mark("fenced", "west-1 refuses the old epoch", at=done.at["fence-others"])
        self.timeline.mark("promoted", "west-1 is head in epoch 2", at=done.at["promote"])
        return detected, done.topology

    async def bring_back(self) -> Topology:
        return (await self._execute("rejoin", {"node": "east-1"})).topology

    async def go_home(self) -> Topology:
        return (await self._execute("rotate", {})).topology

    async def _execute(self, playbook: str, parameters: dict[str, Any]) -> Done:
        return await execute(self.fleet, load_playbook(playbook), parameters, by=BY, why="the demo's story")

    async def _wait_lost(self) -> None:
        store = self.fleet.store("east-1")
        while True:
            try:
                await store.tip()
            except ChainError:
                return
            await asyncio.sleep(0.05)


@dataclass(slots=True)
class Nobody:
    """Gives no command at all: the controllers do."""

    fleet: Fleet
    timeline: Timeline

    async def replace_head(self) -> tuple[float, Topology]:
        topology = await self._wait(lambda t: t.head == "west-1" and t.began is not None)
        times = await self._times()
        self.timeline.mark("lease has run out", "a controller begins the failover", at=times["failover"])
        self.timeline.mark("fenced", "west-1 refuses the old epoch", at=times["fence-others"])
        self.timeline.mark("promoted", "west-1 is head in epoch 2", at=times["promote"])
        return times["failover"], topology

    async def bring_back(self) -> Topology:
        return await self._wait(lambda t: "east-1" in t.order)

    async def go_home(self) -> Topology:
        return await self._wait(
            lambda t: t.regions[t.head] == t.home and t.began is not None and t.run is None
        )

    async def _wait(self, condition: Callable[[Topology], bool]) -> Topology:
        async with asyncio.timeout(120):
            while True:
                topology = await self.fleet.registry.topology()
                if condition(topology):
                    return topology
                await asyncio.sleep(0.02)

    async def _times(self) -> dict[str, float]:
        """When runs began and steps ended, by the monotonic clock; the registry runs on this machine."""
        while True:
            history = await self.fleet.registry.history()
            offset = time.monotonic() - time.time()
            times: dict[str, float] = {}
            for recorded in history:
                match recorded.decision:
                    case RunStarted(playbook=name) | StepFinished(step=name):
                        times[name] = recorded.at.timestamp() + offset
            if "promote" in times:
                return times
            await asyncio.sleep(0.02)
