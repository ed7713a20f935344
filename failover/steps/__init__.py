"""The closed list of steps that playbooks are made of."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final

from failover.steps import head, members
from failover.steps.context import Context, Result

StepFunction = Callable[[Context], Awaitable[Result]]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of step: what it does, and where in a playbook it may stand."""

    do: StepFunction
    needs: tuple[str, ...] = ()
    """One of these comes before it: it works with what that found."""
    told: str = ""
    """A parameter that the playbook has to require: the step can't do without it."""
    looks: bool = False
    """It changes nothing, so a plan does it, to say what would be found; it may be a precheck."""
    waits: bool = False
    """It changes nothing, but takes its time: a plan does not do it."""

    @property
    def changes(self) -> bool:
        return not (self.looks or self.waits)

    @property
    def title(self) -> str:
        """The first sentence of what is said about it."""
        return " ".join((self.do.__doc__ or "").strip().split("\n\n")[0].split())


_FENCED: Final = ("fence-head", "fence-head-if-reachable")

STEPS: Final[Mapping[str, Kind]] = {
    "choose-candidate": Kind(head.choose_candidate, looks=True),
    "check-head-lost": Kind(head.check_head_lost, looks=True),
    "check-candidate": Kind(head.check_candidate, ("choose-candidate",), looks=True),
    "fence-head": Kind(head.fence_head, ("choose-candidate",)),
    "fence-head-if-reachable": Kind(head.fence_head_if_reachable, ("choose-candidate",)),
    "drain": Kind(head.drain, ("fence-head",), waits=True),
    "drain-if-possible": Kind(head.drain_if_possible, ("fence-head-if-reachable",), waits=True),
    "check-equal": Kind(head.check_equal, ("fence-head",), waits=True),
    "end-lease": Kind(head.end_lease, _FENCED),
    "fence-others": Kind(head.fence_others, ("end-lease",)),
    "grant-epoch": Kind(head.grant_epoch, ("fence-others",)),
    "grant-epoch-without-old-head": Kind(head.grant_epoch_without_old_head, ("fence-others",)),
    "promote": Kind(head.promote, ("grant-epoch", "grant-epoch-without-old-head")),
    "restore-head": Kind(head.restore_head, _FENCED),
    "repoint": Kind(head.repoint, waits=True),
    "check-joining": Kind(members.check_candidate_for_joining, told="node", looks=True),
    "begin-join": Kind(members.begin_join, ("check-joining",)),
    "abandon-join": Kind(members.abandon_join, ("begin-join",)),
    "catch-up": Kind(members.catch_up, ("begin-join",), waits=True),
    "settle-ledger": Kind(members.settle_ledger, ("begin-join",), waits=True),
    "verify-node": Kind(members.verify_node, ("begin-join",), waits=True),
    "finish-join": Kind(members.finish_joining, ("verify-node",)),
    "check-follower": Kind(members.check_follower, told="node", looks=True),
    "check-middle-lost": Kind(members.check_middle_lost, told="node", looks=True),
    "leave": Kind(members.leave, ("check-follower", "check-middle-lost")),
    "leave-region": Kind(members.leave_region, ("promote",), told="region"),
}

__all__ = ["STEPS", "Context", "Kind", "Result", "StepFunction"]
