"""The plan of a run: what it would find and do on the chain as it is now, and what that would cost.

A plan has a hash over what matters: the playbook's steps, the parameters, the epoch and order of the chain,
and the node that was chosen. An approval is bound to it, so that what is done is what was approved.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from chain.commands import busy
from chain.errors import ChainError, Refused
from chain.event import Epoch
from chain.topology import Run, RunStep, Topology
from failover.fleet import Fleet
from failover.playbook import Playbook
from failover.steps import STEPS, Context, Result

_NOBODY: Final = UUID(int=0)
_COPIED_PER_S: Final = 50_000
"""What a link copies at the least; for a rough word about a pause, no promise."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run would do now."""

    playbook: Playbook
    parameters: Mapping[str, Any]
    epoch: Epoch
    order: tuple[str, ...]
    found: Mapping[str, Result]
    """What each step that only looks has found."""
    loss_events: int | None
    """Events that the chosen node does not have, as far as can be known; they would go to the ledger."""
    pause_s: float | None
    """For how long no write would be taken, roughly; None if that can't be said."""

    @property
    def node(self) -> str | None:
        chosen = self.found.get("choose-candidate", {}).get("node", self.parameters.get("node"))
        return None if chosen is None else str(chosen)

    @property
    def hash(self) -> str:
        """SHA-256, in hexadecimal digits."""
        content = {
            "playbook": self.playbook.model_dump(mode="json"),
            "parameters": dict(self.parameters),
            "epoch": self.epoch,
            "order": list(self.order),
            "node": self.node,
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    @property
    def needs_approval(self) -> bool:
        return any(step.approval for step in self.playbook.steps)


async def plan(fleet: Fleet, playbook: Playbook, given: Mapping[str, Any]) -> Plan:
    """Looks at what a run would find. Changes nothing. Raises what the looking steps raise, and Busy."""
    parameters = playbook.arguments(given)
    topology = await fleet.registry.topology()
    unfinished = topology.run
    if unfinished is not None and not same(unfinished, playbook, parameters):
        if not may_end(playbook, unfinished):
            raise busy(unfinished)
        unfinished = None
    run = unfinished or Run(_NOBODY, playbook.name, parameters, "", Epoch(topology.epoch + 1))
    found: dict[str, Result] = {}
    for step in playbook.steps:
        if STEPS[step.step].looks:
            result = run.result(step.step)
            if result is None:
                try:
                    async with asyncio.timeout(step.timeout_s):
                        result = await STEPS[step.step].do(Context(fleet, run, "", ""))
                except TimeoutError:
                    raise Refused(f"{step.step} could not be answered within {step.timeout_s:g} s") from None
            found[step.step] = dict(result)
            run = run.with_step(RunStep(step.step, result))
    loss = pause = None
    if any(step.step == "promote" for step in playbook.steps):
        loss, pause = await _cost(fleet, topology, playbook, found)
    return Plan(playbook, parameters, topology.epoch, topology.order, found, loss, pause)


def same(run: Run, playbook: Playbook, parameters: Mapping[str, Any]) -> bool:
    """Is this the run that such a command began?"""
    return run.playbook == playbook.name and dict(run.parameters) == dict(parameters)


def may_end(playbook: Playbook, run: Run) -> bool:
    """May a new run of this playbook end an unfinished one?"""
    return playbook.urgent and not (run.text and Playbook.model_validate_json(run.text).urgent)


async def _cost(
    fleet: Fleet, topology: Topology, playbook: Playbook, found: Mapping[str, Result]
) -> tuple[int | None, float | None]:
    """Loss and pause of a move of the head, from what the head, or else its follower, says now."""
    node = str(found["choose-candidate"]["node"])
    loop = asyncio.get_running_loop()
    start = loop.time()
    try:
        await fleet.registry.lease()
        round_s = loop.time() - start
        head = await fleet.store(topology.head).state()
        candidate = await fleet.store(node).state()
    except ChainError:
        return await _cost_without_head(fleet, node)
    lag = max(0, head.tip.position - candidate.tip.position)
    return 0, 12 * max(round_s, 0.002) + lag / _COPIED_PER_S


async def _cost_without_head(fleet: Fleet, node: str) -> tuple[int | None, float | None]:
    """The head is lost: the candidate's own daemon knows what it last saw of it."""
    said = await fleet.ask_daemon(node)
    link = (said or {}).get("link")
    lost = link["lag_events"] if link else None
    lease = await fleet.registry.lease()
    wait_s = (lease.duration_s or 0.0) + fleet.lease_watch.margin_s if lease else None
    return lost, wait_s
