"""Steps that move the head. Each may be done again, at any time, by anyone: it looks first.

What protects the chain is not here but below: the registry gives each epoch and each lease once, and the
stores refuse whatever is older than what they have promised.
"""

from __future__ import annotations

import asyncio
from typing import Final
from uuid import UUID, uuid5

from chain.commands import grant
from chain.errors import ChainError, LeaseLost, Refused, StaleLink, Unavailable
from chain.event import Epoch, Position, Tip
from chain.lease import NOBODY, Lease
from chain.store import NodeState, Role
from chain.topology import Topology
from failover.fleet import may_lead, most_advanced
from failover.steps.context import LOOK_S, Context, Result, require_ok, wait_position
from replicator.keeper import take_up
from replicator.verify import verify_pair

_TRIES: Final = 10
_LOADING_ENDS: Final = (
    "wait until it streams: chainctl status; if its upstream stays away, it ends the load by itself"
)


async def choose_candidate(context: Context) -> Result:
    """The node to make head: the one asked for, or else the most advanced that can be reached.

    `home` asks for the last in the home region, `region` for one outside of that region; `never` names
    nodes that are not to be chosen.
    """
    topology = await context.topology()
    followers = _eligible(context, topology)
    states = await context.states(followers)
    tips = may_lead(states, topology)
    chosen = most_advanced(tips, topology.order)
    if context.given("home") and tips:
        chosen = max(tips, key=topology.order.index)
    if chosen is None and (loading := [node for node, state in states.items() if state.loading]):
        raise Refused(f"{', '.join(loading)} is being loaded and can't be promoted yet", hint=_LOADING_ENDS)
    if chosen is None and states:
        raise Refused(
            f"{', '.join(states)} can be reached, but without any event",
            hint="bring back a node that has the log; as the head, an empty one would make all of it dead",
        )
    if chosen is None:
        raise Refused(
            f"none of {', '.join(followers) or 'no followers'} can be reached",
            hint="bring one of them back; the chain can't go on without",
        )
    found = {"node": chosen, "head": topology.head, "position": tips[chosen].position}
    return found | await _verified(context, chosen, tips[chosen])


async def _verified(context: Context, node: str, tip: Tip) -> Result:
    """How much of a node's log is verified, by its own notes. What can't be said is no reason to wait."""
    try:
        async with asyncio.timeout(LOOK_S):
            known = await context.store(node).verified()
    except (ChainError, TimeoutError):
        return {}
    position = min(known.position, tip.position)
    return {"verified": position, "unverified": tip.position - position}


def _eligible(context: Context, topology: Topology) -> list[str]:
    """The followers that may be made head in this run. Raises Refused if there can't be one."""
    wanted, region = context.given("node"), context.given("region")
    never = str(context.given("never", "")).split(",")
    followers = [n for n in topology.order if n != topology.head]
    if wanted is not None:
        if wanted not in followers:
            role = topology.role(str(wanted)).value
            raise Refused(f"{wanted} is {role}", hint=f"it can be one of: {', '.join(followers) or 'none'}")
        return [str(wanted)]
    if context.given("home"):
        if topology.regions[topology.head] == topology.home:
            raise Refused(f"the head, {topology.head}, is at home in {topology.home} already")
        followers = [n for n in followers if topology.regions[n] == topology.home]
        if not followers:
            raise Refused(
                f"no member of the chain is in the home region, {topology.home}",
                hint="bring one back: chainctl rejoin, or chainctl bootstrap",
            )
    if region is not None:
        if topology.regions[topology.head] != region:
            raise Refused(
                f"the head, {topology.head}, is in {topology.regions[topology.head]}, not in {region}",
                hint="take the nodes of that region out one by one: chainctl detach",
            )
        followers = [n for n in followers if topology.regions[n] != region]
    return [n for n in followers if n not in never]


async def check_head_lost(context: Context) -> Result:
    """A failover is for a head that takes no writes: the lease proves it, the fence, or a person's word."""
    topology = await context.topology()
    state = await context.look(topology.head)
    if isinstance(state, NodeState):
        if state.writable:
            raise Refused(
                f"{topology.head} is alive and takes writes",
                hint="move the head without loss: chainctl switchover",
            )
        return {"head": "reachable", "position": state.tip.position}
    lease = await context.fleet.read_lease()  # the wait for its end begins here
    if (lease is None or lease.duration_s is None) and not context.given("head_is_dead"):
        raise Refused(
            f"{topology.head} can't be reached ({state.message}), which does not prove that it is dead;"
            " the chain has no lease that would",
            hint="if you know that it takes no writes, say so: --head-is-dead",
        )
    return {"head": "unreachable"}


