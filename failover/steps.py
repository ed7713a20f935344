"""The steps that playbooks are made of. Each may be done again, at any time, by anyone: it looks first.

What protects the chain is not here but below: the registry grants an epoch once, and the stores refuse
whatever is older than what they have promised.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID, uuid5

from chain.commands import begin_reign, detach, finish_join, grant, start_join
from chain.errors import ChainError, Different, NotPrepared, Refused, StaleLink, TimedOut
from chain.event import Epoch, Position, Tip
from chain.store import Role, Store
from chain.topology import Run, Topology
from failover.fleet import Fleet, most_advanced
from replicator.verify import Verdict, verify_pair

Result = dict[str, Any]

STALLED_S: Final = 60.0
"""A node that joins and has not moved for so long is waited for no more."""


@dataclass(frozen=True, slots=True)
class Context:
    """What a step works with. `run` holds the results of the steps before it."""

    fleet: Fleet
    run: Run
    by: str
    why: str

    @property
    def node(self) -> str:
        """The node that the run is about: asked for, or chosen."""
        chosen = self.run.result("choose-candidate") or {}
        return str(chosen.get("node") or self.run.parameters["node"])

    @property
    def old_head(self) -> str:
        chosen = self.run.result("choose-candidate") or {}
        return str(chosen["head"])

    async def topology(self) -> Topology:
        return await self.fleet.registry.topology()

    def store(self, node: str) -> Store:
        return self.fleet.store(node)


StepFunction = Callable[[Context], Awaitable[Result]]


async def choose_candidate(context: Context) -> Result:
    """The node to make head: the one asked for, or the most advanced that can be reached."""
    topology = await context.topology()
    wanted = context.run.parameters.get("node")
    followers = [n for n in topology.order if n != topology.head]
    if wanted is not None and wanted not in followers:
        role = topology.role(str(wanted)).value
        raise Refused(f"{wanted} is {role}", hint=f"it can be one of: {', '.join(followers) or 'none'}")
    tips = await _tips(context, [str(wanted)] if wanted else followers)
    chosen = most_advanced(tips, topology.order)
    if chosen is None:
        raise Refused(
            f"none of {', '.join(followers) or 'no followers'} can be reached",
            hint="bring one of them back; the chain can't go on without",
        )
    return {"node": chosen, "head": topology.head, "position": tips[chosen].position}


async def check_head_lost(context: Context) -> Result:
    """A forced failover is for a head that takes no writes, or is dead by the operator's word."""
    topology = await context.topology()
    try:
        state = await context.store(topology.head).state()
    except ChainError as error:
        if not context.run.parameters.get("head_is_dead"):
            raise Refused(
                f"{topology.head} can't be reached ({error.message}), which does not prove that it is dead",
                hint="if you know that it takes no writes, say so: --head-is-dead",
            ) from error
        return {"head": "unreachable"}
    if state.writable:
        raise Refused(
            f"{topology.head} is alive and takes writes",
            hint="move the head without loss: chainctl switchover",
        )
    return {"head": "reachable", "position": state.tip.position}


async def check_candidate(context: Context) -> Result:
    """The candidate follows closely, and what it has is verified to be equal."""
    verified = await verify_pair(
        context.old_head,
        context.store(context.old_head),
        context.node,
        context.store(context.node),
    )
    _require_ok(verified.verdict, f"{context.node} against {context.old_head}", verified)
    lag = verified.source_tip - verified.target_tip
    limit = int(context.run.parameters.get("max_lag_events", 100_000))
    if lag > limit:
        raise Refused(
            f"{context.node} is {lag:,} events behind; at most {limit:,} are allowed for a planned move",
            hint="wait until it has caught up: chainctl watch",
        )
    return {"verified": verified.last, "lag_events": lag}


async def fence_head(context: Context) -> Result:
    """The old head promises to take no more writes; its tip is final then."""
    topology = await context.topology()
    if topology.epoch >= context.run.epoch and topology.promotion != context.run.id:
        raise Refused(
            f"the chain came to epoch {topology.epoch} since this run began", hint="give the command again"
        )
    tip = await context.store(context.old_head).fence(context.run.epoch)
    return {"position": tip.position, "epoch": tip.epoch}


async def fence_head_if_reachable(context: Context) -> Result:
    try:
        return {"fenced": True, **await fence_head(context)}
    except ChainError as error:
        return {"fenced": False, "reason": error.message}


async def drain(context: Context) -> Result:
    """Waits until the candidate has everything that the fenced head had."""
    final = context.run.result("fence-head") or {}
    return {"position": (await _wait_for(context, context.node, Position(int(final["position"])))).position}


