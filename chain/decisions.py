"""The decisions of a chain: the events of its registry stream, and how they fold into the topology.

Who may make which is in `chain.commands`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import singledispatch
from typing import Any, Final
from uuid import UUID

from pydantic import TypeAdapter, ValidationError

from chain.errors import Corrupt
from chain.event import Epoch, Event, NewEvent, Position, Revision, new_id
from chain.store import Ground
from chain.topology import Approval, Run, RunStep, Topology, frozen

_DAWN: Final = datetime.min.replace(tzinfo=UTC)
_MOST_APPROVALS: Final = 15


@dataclass(frozen=True, slots=True)
class ChainCreated:
    chain: str
    regions: dict[str, str]
    """Node to region, in the order of the chain."""
    promotion: UUID
    ground: Ground
    """The first head's: an empty log, and its clock."""


@dataclass(frozen=True, slots=True)
class EpochGranted:
    """`order[0]` is head from `epoch` on. Each epoch is granted once."""

    epoch: Epoch
    promotion: UUID
    order: tuple[str, ...]
    joining: tuple[str, ...]
    ground: Ground
    """The head's: it takes nothing more before it is promoted."""


@dataclass(frozen=True, slots=True)
class ReignBegan:
    """The head took up its epoch: its log carries the promotion at `position`."""

    epoch: Epoch
    position: Position


@dataclass(frozen=True, slots=True)
class JoinStarted:
    node: str
    region: str


@dataclass(frozen=True, slots=True)
class JoinHeard:
    """The head of an epoch has heard that a node joins: from now on it asks that node for promises, too."""

    node: str
    epoch: Epoch


@dataclass(frozen=True, slots=True)
class JoinFinished:
    node: str


@dataclass(frozen=True, slots=True)
class NodeDetached:
    node: str
    keep_out: bool = False
    """A person wants it outside: no controller brings it back."""


@dataclass(frozen=True, slots=True)
class RunStarted:
    run: UUID
    playbook: str
    parameters: dict[str, Any]
    by: str
    epoch: Epoch
    text: str = ""
    """The playbook itself, as JSON: whoever resumes the run goes on with what it began with."""
    plan: str = ""
    """The plan that was approved for it, if one was."""


@dataclass(frozen=True, slots=True)
class StepStarted:
    run: UUID
    step: str


@dataclass(frozen=True, slots=True)
class StepFinished:
    run: UUID
    step: str
    result: dict[str, Any]


@dataclass(frozen=True, slots=True)
class RunFinished:
    run: UUID
    outcome: str
    """`done`, `failed` or `aborted`."""
    reason: str


@dataclass(frozen=True, slots=True)
class AutomationPaused:
    """No controller acts by itself until AutomationResumed."""

    by: str
    why: str


@dataclass(frozen=True, slots=True)
class AutomationResumed:
    pass


@dataclass(frozen=True, slots=True)
class FailoverAcknowledged:
    """A person has seen the last failover: the next may be automatic again."""


@dataclass(frozen=True, slots=True)
class PlanApproved:
    """`by` has approved of the plan with this hash, for `for_s` seconds."""

    plan: str
    by: str
    for_s: float


Decision = (
    ChainCreated
    | EpochGranted
    | ReignBegan
    | JoinStarted
    | JoinHeard
    | JoinFinished
    | NodeDetached
    | RunStarted
    | StepStarted
    | StepFinished
    | RunFinished
    | AutomationPaused
    | AutomationResumed
    | FailoverAcknowledged
    | PlanApproved
)

_KINDS: Final[Mapping[str, type[Decision]]] = {
    kind.__name__: kind
    for kind in (
        ChainCreated,
        EpochGranted,
        ReignBegan,
        JoinStarted,
        JoinHeard,
        JoinFinished,
        NodeDetached,
        RunStarted,
        StepStarted,
        StepFinished,
        RunFinished,
        AutomationPaused,
        AutomationResumed,
        FailoverAcknowledged,
        PlanApproved,
    )
}
_CODECS: Final[Mapping[str, TypeAdapter[Any]]] = {name: TypeAdapter(kind) for name, kind in _KINDS.items()}


def encode(decision: Decision, metadata: bytes) -> NewEvent:
    name = type(decision).__name__
    return NewEvent(name, _CODECS[name].dump_json(decision), metadata, new_id())


def decode(event: Event) -> Decision:
    """Raises Corrupt if the event is no decision that this program knows."""
    codec = _CODECS.get(event.type)
    if codec is None:
        raise Corrupt(
            f"{event.stream} holds a {event.type} at revision {event.revision}, which is unknown here",
            hint="the registry was written by a newer geochain: upgrade this one",
        )
    try:
        decision: Decision = codec.validate_json(event.data)
    except ValidationError as error:
        raise Corrupt(
            f"{event.stream} holds a {event.type} at revision {event.revision} that can't be read"
        ) from error
    return decision