async def check_candidate(context: Context) -> Result:
    """The candidate follows closely, and what it has is verified to be equal."""
    verified = await verify_pair(
        context.old_head,
        context.store(context.old_head),
        context.node,
        context.store(context.node),
    )
    require_ok(verified.verdict, f"{context.node} against {context.old_head}", verified)
    lag = verified.source_tip - verified.target_tip
    limit = int(context.given("max_lag_events", 100_000))
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
    return {"fenced": True, "position": tip.position, "epoch": tip.epoch}


async def fence_head_if_reachable(context: Context) -> Result:
    """The same for a head that may be dead: one that does not answer at once is taken for unreachable."""
    state = await context.look(context.old_head)
    if not isinstance(state, NodeState):
        return {"fenced": False, "reason": state.message}
    try:
        async with asyncio.timeout(LOOK_S):
            return await fence_head(context)
    except (ChainError, TimeoutError) as error:
        return {"fenced": False, "reason": str(error) or "no answer in time"}


async def drain(context: Context) -> Result:
    """Waits until the candidate has everything that the fenced head had."""
    final = Position(int(context.found("fence-head")["position"]))
    return {"position": (await wait_position(context.store(context.node), final)).position}


async def drain_if_possible(context: Context) -> Result:
    """The same, if the head could be fenced and its log can still be read; else what there is, is it."""
    fence = context.found("fence-head-if-reachable")
    if not fence.get("fenced"):
        return {"drained": False}
    try:
        async with asyncio.timeout(5.0):
            await wait_position(context.store(context.node), Position(int(fence["position"])))
    except (ChainError, TimeoutError):
        return {"drained": False}
    return {"drained": True}


async def check_equal(context: Context) -> Result:
    """The candidate's log equals the final log, digest for digest, since the last verification."""
    final = Position(int(context.found("fence-head")["position"]))
    start = int(context.found("check-candidate")["verified"]) + 1
    verified = await verify_pair(
        context.old_head,
        context.store(context.old_head),
        context.node,
        context.store(context.node),
        first=Position(start),
        last=final,
    )
    require_ok(verified.verdict, f"{context.node} against {context.old_head}", verified)
    return {"verified": final}


async def end_lease(context: Context) -> Result:
    """Takes the lease away from the old head, once it is certain that it takes no writes any more.

    That is so if it is fenced, if its lease ran out (waited for here), or by a person's word. From here on
    it can't renew.
    """
    registry, epoch = context.fleet.registry, context.run.epoch
    fenced = bool(context.found("fence-head", "fence-head-if-reachable").get("fenced"))
    proven = fenced or bool(context.given("head_is_dead"))
    for _ in range(_TRIES):
        seen = await registry.lease()
        if seen is not None and seen.epoch >= epoch:
            return {"lease": "taken"}
        if seen is None or seen.duration_s is None:
            if not proven:
                raise Refused(
                    f"{context.old_head} could not be fenced, and the chain has no lease that would run out",
                    hint="if you know that it takes no writes, say so: --head-is-dead",
                )
            return {"lease": "off"}
        if not proven:
            seen = await _wait_expired(context)
        try:
            await registry.take_lease(epoch, NOBODY, seen.duration_s, seen)
        except LeaseLost:
            if not proven:
                raise
            continue  # its daemon renewed once more, which a fenced store does not listen to
        return {"lease": "fenced" if fenced else "by word" if proven else "expired"}
    raise Unavailable("the lease kept being renewed", hint="try again")


async def _wait_expired(context: Context) -> Lease:
    """Waits until the lease has certainly run out. Raises Refused if its holder shows that it is alive."""
    fleet, first, loop = context.fleet, None, asyncio.get_running_loop()
    while True:
        lease = await fleet.read_lease()
        first = first or lease
        if lease is None or lease != first:
            raise Refused(
                f"{context.old_head} has renewed its lease since: it is alive",
                hint="move the head without loss: chainctl switchover",
            )
        left_s = fleet.lease_watch.left_s(loop.time())
        if left_s == 0:
            break
        await asyncio.sleep(min(0.25, left_s or 0.25))
    topology = await context.topology()
    for node in topology.order:
        state = await context.look(node) if node != topology.head else None
        if isinstance(state, NodeState) and state.promised:
            raise Refused(
                f"{node} has promised {topology.head} not to be promoted: the head is alive",
                hint="it can't reach the registry, and goes on by the promises of the others",
            )
    return lease