async def drain_if_possible(context: Context) -> Result:
    """The same, if the head could be fenced and its log can still be read; else what there is, is it."""
    fence = context.run.result("fence-head-if-reachable") or {}
    if not fence.get("fenced"):
        return {"drained": False}
    try:
        async with asyncio.timeout(5.0):
            await _wait_for(context, context.node, Position(int(fence["position"])))
    except TimeoutError:
        return {"drained": False}
    return {"drained": True}


async def check_equal(context: Context) -> Result:
    """The candidate's log equals the final log, digest for digest, since the last verification."""
    final = Position(int((context.run.result("fence-head") or {})["position"]))
    start = int((context.run.result("check-candidate") or {})["verified"]) + 1
    verified = await verify_pair(
        context.old_head,
        context.store(context.old_head),
        context.node,
        context.store(context.node),
        first=Position(start),
        last=final,
    )
    _require_ok(verified.verdict, f"{context.node} against {context.old_head}", verified)
    return {"verified": final}


async def fence_others(context: Context) -> Result:
    """Every other node that can be reached promises to refuse the old epoch. The candidate must."""
    topology = await context.topology()
    await context.store(context.node).fence(context.run.epoch)
    others = [n for n in topology.order if n not in (context.node, context.old_head)]
    answers = await asyncio.gather(
        *(context.store(n).fence(context.run.epoch) for n in others), return_exceptions=True
    )
    return {"fenced": [n for n, a in zip(others, answers, strict=True) if isinstance(a, Tip)]}


async def grant_epoch(context: Context) -> Result:
    """The registry grants the epoch to the candidate; the old head stays in the chain behind it."""
    return await _grant(context, detached=())


async def grant_epoch_without_old_head(context: Context) -> Result:
    """The registry grants the epoch to the candidate; the old head is outside until it rejoins."""
    return await _grant(context, detached=(context.old_head,))


async def _grant(context: Context, detached: tuple[str, ...]) -> Result:
    topology = await context.fleet.registry.decide(
        grant(context.run.epoch, context.run.id, context.node, run=context.run.id, detach=detached),
        by=context.by,
        why=context.why,
    )
    return {"epoch": context.run.epoch, "order": list(topology.order)}


async def promote(context: Context) -> Result:
    """The candidate takes up its epoch: from here on it takes writes."""
    return await _promote(context, context.node, context.run.epoch, context.run.id)


async def _promote(context: Context, node: str, epoch: Epoch, promotion: UUID) -> Result:
    store = context.store(node)
    tip = await store.promote(epoch, promotion)
    state = await store.state()
    if not state.writable:
        raise Refused(f"{node} was promoted and takes no writes: it knows epoch {state.epoch}")
    await context.fleet.registry.decide(
        begin_reign(epoch, promotion, tip.position), by=context.by, why=context.why
    )
    return {"position": tip.position}


async def restore_head(context: Context) -> Result:
    """Takes a fence back: the old head is granted the epoch and goes on in it."""
    topology = await context.topology()
    promotion = uuid5(context.run.id, "restore")
    if topology.epoch >= context.run.epoch and topology.promotion != promotion:
        return {}  # a newer epoch was granted to a head already: there is no fence left to take back
    await context.fleet.registry.decide(
        grant(context.run.epoch, promotion, context.old_head, run=context.run.id),
        by=context.by,
        why="the planned move did not come about",
    )
    return await _promote(context, context.old_head, context.run.epoch, promotion)


async def repoint(context: Context) -> Result:
    """Waits until all members that can be reached follow in the new epoch; the others will in time."""
    topology = await context.topology()
    followers = [n for n in topology.order if n != topology.head]
    done: dict[str, bool] = {}
    for node in followers:
        done[node] = await _wait_follows(context, node, topology)
    return {
        "following": [n for n, ok in done.items() if ok],
        "later": [n for n, ok in done.items() if not ok],
    }


async def begin_join(context: Context) -> Result:
    """The node follows the tail, without being a member yet. It must be reachable, and its daemon up."""
    region = context.fleet.config.node(context.node).region
    topology = await context.topology()
    if context.node in topology.order:
        raise Refused(f"{context.node} is a member already: {topology.role(context.node).value}")
    await _wait_prepared(context.store(context.node))
    topology = await context.fleet.registry.decide(
        start_join(context.node, region, run=context.run.id), by=context.by, why=context.why
    )
    return {"upstream": topology.upstream(context.node) or topology.tail}


async def abandon_join(context: Context) -> Result:
    topology = await context.topology()
    if context.node in topology.joining:
        await context.fleet.registry.decide(
            detach(context.node, run=context.run.id), by=context.by, why="the join did not come about"
        )
    return {}


