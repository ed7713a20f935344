"""Diagnose: from what was seen to the few signs that the rules go by. A pure function.

A head is lost only if its lease ran out, counted while the registry could be read, and nobody speaks for it:
neither its own store, nor a follower that has promised it not to be promoted.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum

from chain.commands import moves_the_head
from chain.config import AutomationConfig
from chain.store import Role
from chain.topology import Topology
from failover.fleet import may_lead, most_advanced
from failover.observer import Picture, Sight


class Head(Enum):
    """What is to be thought of the head."""

    WELL = "well"
    """It takes writes, by its own word."""
    FAILSAFE = "failsafe"
    """Its lease is not renewed at the registry, but it goes on: by its own word, or its followers promise."""
    WAITING = "waiting"
    """It takes no writes or can't be reached, and its lease has not run out yet."""
    LOST = "lost"
    """Its lease has run out: it takes no writes."""
    UNPROVEN = "unproven"
    """It can't be reached, or takes no writes, and there is no lease that would prove it."""


class Candidate(Enum):
    """Who could take over."""

    NONE = "none"
    """No follower that may be promoted can be reached."""
    GOOD = "good"
    """What would be left behind on the lost head is within the budget, as far as can be known."""
    BEHIND = "behind"
    """More would be left behind than the budget allows, or it can't be known how much."""


class Unfinished(Enum):
    """What was begun and not ended."""

    NOTHING = "nothing"
    MOVE = "move"
    """A move of the head that has begun to take the old one's place away."""
    OTHER = "other"


class Follower(Enum):
    """A member that has been out of reach for too long."""

    NONE = "none"
    MIDDLE = "middle"
    TAIL = "tail"


@dataclass(frozen=True, slots=True)
class Signs:
    """All that a rule can ask for."""

    registry: bool
    """The registry can be read."""
    paused: bool
    automatic: bool
    """The policy lets a controller act."""
    head: Head
    candidate: Candidate
    cooling: bool
    """The last failover was a short time ago, and nobody has acknowledged it."""
    unfinished: Unfinished
    lost: Follower
    returning: bool
    """A node outside the chain is back, and may be brought in."""
    homesick: bool
    """The head is not at home, and a node there could take over."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The signs, and the names and numbers behind them."""

    signs: Signs
    head: str = ""
    candidate: str | None = None
    loss_events: int | None = None
    """What the candidate lacks, as far as its daemon last knew."""
    behind_s: float | None = None
    """For how long the candidate had not heard from the head when the head's lease ended."""
    lost: str | None = None
    returning: str | None = None
    empty: bool = False
    """The node that is returning has no events yet."""
    lease_left_s: float | None = None
    why: str = ""
    """By whom and why automation is paused; else what the head last gave as its trouble."""


def diagnose(picture: Picture, policy: AutomationConfig, resting: Collection[str] = ()) -> Diagnosis:
    """`resting` are nodes that were tried a moment ago without success: they are left alone for a while."""
    topology = picture.topology
    readable = topology is not None and picture.registry_lost_since is None
    if topology is None or not readable:
        return Diagnosis(_nothing_known(policy), head=topology.head if topology else "")
    head = picture.sights.get(topology.head)
    candidate, loss, behind = _candidate(picture, topology, policy)
    lost, what = _lost_follower(picture, topology, policy)
    returning = _returning(picture, topology, policy, resting)
    sight = picture.sights.get(returning) if returning else None
    signs = Signs(
        registry=True,
        paused=topology.paused is not None,
        automatic=policy.policy == "automatic",
        head=_head(picture, topology, head),
        candidate=_judge(candidate, loss, behind, policy),
        cooling=_cooling(picture, topology, policy),
        unfinished=_unfinished(topology),
        lost=what,
        returning=returning is not None,
        homesick=_homesick(picture, topology, policy, resting),
    )
    return Diagnosis(
        signs,
        head=topology.head,
        candidate=candidate,
        loss_events=loss,
        behind_s=behind,
        lost=lost,
        returning=returning,
        empty=sight is not None and sight.state is not None and sight.state.tip.position == 0,
        lease_left_s=picture.lease_left_s,
        why=topology.paused or (head.trouble if head else ""),
    )


def _nothing_known(policy: AutomationConfig) -> Signs:
    return Signs(
        registry=False,
        paused=False,
        automatic=policy.policy == "automatic",
        head=Head.WAITING,
        candidate=Candidate.NONE,
        cooling=False,
        unfinished=Unfinished.NOTHING,
        lost=Follower.NONE,
        returning=False,
        homesick=False,
    )


def _head(picture: Picture, topology: Topology, sight: Sight | None) -> Head:
    state = sight.state if sight is not None and sight.reachable else None
    writes = state is not None and state.writable and state.reign == topology.epoch
    if not picture.leased:
        return Head.WELL if writes else Head.UNPROVEN
    if picture.lease_left_s is None or picture.lease_left_s > 0:
        return Head.WELL if writes else Head.WAITING
    promised = any(s.reachable and s.state is not None and s.state.promised for s in picture.sights.values())
    return Head.FAILSAFE if writes or promised else Head.LOST


