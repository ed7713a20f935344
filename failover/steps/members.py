"""Steps that bring nodes into the chain and take them out of it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from chain.commands import detach, finish_join, start_join
from chain.errors import Refused, TimedOut
from chain.event import Epoch, Position
from chain.store import NodeState, Store
from chain.tasks import end
from chain.topology import Topology
from failover.steps.context import Context, Result, require_ok, wait_prepared
from replicator.growing import Growing
from replicator.verify import START, verify_pair

STALLED_S: Final = 60.0
"""A node that joins and has not moved for so long is waited for no more."""
INDEXED_WITHIN_S: Final = 3600.0
"""The same, of a node that was loaded and makes its indexes."""

_READ: Final = "read while it caught up"

HEARS_WITHIN_S: Final = 10.0
"""So long a head gets to say that it knows who joins."""


async def check_candidate_for_joining(context: Context) -> Result:
    """The node is configured, no member yet, and can be reached."""
    region = context.fleet.config.node(context.node).region
    topology = await context.topology()
    if context.node in topology.order:
        raise Refused(f"{context.node} is a member already: {topology.role(context.node).value}")
    await wait_prepared(context.store(context.node))
    state = await context.store(context.node).state()
    tip = (await context.store(topology.head).tip()).position
    return {"region": region, "position": state.tip.position, "to_copy": max(0, tip - state.tip.position)}


async def begin_join(context: Context) -> Result:
    """The node follows the tail, without being a member yet."""
    region = str(context.found("check-joining").get("region"))
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


@dataclass(slots=True)
class _Alongside:
    """Verifies what has come to a node, while more comes; anew with every other source or epoch."""

    context: Context
    upstream: str = ""
    epoch: Epoch | None = None
    _seen: Position = START
    _growing: Growing | None = None
    _advancing: asyncio.Task[None] | None = None

    async def look(self, upstream: str, epoch: Epoch, tip: Position) -> None:
        """What can be verified now is begun. The upstream's log is of the epoch; `tip` is the node's."""
        growing = self._growing
        if growing is None or (upstream, epoch) != (self.upstream, self.epoch) or tip < self._seen:
            await self.end()
            node, store = self.context.node, self.context.store
            self.upstream, self.epoch = upstream, epoch
            growing = self._growing = Growing(upstream, store(upstream), node, store(node))
        self._seen = tip
        if growing.is_due(tip) and (self._advancing is None or self._advancing.done()):
            self._advancing = asyncio.create_task(growing.advance(), name=f"verify {self.context.node}")

    async def end(self) -> None:
        if self._advancing is not None:
            await end(self._advancing)
            self._advancing = None

    def found(self, caught_up: Position) -> CaughtUp:
        verified = START if self._growing is None else self._growing.verified
        now = asyncio.get_running_loop().time()
        return CaughtUp(self.upstream, self.epoch, verified, caught_up, now)


@dataclass(frozen=True, slots=True)
class CaughtUp:
    """How far a node was verified while it caught up."""

    upstream: str
    epoch: Epoch | None
    verified: Position
    caught_up: Position
    """Where the node was then. One that is behind that now is not the same any more."""
    at: float

    async def first(self, upstream: str, epoch: Epoch, store: Store) -> Position:
        """Where to begin reading: at the start, if what was read then may not be so any more."""
        same = (self.upstream, self.epoch) == (upstream, epoch)
        soon = asyncio.get_running_loop().time() - self.at < STALLED_S
        if same and soon and (await store.tip()).position >= self.caught_up:
            return max(self.verified, Position(1))  # its last event is read again: no range is empty
        return Position(1)


async def catch_up(context: Context) -> Result:
    """Waits until the node has all that its upstream had, a moment ago; verifies what comes."""
    alongside = _Alongside(context)
    try:
        position = await _caught_up(context, alongside)
    finally:
        await alongside.end()
    read = context.kept[_READ] = alongside.found(position)
    return {"position": position, "verified": read.verified}


async def _caught_up(context: Context, alongside: _Alongside) -> Position:
    store, loop = context.store(context.node), asyncio.get_running_loop()
    seen, since = None, loop.time()
    aim: Position | None = None
    while True:
        topology = await _joining(context)
        upstream = topology.upstream(context.node) or topology.head
        state = await store.state()
        goal = await context.store(upstream).tip()
        # Only an event of the newest epoch at its tip says that a log is off every dead branch.
        follows = state.upstream == upstream and goal.epoch == topology.epoch
        on_branch = follows and state.tip.epoch == goal.epoch
        aim = (aim or goal.position) if on_branch else None
        if aim is not None and state.tip.position >= aim and not state.loading:
            tip = await store.tip()  # what a crash can't take back
            if tip.position >= aim:
                return tip.position
        if follows:
            await alongside.look(upstream, topology.epoch, state.tip.position)
        if state.tip != seen:
            seen, since = state.tip, loop.time()
        elif loop.time() - since > (patience := INDEXED_WITHIN_S if state.loading else STALLED_S):
            raise TimedOut(
                f"{context.node} has stood at {state.tip} for {patience:g} s, behind {upstream} at {goal}",
                hint="is its daemon up, and its upstream's? chainctl status",
            )
        await asyncio.sleep(0.05)


async def _joining(context: Context) -> Topology:
    """The topology, in which the node joins or has joined. Raises Refused if that was taken back."""
    topology = await context.topology()
    if context.node not in (*topology.order, *topology.joining):
        raise Refused(f"{context.node} joins no more: that was taken back", hint="give the command again")
    return topology


async def settle_ledger(context: Context) -> Result:
    """Waits until everything that the node gave up is in the ledger, and the ledger has come back to it."""
    store = context.store(context.node)
    while await store.dead_branch(limit=1):
        await _joining(context)
        await store.wait((await store.tip()).position, 0.2)
    return {}


async def verify_node(context: Context) -> Result:
    """The node's whole log equals its upstream's: what was not read while it caught up is read now."""
    topology = await context.topology()
    upstream = topology.upstream(context.node) or topology.head
    source, target = context.store(upstream), context.store(context.node)
    read: CaughtUp | None = context.kept.pop(_READ, None)  # another try reads all
    first = Position(1) if read is None else await read.first(upstream, topology.epoch, target)
    verified = await verify_pair(upstream, source, context.node, target, first=first)
    require_ok(verified.verdict, f"{context.node} against {upstream}", verified)
    return {"verified": verified.last}


async def finish_joining(context: Context) -> Result:
    """The node becomes a member: the tail. The head has to know of it by now."""
    await _wait_head_heard(context)
    topology = await context.fleet.registry.decide(
        finish_join(context.node, run=context.run.id), by=context.by, why=context.why
    )
    return {"order": list(topology.order)}


async def _wait_head_heard(context: Context) -> None:
    """Returns when the head has heard of the node, or after a while: then `finish_join` refuses."""
    loop = asyncio.get_running_loop()
    until = loop.time() + HEARS_WITHIN_S
    while loop.time() < until:
        topology = await context.topology()
        if context.node not in topology.joining or context.node in topology.heard:
            return
        await asyncio.sleep(0.05)


async def check_follower(context: Context) -> Result:
    """The node to take out is a follower of the chain."""
    topology = await context.topology()
    role = topology.role(context.node)
    if context.node == topology.head:
        raise Refused(f"{context.node} is the head", hint="move the head first: switchover or failover")
    return {"role": role.value}


async def check_middle_lost(context: Context) -> Result:
    """The node to take out is a middle, and it, or its daemon, can't be reached."""
    topology = await context.topology()
    if context.node not in topology.order[1:-1]:
        raise Refused(f"{context.node} is no middle of the chain", hint="see: chainctl status")
    state = await context.look(context.node)
    if isinstance(state, NodeState) and await context.fleet.ask_daemon(context.node) is None:
        return {"node": "without its daemon", "position": state.tip.position}
    if isinstance(state, NodeState):
        raise Refused(f"{context.node} is alive, at {state.tip}", hint="to take it out all the same: detach")
    return {"node": "unreachable", "reason": state.message}


async def leave(context: Context) -> Result:
    """The node is no member any more; who followed it follows the node before it."""
    topology = await context.fleet.registry.decide(
        detach(context.node, run=context.run.id, keep_out=not context.given("returns")),
        by=context.by,
        why=context.why,
    )
    return {"order": list(topology.order)}


async def leave_region(context: Context) -> Result:
    """No node of the region is a member any more. The head is elsewhere by now."""
    topology = await context.topology()
    region = context.run.parameters["region"]
    gone = [n for n in topology.order if topology.regions[n] == region]
    for node in gone:
        topology = await context.fleet.registry.decide(
            detach(node, run=context.run.id, keep_out=True), by=context.by, why=context.why
        )
    return {"left": gone, "order": list(topology.order)}