# Folding.


def evolve(
    topology: Topology | None, decision: Decision, revision: Revision, at: datetime = _DAWN
) -> Topology:
    """The topology after a decision, recorded `at` by the registry's clock.

    Raises Corrupt if the stream does not begin with ChainCreated.
    """
    if topology is None:
        if not isinstance(decision, ChainCreated):
            raise Corrupt(f"the registry stream begins with {type(decision).__name__}")
        order = tuple(decision.regions)
        return Topology(
            chain=decision.chain,
            regions=frozen(decision.regions),
            home=decision.regions[order[0]],
            epoch=Epoch(1),
            promotion=decision.promotion,
            order=order,
            ground=decision.ground,
            version=revision,
        )
    evolved = replace(_evolved(decision, topology), version=revision)
    match decision:
        case EpochGranted() if topology.head not in decision.order:
            return replace(evolved, failed_over_at=at)
        case PlanApproved():
            approval = Approval(decision.plan, decision.by, at + timedelta(seconds=decision.for_s))
            others = tuple(a for a in topology.approvals if a.plan != decision.plan)
            return replace(evolved, approvals=(*others[-_MOST_APPROVALS:], approval))
    return evolved


@singledispatch
def _evolved(decision: Decision, topology: Topology) -> Topology:
    raise Corrupt(f"the registry stream holds a second {type(decision).__name__}")


@_evolved.register
def _(decision: EpochGranted, topology: Topology) -> Topology:
    return replace(
        topology,
        epoch=decision.epoch,
        promotion=decision.promotion,
        order=decision.order,
        ground=decision.ground,
        joining=decision.joining,
        heard=(),
        began=None,
    )


@_evolved.register
def _(decision: ReignBegan, topology: Topology) -> Topology:
    return replace(topology, began=decision.position)


@_evolved.register
def _(decision: JoinStarted, topology: Topology) -> Topology:
    return replace(
        topology,
        regions=frozen({**topology.regions, decision.node: decision.region}),
        joining=(*topology.joining, decision.node),
        kept_out=tuple(n for n in topology.kept_out if n != decision.node),
    )


@_evolved.register
def _(decision: JoinHeard, topology: Topology) -> Topology:
    return replace(topology, heard=(*topology.heard, decision.node))


@_evolved.register
def _(decision: JoinFinished, topology: Topology) -> Topology:
    return replace(
        topology,
        order=(*topology.order, decision.node),
        joining=tuple(n for n in topology.joining if n != decision.node),
        heard=tuple(n for n in topology.heard if n != decision.node),
    )


@_evolved.register
def _(decision: NodeDetached, topology: Topology) -> Topology:
    return replace(
        topology,
        order=tuple(n for n in topology.order if n != decision.node),
        joining=tuple(n for n in topology.joining if n != decision.node),
        heard=tuple(n for n in topology.heard if n != decision.node),
        kept_out=(*topology.kept_out, decision.node) if decision.keep_out else topology.kept_out,
    )


@_evolved.register
def _(decision: RunStarted, topology: Topology) -> Topology:
    approval = next((a for a in topology.approvals if a.plan == decision.plan), None)
    run = Run(
        decision.run,
        decision.playbook,
        decision.parameters,
        decision.by,
        decision.epoch,
        text=decision.text,
        approval=approval,
    )
    # An approval is for one run.
    return replace(topology, run=run, approvals=tuple(a for a in topology.approvals if a is not approval))


@_evolved.register
def _(decision: StepStarted, topology: Topology) -> Topology:
    return _with_step(topology, RunStep(decision.step))


@_evolved.register
def _(decision: StepFinished, topology: Topology) -> Topology:
    return _with_step(topology, RunStep(decision.step, decision.result))


@_evolved.register
def _(decision: RunFinished, topology: Topology) -> Topology:
    return replace(topology, run=None)


@_evolved.register
def _(decision: AutomationPaused, topology: Topology) -> Topology:
    why = f": {decision.why}" if decision.why else ""
    return replace(topology, paused=f"by {decision.by}{why}")


@_evolved.register
def _(decision: AutomationResumed, topology: Topology) -> Topology:
    return replace(topology, paused=None)


@_evolved.register
def _(decision: FailoverAcknowledged, topology: Topology) -> Topology:
    return replace(topology, failed_over_at=None)


@_evolved.register
def _(decision: PlanApproved, topology: Topology) -> Topology:
    return topology  # `evolve` adds it: it needs the time


def _with_step(topology: Topology, step: RunStep) -> Topology:
    if topology.run is None:
        raise Corrupt(f"step {step.name} was journaled outside a run")
    return replace(topology, run=topology.run.with_step(step))