def _candidate(
    picture: Picture, topology: Topology, policy: AutomationConfig
) -> tuple[str | None, int | None, float | None]:
    """Who could take over, what it lacks, and for how long it had not heard from the head."""
    states = {
        n: s.state
        for n in topology.order[1:]
        if n not in policy.never and (s := picture.sights.get(n)) and s.reachable and s.state
    }
    tips = may_lead(states, topology)
    node = most_advanced(tips, topology.order)
    if node is None:
        return None, None, None
    end = _end_of_head(picture, topology)
    loss = None if end is None else max(0, end - tips[node].position)
    return node, loss, _behind_s(picture.sights[node], picture.at, picture.unrenewed_s)


def _end_of_head(picture: Picture, topology: Topology) -> int | None:
    """The head's last position, as far as it or the node right behind it knew.

    The others only know how far they are behind a node that is behind itself.
    """
    head, first = picture.sights.get(topology.head), picture.sights.get(topology.order[1])
    ends: list[int] = []
    if head is not None and head.state is not None:
        ends.append(head.state.tip.position)
    if first is not None and first.state is not None and first.lag_events is not None:
        ends.append(first.state.tip.position + first.lag_events)
    return max(ends, default=None)


def _behind_s(sight: Sight, at: float, unrenewed_s: float) -> float | None:
    """How long the candidate's link had been cut off when the head was last known to live; 0 if it was not.

    By its daemon's word. A daemon that says nothing any more copies nothing any more, for all that is known.
    """
    link = (sight.daemon or {}).get("link")
    if link is None:
        return None
    silent_s = 0.0 if sight.daemon_lost_since is None else at - sight.daemon_lost_since
    return max(0.0, float(link["cut_off_s"]) + silent_s - unrenewed_s)


def _judge(node: str | None, loss: int | None, behind: float | None, policy: AutomationConfig) -> Candidate:
    if node is None:
        return Candidate.NONE
    if loss is None or behind is None:
        return Candidate.BEHIND
    within = loss <= policy.loss_events and behind <= policy.loss_seconds
    return Candidate.GOOD if within else Candidate.BEHIND


def _cooling(picture: Picture, topology: Topology, policy: AutomationConfig) -> bool:
    if topology.failed_over_at is None:
        return False
    return picture.registry_clock_s < topology.failed_over_at.timestamp() + policy.cool_down


def _unfinished(topology: Topology) -> Unfinished:
    if topology.run is None:
        return Unfinished.NOTHING
    return Unfinished.MOVE if moves_the_head(topology.run) else Unfinished.OTHER


def _lost_follower(
    picture: Picture, topology: Topology, policy: AutomationConfig
) -> tuple[str | None, Follower]:
    """A middle before a tail: others hang on it. The last follower is never given up."""
    if len(topology.order) <= 2:
        return None, Follower.NONE
    for node in topology.order[1:]:
        sight = picture.sights.get(node)
        # A node whose daemon is gone copies nothing, and whoever follows it gets nothing.
        since = (sight.lost_since or sight.daemon_lost_since) if sight is not None else None
        if since is not None and picture.at - since >= policy.lost_after:
            return node, Follower.TAIL if node == topology.tail else Follower.MIDDLE
    return None, Follower.NONE


def _returning(
    picture: Picture, topology: Topology, policy: AutomationConfig, resting: Collection[str]
) -> str | None:
    """A node that was in the chain before, or is configured, and is up with its daemon."""
    if not policy.rejoin:
        return None
    # One that had begun to join when its run was ended is brought in first: it holds up the others.
    for node in sorted(picture.sights, key=lambda n: n not in topology.joining):
        sight = picture.sights[node]
        if node in topology.order or node in topology.kept_out or node in resting or not sight.reachable:
            continue
        if sight.daemon is not None and sight.daemon_lost_since is None:
            return node
    return None


def _homesick(
    picture: Picture, topology: Topology, policy: AutomationConfig, resting: Collection[str]
) -> bool:
    """The whole chain is there and streams, and a node at home could take over."""
    if not policy.come_home or topology.regions[topology.head] == topology.home or topology.head in resting:
        return False
    followers = (n for n in topology.order[1:] if n not in policy.never)
    at_home = [n for n in followers if topology.regions[n] == topology.home]
    whole = not topology.detached and not topology.joining
    return bool(at_home) and whole and all(_streams(picture, n) for n in topology.order[1:])


def _streams(picture: Picture, node: str) -> bool:
    sight = picture.sights.get(node)
    if sight is None or not sight.reachable or sight.state is None:
        return False
    following = sight.state.role in (Role.MIDDLE, Role.TAIL)
    return following and sight.daemon_lost_since is None and sight.link_state == "streaming"