async def fence_others(context: Context) -> Result:
    """Every other node that can be reached promises to refuse the old epoch; their tips are final then.

    If none was asked for by name, the most advanced of them is the candidate now.
    """
    topology = await context.topology()
    others = [n for n in topology.order if n != context.old_head]
    answers = await asyncio.gather(
        *(context.store(n).fence(context.run.epoch) for n in others), return_exceptions=True
    )
    tips = {n: a for n, a in zip(others, answers, strict=True) if isinstance(a, Tip)}
    node = context.found("choose-candidate")["node"]
    if not context.found("fence-head"):  # the candidate of a planned move has everything, and is verified
        states = await context.states(n for n in _eligible(context, topology) if n in tips)
        node = most_advanced(may_lead(states, topology), topology.order)
    if node not in tips:
        raise Unavailable(f"{node or 'no candidate'} can't be fenced", hint="is it up? chainctl status")
    result: Result = {"node": node, "fenced": list(tips), "position": tips[node].position}
    chosen = context.found("choose-candidate")
    return result if node == chosen["node"] else result | await _verified(context, node, tips[node])


async def grant_epoch(context: Context) -> Result:
    """The registry grants the epoch to the candidate; the old head stays in the chain behind it."""
    return await _grant(context, detached=())


async def grant_epoch_without_old_head(context: Context) -> Result:
    """The registry grants the epoch to the candidate; the old head is outside until it rejoins."""
    return await _grant(context, detached=(context.old_head,))


async def _grant(context: Context, detached: tuple[str, ...]) -> Result:
    run, node = context.run, context.node
    state = await context.store(node).state()
    if state.epoch < run.epoch:
        raise Refused(
            f"{node} knows nothing of its fence any more: its store went back", hint="give the command again"
        )
    if state.loading:  # and since it is fenced, no link begins to load it from now on
        raise Refused(f"{node} is being loaded and can't be promoted yet", hint=_LOADING_ENDS)
    topology = await context.fleet.registry.decide(
        grant(run.epoch, run.id, node, state.ground, run=run.id, detach=detached),
        by=context.by,
        why=context.why,
    )
    return {"epoch": context.run.epoch, "order": list(topology.order)}


async def promote(context: Context) -> Result:
    """The candidate takes up its lease and its epoch: from here on it takes writes."""
    return await _promote(context, context.node, context.run.epoch, context.run.id)


async def _promote(context: Context, node: str, epoch: Epoch, promotion: UUID) -> Result:
    registry, store = context.fleet.registry, context.store(node)
    terms, by, why = context.fleet.config.lease.terms, context.by, context.why
    tip = await take_up(registry, store, node, epoch, promotion, terms, by=by, why=why)
    state = await store.state()
    if not state.reigning:
        raise Refused(f"{node} was promoted and takes no writes: it knows epoch {state.epoch}")
    return {"position": tip.position}


async def restore_head(context: Context) -> Result:
    """Takes fences back: the old head, if it is sound, is granted the epoch and goes on in it.

    One that can't be reached heals by itself when it is back: its daemon asks for an epoch.
    """
    topology = await context.topology()
    promotion = uuid5(context.run.id, "restore")
    if topology.epoch >= context.run.epoch and topology.promotion != promotion:
        return {}  # a newer epoch was granted to a head already: there is no fence left to take back
    state = await context.look(context.old_head)
    if not isinstance(state, NodeState) or state.role is not Role.HEAD:  # gone, or its store was replaced
        return {"restored": False}
    if state.restarted or state.clock_is_back:
        return {"restored": False}
    await context.store(context.old_head).fence(context.run.epoch)
    final = await context.store(context.old_head).state()
    await context.fleet.registry.decide(
        grant(context.run.epoch, promotion, context.old_head, final.ground, run=context.run.id),
        by=context.by,
        why="the move did not come about",
    )
    return await _promote(context, context.old_head, context.run.epoch, promotion)


async def repoint(context: Context) -> Result:
    """Waits until all members that can be reached follow in the new epoch; the others will in time."""
    topology = await context.topology()
    followers = [n for n in topology.order if n != topology.head]
    done = await asyncio.gather(*(_wait_follows(context, node, topology) for node in followers))
    return {
        "following": [n for n, ok in zip(followers, done, strict=True) if ok],
        "later": [n for n, ok in zip(followers, done, strict=True) if not ok],
    }


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
