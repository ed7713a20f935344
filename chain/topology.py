"""The topology: which nodes make up a chain, in which order, in which epoch; and what that asks of each.

A value, folded from the registry's decisions (`chain.decisions`). What a node has to do follows from it by
`assignment`, a pure function, so every daemon comes to the same answer from the same history.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from types import MappingProxyType
from typing import Any
from uuid import UUID

from chain.errors import BadInput
from chain.event import Epoch, Position, Revision
from chain.store import Ground, Role


@dataclass(frozen=True, slots=True)
class RunStep:
    """A step of a run as journaled: what it gave, once it is done."""

    name: str
    result: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Approval:
    """A person's word that a plan may be carried out, until a time of the registry's clock."""

    plan: str
    by: str
    until: datetime


@dataclass(frozen=True, slots=True)
class Run:
    """One execution of a playbook that has begun and not ended."""

    id: UUID
    playbook: str
    parameters: Mapping[str, Any]
    by: str
    epoch: Epoch
    """The epoch that the run fences with and asks for, fixed at its start. Its promotion id is its own id."""
    steps: tuple[RunStep, ...] = ()
    text: str = ""
    """The playbook as it was at the start, as JSON."""
    approval: Approval | None = None

    def has_begun(self, step: str) -> bool:
        return any(begun.name == step for begun in self.steps)

    def result(self, step: str) -> Mapping[str, Any] | None:
        """What a finished step gave; None if it has not finished."""
        return next((done.result for done in self.steps if done.name == step), None)

    def with_step(self, step: RunStep) -> Run:
        """With what is known of a step now, as its last."""
        others = tuple(s for s in self.steps if s.name != step.name)
        return replace(self, steps=(*others, step))


@dataclass(frozen=True, slots=True)
class Topology:
    """The chain as decided. `order` is head first, tail last; a chain of one has only a head."""

    chain: str
    regions: Mapping[str, str]
    """Every node that was ever part of the chain, with its region."""
    home: str
    """The region to come back to: where the first head was."""
    epoch: Epoch
    promotion: UUID
    order: tuple[str, ...]
    ground: Ground
    """What the head was granted its epoch on."""
    began: Position | None = None
    """Where in the log the head's reign began; None while it is granted and not taken up yet."""
    joining: tuple[str, ...] = ()
    """Nodes that follow the tail and are not members yet: they are, once they are verified."""
    heard: tuple[str, ...] = ()
    """Those of the joining nodes that the head of this epoch is known to have heard of."""
    kept_out: tuple[str, ...] = ()
    """Nodes outside that a person wants there."""
    run: Run | None = None
    paused: str | None = None
    """By whom and why no controller acts by itself; None if they may."""
    failed_over_at: datetime | None = None
    """When a head was last replaced as lost, by the registry's clock; None if that was acknowledged."""
    approvals: tuple[Approval, ...] = ()
    version: Revision = field(default=Revision(-1), compare=False)
    """The registry's revision that this was folded up to."""

    @property
    def head(self) -> str:
        return self.order[0]

    @property
    def tail(self) -> str:
        return self.order[-1]

    @property
    def detached(self) -> tuple[str, ...]:
        return tuple(n for n in self.regions if n not in self.order and n not in self.joining)

    def role(self, node: str) -> Role:
        """Raises BadInput for a node that the chain has never had."""
        if node not in self.regions:
            raise BadInput(
                f"chain {self.chain} has no node {node!r}", hint=f"its nodes are {', '.join(self.regions)}"
            )
        if node == self.head:
            return Role.HEAD
        if node in self.joining or node == self.tail:
            return Role.TAIL
        return Role.MIDDLE if node in self.order else Role.DETACHED

    def upstream(self, node: str) -> str | None:
        """The node that `node` follows: the one before it, the tail for one that is joining."""
        if node in self.joining:
            return self.tail
        if node in self.order and node != self.head:
            return self.order[self.order.index(node) - 1]
        return None

    def downstream(self, node: str) -> tuple[str, ...]:
        """The nodes that follow `node` directly."""
        return tuple(n for n in (*self.order, *self.joining) if self.upstream(n) == node)


@dataclass(frozen=True, slots=True)
class Lead:
    """Be the head of this epoch."""

    epoch: Epoch
    promotion: UUID
    ground: Ground
    began: bool
    """The reign was taken up before: a store that knows nothing of it was wiped or replaced."""


@dataclass(frozen=True, slots=True)
class Follow:
    """Follow this upstream in this epoch."""

    epoch: Epoch
    upstream: str
    role: Role


@dataclass(frozen=True, slots=True)
class Rest:
    """Stay outside the chain."""

    epoch: Epoch


Assignment = Lead | Follow | Rest


def assignment(topology: Topology, node: str) -> Assignment:
    """What the topology asks of a node."""
    upstream = topology.upstream(node)
    if node == topology.head:
        return Lead(topology.epoch, topology.promotion, topology.ground, topology.began is not None)
    if upstream is not None:
        return Follow(topology.epoch, upstream, topology.role(node))
    return Rest(topology.epoch)


def frozen(mapping: Mapping[str, str]) -> Mapping[str, str]:
    return MappingProxyType(dict(mapping))
