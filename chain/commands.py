"""Who may make which decision when: commands, each a pure function from a topology to decisions.

The registry appends what a command gives at the revision that it decided on, so of two controllers or two
operators only one can win.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

from chain.decisions import (
    AutomationPaused,
    AutomationResumed,
    ChainCreated,
    Decision,
    EpochGranted,
    FailoverAcknowledged,
    JoinFinished,
    JoinHeard,
    JoinStarted,
    NodeDetached,
    PlanApproved,
    ReignBegan,
    RunFinished,
    RunStarted,
    StepFinished,
    StepStarted,
)
from chain.errors import BadInput, Busy, Refused
from chain.event import Epoch, Position
from chain.store import Ground
from chain.topology import Run, Topology

Command = Callable[[Topology | None], tuple[Decision, ...]]
"""Decides on a topology: the decisions to record, none if there is nothing (left) to do. Raises Refused."""


def create_chain(chain: str, regions: Mapping[str, str], promotion: UUID, ground: Ground) -> Command:
    """The chain with its first head, on its ground. Nothing to do if it exists."""

    def decide(topology: Topology | None) -> tuple[Decision, ...]:
        if topology is not None:
            return ()
        if not regions:
            raise BadInput("a chain needs at least one node")
        return (ChainCreated(chain, dict(regions), promotion, ground),)

    return decide


def grant(
    epoch: Epoch,
    promotion: UUID,
    head: str,
    ground: Ground,
    *,
    run: UUID | None,
    detach: tuple[str, ...] = (),
) -> Command:
    """The next epoch for `head`; the others keep their order behind it, without those to `detach`.

    `ground` is final: the node is fenced for this epoch, or has no right to write. Granted once: to the run
    that is under way, or, when none is, to a head that asks for itself.
    """

    def decide(topology: Topology | None) -> tuple[Decision, ...]:
        topology = _existing(topology)
        if (topology.epoch, topology.promotion, topology.head) == (epoch, promotion, head):
            return ()
        if run is None and head != topology.head:
            raise Refused(f"{head} is not the head, so only an operation can make it the head")
        if run is not None or moves_the_head(topology.run):
            _check_run(topology, run)
        if epoch != topology.epoch + 1:
            raise Refused(
                f"epoch {epoch} can't be granted: the chain is in epoch {topology.epoch}, with head"
                f" {topology.head}",
                hint="look at the chain again: chainctl status",
            )
        if head not in topology.order:
            raise Refused(f"{head} is no member of the chain, so it can't be its head")
        order = (head, *(n for n in topology.order if n != head and n not in detach))
        return (EpochGranted(epoch, promotion, order, topology.joining, ground),)

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


def hear_join(node: str, epoch: Epoch) -> Command:
    """Records that the head of `epoch` knows that the node joins. Nothing to do if that is over."""

    def decide(topology: Topology | None) -> tuple[Decision, ...]:
        topology = _existing(topology)
        if topology.epoch != epoch or node not in topology.joining or node in topology.heard:
            return ()
        return (JoinHeard(node, epoch),)

    return decide


def finish_join(node: str, *, run: UUID) -> Command:
    """Makes a joining node the tail, once the head has heard of it.

    A head that is cut off from the registry goes on if every other member promises not to be promoted; one
    that did not know of a member would not ask it.
    """

    def decide(topology: Topology | None) -> tuple[Decision, ...]:
        topology = _existing(topology)
        if node in topology.order:
            return ()
        _check_run(topology, run)
        if node not in topology.joining:
            raise Refused(f"{node} is not joining")
        if node not in topology.heard:
            raise Refused(
                f"the head, {topology.head}, has not heard yet that {node} joins",
                hint="is the head's daemon up, and does it reach the registry? chainctl status",
            )
        return (JoinFinished(node),)

    return decide


def detach(node: str, *, run: UUID, keep_out: bool = False) -> Command:
    """Takes a follower out of the chain; who followed it follows the node before it.

    `keep_out` says that no controller is to bring it back.
    """

    def decide(topology: Topology | None) -> tuple[Decision, ...]:
        topology = _existing(topology)
        if node in topology.detached:
            return ()
        _check_run(topology, run)
        if topology.role(node).value == "head":
            raise Refused(f"{node} is the head", hint="move the head first: switchover or failover")
        return (NodeDetached(node, keep_out),)

    return decide


def start_run(
    run: UUID,
    playbook: str,
    parameters: Mapping[str, Any],
    by: str,
    *,
    text: str = "",
    plan: str = "",
) -> Command:
    """Begins a run. One at a time: raises Busy, naming who is at it."""

    def decide(topology: Topology | None) -> tuple[Decision, ...]:
        topology = _existing(topology)
        if topology.run is not None:
            if topology.run.id == run:
                return ()
            raise busy(topology.run)
        started = RunStarted(
            run, playbook, dict(parameters), by, Epoch(topology.epoch + 1), text=text, plan=plan
        )
        return (started,)

    return decide


def start_step(run: UUID, step: str) -> Command:
    def decide(topology: Topology | None) -> tuple[Decision, ...]:
        topology = _existing(topology)
        _check_run(topology, run)
        if topology.run is not None and topology.run.result(step) is not None:
            return ()
        return (StepStarted(run, step),)

    return decide


def finish_step(run: UUID, step: str, result: Mapping[str, Any], *, then: str | None = None) -> Command:
    """Records what a step gave and, if there is a next to begin, that it begins."""

    def decide(topology: Topology | None) -> tuple[Decision, ...]:
        topology = _existing(topology)
        _check_run(topology, run)
        if topology.run is not None and topology.run.result(step) is not None:
            return ()
        finished = StepFinished(run, step, dict(result))
        return (finished,) if then is None else (finished, StepStarted(run, then))

    return decide


def finish_run(run: UUID, outcome: str, reason: str = "") -> Command:
    def decide(topology: Topology | None) -> tuple[Decision, ...]:
        topology = _existing(topology)
        if topology.run is None or topology.run.id != run:
            return ()
        return (RunFinished(run, outcome, reason),)

    return decide


def pause_automation(by: str, why: str) -> Command:
    """No controller acts by itself any more. Runs under way go on."""

    def decide(topology: Topology | None) -> tuple[Decision, ...]:
        return () if _existing(topology).paused is not None else (AutomationPaused(by, why),)

    return decide


def resume_automation() -> Command:
    def decide(topology: Topology | None) -> tuple[Decision, ...]:
        return () if _existing(topology).paused is None else (AutomationResumed(),)

    return decide


def acknowledge_failover() -> Command:
    """Ends the cool-down after a failover: a person has looked at it."""

    def decide(topology: Topology | None) -> tuple[Decision, ...]:
        return () if _existing(topology).failed_over_at is None else (FailoverAcknowledged(),)

    return decide


def approve_plan(plan: str, by: str, for_s: float) -> Command:
    """Approves of a plan by its hash, for a time. Raises BadInput."""

    def decide(topology: Topology | None) -> tuple[Decision, ...]:
        _existing(topology)
        if not by.strip():
            raise BadInput("an approval is given by a named person", hint="give a name: --by")
        if not 0 < for_s <= 7 * 86400:
            raise BadInput(f"an approval lasts more than 0 s and at most 7 days, not {for_s:g} s")
        return (PlanApproved(plan, by, for_s),)

    return decide


def moves_the_head(run: Run | None) -> bool:
    """Has a run begun to take the head's place away? One that has not must not keep it from going on."""
    return run is not None and any(
        step.name.startswith(("fence", "end-lease", "grant")) for step in run.steps
    )


def busy(run: Run) -> Busy:
    at = run.steps[-1].name if run.steps else "its start"
    return Busy(
        f"{run.playbook} (run {run.id}, begun by {run.by}) is under way, at {at}",
        hint="wait for it; if who began it is gone, give the same command again, or chainctl playbook abort",
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