async def catch_up(context: Context) -> Result:
    """Waits until the node has all that its upstream had, a moment ago."""
    store = context.store(context.node)
    seen, since = None, time.monotonic()
    aim: Position | None = None
    while True:
        topology = await context.topology()
        upstream = topology.upstream(context.node) or topology.head
        state = await store.state()
        goal = await context.store(upstream).tip()
        # Only an event of the newest epoch at its tip says that a log is off every dead branch.
        on_branch = state.upstream == upstream and state.tip.epoch == goal.epoch == topology.epoch
        aim = (aim or goal.position) if on_branch else None
        if aim is not None and state.tip.position >= aim:
            return {"position": state.tip.position}
        if state.tip != seen:
            seen, since = state.tip, time.monotonic()
        elif time.monotonic() - since > STALLED_S:
            raise TimedOut(
                f"{context.node} has stood at {state.tip} for {STALLED_S:g} s, behind {upstream} at {goal}",
                hint="is its daemon up, and its upstream's? chainctl status",
            )
        await asyncio.sleep(0.05)


async def settle_ledger(context: Context) -> Result:
    """Waits until everything that the node gave up is in the ledger, and the ledger has come back to it."""
    store = context.store(context.node)
    while await store.dead_branch(limit=1):
        await store.wait((await store.tip()).position, 0.2)
    return {}


async def verify_node(context: Context) -> Result:
    """The node's whole log equals its upstream's."""
    topology = await context.topology()
    upstream = topology.upstream(context.node) or topology.head
    verified = await verify_pair(upstream, context.store(upstream), context.node, context.store(context.node))
    _require_ok(verified.verdict, f"{context.node} against {upstream}", verified)
    return {"verified": verified.last}


async def finish_joining(context: Context) -> Result:
    """The node becomes a member: the tail."""
    topology = await context.fleet.registry.decide(
        finish_join(context.node, run=context.run.id), by=context.by, why=context.why
    )
    return {"order": list(topology.order)}


async def leave(context: Context) -> Result:
    """The node is no member any more; who followed it follows the node before it."""
    topology = await context.fleet.registry.decide(
        detach(context.node, run=context.run.id), by=context.by, why=context.why
    )
    return {"order": list(topology.order)}


STEPS: Final[Mapping[str, StepFunction]] = {
    "choose-candidate": choose_candidate,
    "check-head-lost": check_head_lost,
    "check-candidate": check_candidate,
    "fence-head": fence_head,
    "fence-head-if-reachable": fence_head_if_reachable,
    "drain": drain,
    "drain-if-possible": drain_if_possible,
    "check-equal": check_equal,
    "fence-others": fence_others,
    "grant-epoch": grant_epoch,
    "grant-epoch-without-old-head": grant_epoch_without_old_head,
    "promote": promote,
    "restore-head": restore_head,
    "repoint": repoint,
    "begin-join": begin_join,
    "abandon-join": abandon_join,
    "catch-up": catch_up,
    "settle-ledger": settle_ledger,
    "verify-node": verify_node,
    "finish-join": finish_joining,
    "leave": leave,
}

CHECKS: Final = frozenset({"choose-candidate", "check-head-lost", "check-candidate"})
"""Steps that only look: a plan does them, to say what would happen."""


async def _tips(context: Context, nodes: list[str]) -> dict[str, Tip]:
    answers = await asyncio.gather(*(context.store(n).tip() for n in nodes), return_exceptions=True)
    return {n: a for n, a in zip(nodes, answers, strict=True) if isinstance(a, Tip)}


async def _wait_for(context: Context, node: str, position: Position) -> Tip:
    store = context.store(node)
    while True:
        tip = await store.tip()
        if tip.position >= position:
            return tip
        await store.wait(Position(position - 1), 0.2)


async def _wait_prepared(store: Store) -> None:
    """Waits for a new node's daemon to make the schema; a node that can't be reached fails at once."""
    while True:
        try:
            await store.tip()
            return
        except NotPrepared:
            await asyncio.sleep(0.1)


async def _wait_follows(context: Context, node: str, topology: Topology, wait_s: float = 5.0) -> bool:
    store = context.store(node)
    try:
        async with asyncio.timeout(wait_s):
            while True:
                state = await store.state()
                if state.epoch > topology.epoch:
                    raise StaleLink(f"{node} knows epoch {state.epoch} already")
                if (state.upstream, state.epoch) == (topology.upstream(node), topology.epoch):
                    return state.role is not Role.DETACHED
                await asyncio.sleep(0.02)
    except (ChainError, TimeoutError):
        return False


def _require_ok(verdict: Verdict, what: str, verified: Any) -> None:
    if verdict is Verdict.DIFF:
        raise Different(f"{what}: position {verified.differing[0]} differs", hint="see all: chainctl verify")
    if verdict is Verdict.UNKNOWN:
        raise Refused(f"{what} could not be verified: {verified.reason}")
