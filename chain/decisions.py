"""The decisions of a chain: the events of its registry stream, how they fold, and who may make which when.

`decide` is a pure function from a topology and a command to decisions; `evolve` folds a decision into the
topology. The registry appends what `decide` gives at the revision that it decided on, so of two controllers
or two operators only one can win.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import singledispatch
from typing import Any, Final
from uuid import UUID

from pydantic import TypeAdapter, ValidationError

from chain.errors import BadInput, Busy, Corrupt, Refused
from chain.event import Epoch, Event, NewEvent, Position, Revision, new_id
from chain.topology import Run, RunStep, Topology, frozen


@dataclass(frozen=True, slots=True)
class ChainCreated:
    chain: str
    regions: dict[str, str]
    """Node to region, in the order of the chain."""
    promotion: UUID


@dataclass(frozen=True, slots=True)
class EpochGranted:
    """`order[0]` is head from `epoch` on. Each epoch is granted once."""

    epoch: Epoch
    promotion: UUID
    order: tuple[str, ...]
    joining: tuple[str, ...]


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
class JoinFinished:
    node: str


@dataclass(frozen=True, slots=True)
class NodeDetached:
    node: str


@dataclass(frozen=True, slots=True)
class RunStarted:
    run: UUID
    playbook: str
    parameters: dict[str, Any]
    by: str
    epoch: Epoch


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


Decision = (
    ChainCreated
    | EpochGranted
    | ReignBegan
    | JoinStarted
    | JoinFinished
    | NodeDetached
    | RunStarted
    | StepStarted
    | StepFinished
    | RunFinished
)

_KINDS: Final[Mapping[str, type[Decision]]] = {
    kind.__name__: kind
    for kind in (
        ChainCreated,
        EpochGranted,
        ReignBegan,
        JoinStarted,
        JoinFinished,
        NodeDetached,
        RunStarted,
        StepStarted,
        StepFinished,
        RunFinished,
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


def evolve(topology: Topology | None, decision: Decision, revision: Revision) -> Topology:
    """The topology after a decision. Raises Corrupt if the stream does not begin with ChainCreated."""
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
            version=revision,
        )
    return replace(_evolved(decision, topology), version=revision)


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
        joining=decision.joining,
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
    )


@_evolved.register
def _(decision: JoinFinished, topology: Topology) -> Topology:
    return replace(
        topology,
        order=(*topology.order, decision.node),
        joining=tuple(n for n in topology.joining if n != decision.node),
    )


@_evolved.register
def _(decision: NodeDetached, topology: Topology) -> Topology:
    return replace(
        topology,
        order=tuple(n for n in topology.order if n != decision.node),
        joining=tuple(n for n in topology.joining if n != decision.node),
    )


@_evolved.register
def _(decision: RunStarted, topology: Topology) -> Topology:
    run = Run(decision.run, decision.playbook, decision.parameters, decision.by, decision.epoch)
    return replace(topology, run=run)


@_evolved.register
def _(decision: StepStarted, topology: Topology) -> Topology:
    return _with_step(topology, RunStep(decision.step))


@_evolved.register
def _(decision: StepFinished, topology: Topology) -> Topology:
    return _with_step(topology, RunStep(decision.step, decision.result))


@_evolved.register
def _(decision: RunFinished, topology: Topology) -> Topology:
    return replace(topology, run=None)


def _with_step(topology: Topology, step: RunStep) -> Topology:
    if topology.run is None:
        raise Corrupt(f"step {step.name} was journaled outside a run")
    others = tuple(s for s in topology.run.steps if s.name != step.name)
    return replace(topology, run=replace(topology.run, steps=(*others, step)))


# Deciding.

Command = Callable[[Topology | None], tuple[Decision, ...]]
"""Decides on a topology: the decisions to record, none if there is nothing (left) to do. Raises Refused."""


def create_chain(chain: str, regions: Mapping[str, str], promotion: UUID) -> Command:
    """The chain with its first head. Nothing to do if it exists."""

    def decide(topology: Topology | None) -> tuple[Decision, ...]:
        if topology is not None:
            return ()
        if not regions:
            raise BadInput("a chain needs at least one node")
        return (ChainCreated(chain, dict(regions), promotion),)

    return decide


def grant(
    epoch: Epoch, promotion: UUID, head: str, *, run: UUID | None, detach: tuple[str, ...] = ()
) -> Command:
    """The next epoch for `head`; the others keep their order behind it, without those to `detach`.

    Granted once: to the run that is under way, or, when none is, to a head that asks for itself.
    """

    def decide(topology: Topology | None) -> tuple[Decision, ...]:
        topology = _existing(topology)
        if (topology.epoch, topology.promotion, topology.head) == (epoch, promotion, head):
            return ()
        _check_run(topology, run)
        if run is None and head != topology.head:
            raise Refused(f"{head} is not the head, so only an operation can make it the head")
        if epoch != topology.epoch + 1:
            raise Refused(
                f"epoch {epoch} can't be granted: the chain is in epoch {topology.epoch}, with head"
                f" {topology.head}",
                hint="look at the chain again: chainctl status",
            )
        if head not in topology.order:
            raise Refused(f"{head} is no member of the chain, so it can't be its head")
        order = (head, *(n for n in topology.order if n != head and n not in detach))
        return (EpochGranted(epoch, promotion, order, topology.joining),)

    return decide


def begin_reign(epoch: Epoch, promotion: UUID, position: Position) -> Command:
    """Records that the head took up its epoch. Nothing to do if it is known, or a newer one holds."""

    def decide(topology: Topology | None) -> tuple[Decision, ...]:
        topology = _existing(topology)
        if (topology.epoch, topology.promotion) != (epoch, promotion) or topology.began is not None:
            return ()
        return (ReignBegan(epoch, position),)

    return decide


def start_join(node: str, region: str, *, run: UUID) -> Command:
    """Lets a node follow the tail, to become a member once it is verified."""

    def decide(topology: Topology | None) -> tuple[Decision, ...]:
        topology = _existing(topology)
        _check_run(topology, run)
        if node in topology.joining or node in topology.order:
            return ()
        return (JoinStarted(node, region),)

    return decide


def finish_join(node: str, *, run: UUID) -> Command:
    """Makes a joining node the tail."""

    def decide(topology: Topology | None) -> tuple[Decision, ...]:
        topology = _existing(topology)
        if node in topology.order:
            return ()
        _check_run(topology, run)
        if node not in topology.joining:
            raise Refused(f"{node} is not joining")
        return (JoinFinished(node),)

    return decide


def detach(node: str, *, run: UUID) -> Command:
    """Takes a follower out of the chain; who followed it follows the node before it."""

    def decide(topology: Topology | None) -> tuple[Decision, ...]:
        topology = _existing(topology)
        if node in topology.detached:
            return ()
        _check_run(topology, run)
        if topology.role(node).value == "head":
            raise Refused(f"{node} is the head", hint="move the head first: switchover or failover")
        return (NodeDetached(node),)

    return decide


def start_run(run: UUID, playbook: str, parameters: Mapping[str, Any], by: str) -> Command:
    """Begins a run. One at a time: raises Busy, naming who is at it."""

    def decide(topology: Topology | None) -> tuple[Decision, ...]:
        topology = _existing(topology)
        if topology.run is not None:
            if topology.run.id == run:
                return ()
            raise busy(topology.run)
        return (RunStarted(run, playbook, dict(parameters), by, Epoch(topology.epoch + 1)),)

    return decide


def start_step(run: UUID, step: str) -> Command:
    def decide(topology: Topology | None) -> tuple[Decision, ...]:
        topology = _existing(topology)
        _check_run(topology, run)
        if topology.run is not None and topology.run.result(step) is not None:
            return ()
        return (StepStarted(run, step),)

    return decide


def finish_step(run: UUID, step: str, result: Mapping[str, Any]) -> Command:
    def decide(topology: Topology | None) -> tuple[Decision, ...]:
        topology = _existing(topology)
        _check_run(topology, run)
        if topology.run is not None and topology.run.result(step) is not None:
            return ()
        return (StepFinished(run, step, dict(result)),)

    return decide


def finish_run(run: UUID, outcome: str, reason: str = "") -> Command:
    def decide(topology: Topology | None) -> tuple[Decision, ...]:
        topology = _existing(topology)
        if topology.run is None or topology.run.id != run:
            return ()
        return (RunFinished(run, outcome, reason),)

    return decide


def busy(run: Run) -> Busy:
    at = run.steps[-1].name if run.steps else "its start"
    return Busy(
        f"{run.playbook} (run {run.id}, begun by {run.by}) is under way, at {at}",
        hint="wait for it; if who began it is gone, give the same command again to carry it on",
    )


def _existing(topology: Topology | None) -> Topology:
    if topology is None:
        raise Refused("the registry does not know this chain", hint="start it: chainctl up")
    return topology


def _check_run(topology: Topology, run: UUID | None) -> None:
    under_way = topology.run.id if topology.run is not None else None
    if under_way == run:
        return
    if topology.run is not None:
        raise busy(topology.run)
    raise Refused(f"run {run} has ended", hint="look at the chain again: chainctl history")
