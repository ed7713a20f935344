"""The node daemon: sees to it that one node is what the registry says it is, and pulls its link.

Level-triggered: whatever changed or broke, it looks at what is decided and at what its store says, and does
what is missing. It keeps no state of its own that matters, so it can be killed at any time, and two of them
at one node do no harm: the store refuses whichever is stale.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import uuid4, uuid5

from chain.commands import create_chain, grant, hear_join, moves_the_head
from chain.errors import ChainError, NotPrepared, Refused, StaleLink
from chain.event import EMPTY, Epoch
from chain.lease import Terms
from chain.registry import Registry
from chain.store import Identity, NodeState, Role, Store
from chain.tasks import end
from chain.topology import Assignment, Follow, Lead, Rest, Topology, assignment
from replicator.canary import sing
from replicator.keeper import Keeper, Keeping, take_up
from replicator.link import Link, LinkStatus
from replicator.peers import Peers
from replicator.progress import tell_upstream
from replicator.read_ahead import Pace
from replicator.salvage import Salvage

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DaemonStatus:
    """A daemon's own word, with the ages that tell how much it is worth."""

    node: str
    started_at: datetime
    state: NodeState | None
    """The store's word as last heard; None if never."""
    state_at: datetime | None
    topology: Topology | None
    topology_at: datetime | None
    link: LinkStatus | None
    keeping: Keeping
    """What a head's right to take writes rests on."""
    last_error: str
    turned_at: datetime
    """When the daemon last went round its loop."""


@dataclass(slots=True)
class NodeDaemon:
    """The daemon of node `name`. `run` ends by cancellation, or by WrongIdentity and its like."""

    chain: str
    name: str
    store: Store
    peers: Peers
    registry: Registry
    regions: Mapping[str, str]
    """Node to region, in the order in which the chain is created if there is none yet."""
    terms: Terms | None
    """Of the lease; None for a chain without."""
    pace: Pace = field(default_factory=Pace)
    canary_s: float | None = None
    """How long a head stays silent before its canary sings; None if there is none."""
    tick_s: float = 1.0
    now: Callable[[], datetime] = lambda: datetime.now(UTC)

    _topology: Topology | None = None
    _topology_at: datetime | None = None
    _state: NodeState | None = None
    _state_at: datetime | None = None
    _link: Link | None = None
    _pulling: asyncio.Task[None] | None = None
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _salvage: Salvage = field(init=False)
    _keeper: Keeper = field(init=False)
    _last_error: str = ""
    _started_at: datetime = field(init=False)
    _turned_at: datetime = field(init=False)

    def __post_init__(self) -> None:
        self._started_at = self._turned_at = self.now()
        self._salvage = Salvage(self.name, self.store, self.peers)
        self._keeper = Keeper(self.name, self.store, self.peers, self.registry, self.terms)

    def status(self) -> DaemonStatus:
        return DaemonStatus(
            self.name,
            self._started_at,
            self._state,
            self._state_at,
            self._topology,
            self._topology_at,
            self._link.status if self._link else None,
            self._keeper.keeping,
            self._last_error,
            self._turned_at,
        )

    async def run(self) -> None:
        """Runs the node. Raises WrongIdentity, BadConfig, Refused if the store is not, or can't be, ours."""
        await self._prepare()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._watch(), name="watch the registry")
                tasks.create_task(self._conduct(), name="conduct the node")
                tasks.create_task(self._keep_lease(), name="keep the lease")
                tasks.create_task(self._keeper.guard(), name="guard the lease")
                tasks.create_task(self._save_dead_branch(), name="publish dead branches")
                if self.canary_s is not None:
                    tasks.create_task(sing(self.store, self.canary_s), name="canary")
        finally:
            await self._stop_link()
            await self._keeper.close()

    async def _prepare(self) -> None:
        while True:
            try:
                await self.store.prepare(Identity(self.chain, self.name))
                return
            except ChainError as error:
                if not error.retriable:
                    raise
                self._note("the store can't be prepared yet", error)
                await asyncio.sleep(self.tick_s)

    async def _watch(self) -> None:
        """Keeps the topology fresh; while the registry is away, the last one stands, with its age."""
        while True:
            try:
                await self.registry.open()
                await self._see_to_the_chain()
                async for topology in self.registry.watch():
                    self._topology = topology
                    self._topology_at = self.now()
                    self._wake.set()
            except ChainError as error:
                self._note("the registry can't be read", error)
            await asyncio.sleep(self.tick_s)

    async def _see_to_the_chain(self) -> None:
        """Creates the chain if it is new and this node its first head; the others wait for that.

        Raises Refused if the registry has lost the chain: this node was in it.
        """
        state = await self.store.state()
        if state.epoch == 0 and state.tip == EMPTY:
            if self.name == next(iter(self.regions), None):
                create = create_chain(self.chain, self.regions, uuid4(), state.ground)
                await self.registry.decide(create, by=f"daemon of {self.name}")
            return
        try:
            await self.registry.topology()
        except Refused as error:
            raise Refused(
                f"{error.message}, and {self.name} has been in it up to epoch {state.epoch}",
                hint="is it the right registry? If it was lost: docs/operations.md",
            ) from error

    async def _conduct(self) -> None:
        while True:
            self._wake.clear()
            self._turned_at = self.now()
            try:
                await self._turn()
            except NotPrepared:  # the store was wiped or replaced under us
                await self._prepare()
            except ChainError as error:
                self._note("the node is not as decided yet", error)
            try:
                async with asyncio.timeout(self.tick_s):
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def _turn(self) -> None:
        """Brings the store, and the link, to what is asked of this node.

        A daemon that has not heard from the registry yet goes on with what its store was told last.
        """
        state = await self._look()
        topology = self._topology
        if topology is None:
            if state.upstream is not None:
                await self._follow(Follow(state.epoch, state.upstream, state.role), state)
            return
        if self.name not in topology.regions:
            return
        asked = assignment(topology, self.name)
        _check_registry(self.name, state, asked)
        if state.epoch > asked.epoch and (not isinstance(asked, Lead) or moves_the_head(topology.run)):
            return  # fenced for an epoch that is not granted yet: the grant, or the next, will come
        match asked:
            case Lead():
                await self._lead(asked, state, topology)
            case Follow():
                await self._follow(asked, state)
            case Rest():
                await self._rest(asked, state)
        if self._pulling is not None or not isinstance(asked, Follow):
            self._last_error = ""

    async def _lead(self, asked: Lead, state: NodeState, topology: Topology) -> None:
        await self._stop_link()
        await self._keeper.know(n for n in (*topology.order, *topology.joining) if n != self.name)
        if state.loading:  # no such node is granted an epoch, but its store may have been replaced since
            await self.store.end_load()
        if state.epoch < asked.epoch:  # what it takes now must not move it off the ground of its epoch
            await self.store.fence(asked.epoch)
            state = await self._look()
        taken_up = (state.role, state.reign, state.promotion) == (Role.HEAD, asked.epoch, asked.promotion)
        if taken_up and state.reigning and self._keeper.lost_to is None:
            # A right that rests on the promises of fewer must have been renewed before.
            for node in _unheard(topology) if self._keeper.settled else ():
                await self.registry.decide(hear_join(node, asked.epoch), by=f"daemon of {self.name}")
            return
        if taken_up or asked.began or state.epoch > asked.epoch or state.tip != asked.ground.tip:
            await self._ask_again(asked, state, topology)
            return
        tip = await take_up(self.registry, self.store, self.name, asked.epoch, asked.promotion, self.terms)
        await self._look()
        log.info("%s is head in epoch %s from position %s on", self.name, asked.epoch, tip.position)

    async def _ask_again(self, asked: Lead, state: NodeState, topology: Topology) -> None:
        """A head whose store may have gone back asks for a new epoch: what it lost is then found as a fork.

        Its server restarted, crashed, was restored from a backup, or was wiped; its clock stepped back; its
        log is not what it was when it was granted the epoch; or an operation that came to nothing has taken
        its lease, or fenced it. While it has time to write it waits, so that its tip is final. Raises Refused
        if its successor is ahead of it: that is the better head, and an operation moves it; and Busy while an
        operation moves the head. A node that is only joining can't be made the head: what it is ahead becomes
        a dead branch.
        """
        if state.writable:
            return
        await self._check_not_behind(state, topology)
        epoch = Epoch(asked.epoch + 1)
        promotion = uuid5(asked.promotion, f"restart {state.clock}")
        await self.registry.decide(
            grant(epoch, promotion, self.name, state.ground, run=None),
            by=f"daemon of {self.name}",
            why=_why_again(state),
        )
        self._keeper.lost_to = None
        log.warning("%s goes on at %s in epoch %s", self.name, state.tip, epoch)
        self._wake.set()

    async def _check_not_behind(self, state: NodeState, topology: Topology) -> None:
        """Raises Refused if a successor is ahead of this node, or has the log that this one has lost."""
        for successor in (n for n in topology.downstream(self.name) if n in topology.order):
            store = self.peers(successor)
            try:
                tip = await store.tip()
            except ChainError as error:
                if state.tip == EMPTY:  # going on would leave nothing in common with whoever has the log
                    raise Refused(
                        f"{self.name} has lost its whole log, and {successor} can't be asked for its own",
                        hint=f"if {successor} is well, make it the head: chainctl failover",
                    ) from error
                log.info("%s can't be asked whether it is ahead: %s", successor, error)
                continue
            finally:
                await store.close()
            if tip > state.tip:
                raise Refused(
                    f"{self.name} restarted at {state.tip}, behind its successor {successor} at {tip}",
                    hint=f"make {successor} the head: chainctl failover",
                )

    async def _follow(self, asked: Follow, state: NodeState) -> None:
        if (state.role, state.epoch, state.upstream) != (asked.role, asked.epoch, asked.upstream):
            await self._stop_link()
            await self.store.follow_upstream(asked.epoch, asked.upstream, asked.role)
            await self._look()
            log.info("%s follows %s in epoch %s", self.name, asked.upstream, asked.epoch)
        if self._link is not None and self._link.assignment != asked:
            await self._stop_link()
        if self._pulling is None:
            self._start_link(asked)

    async def _rest(self, asked: Rest, state: NodeState) -> None:
        await self._stop_link()
        if state.role is not Role.DETACHED:
            await self.store.detach(asked.epoch)
            await self._look()
            log.info("%s is outside the chain since epoch %s", self.name, asked.epoch)

    def _start_link(self, asked: Follow) -> None:
        source = self.peers(asked.upstream)
        self._link = Link(
            chain=self.chain,
            source_name=asked.upstream,
            target_name=self.name,
            source=source,
            target=self.store,
            assignment=asked,
            pace=self.pace,
            on_change=_log_change,
            now=self.now,
        )
        self._pulling = asyncio.create_task(
            self._pull(self._link, source), name=f"link {asked.upstream} to {self.name}"
        )
        self._pulling.add_done_callback(self._on_link_ended)

    async def _pull(self, link: Link, source: Store) -> None:
        """The scope of one assignment: whatever ends first ends all that was begun for it."""
        telling = asyncio.create_task(tell_upstream(self.name, self.store, source, self.pace.idle_s))
        try:
            await link.run()
        finally:
            await end(telling)
            await source.close()

    def _on_link_ended(self, task: asyncio.Task[None]) -> None:
        """A link never dies silently: a newer decision is looked for at once, anything else is said."""
        if task.cancelled():
            return
        error = task.exception()
        if isinstance(error, ChainError) and not isinstance(error, StaleLink):
            self._note("the link ended", error)
        elif error is not None and not isinstance(error, ChainError):
            log.error("the link of %s crashed", self.name, exc_info=error)
            self._last_error = f"the link crashed: {error!r}"
        if task is self._pulling:
            self._pulling = None
            if isinstance(error, StaleLink):
                self._wake.set()

    async def _stop_link(self) -> None:
        pulling, self._pulling, self._link = self._pulling, None, None
        if pulling is not None:
            await end(pulling)

    async def _save_dead_branch(self) -> None:
        """Brings what this node has given up into the ledger of whoever is head."""
        while True:
            if self._topology is not None:
                try:
                    await self._salvage.publish(self._topology.head, self._topology.epoch)
                except ChainError as error:
                    self._note("the dead branch is not in the ledger yet", error)
            await asyncio.sleep(self.tick_s)

    async def _keep_lease(self) -> None:
        """Renews the lease in time. A renewal that fails is said, and the lease ends by itself."""
        failed = ""
        while True:
            try:
                await self._keeper.renew()
                failed = ""
                if (
                    self._topology is not None
                    and self._topology.head == self.name
                    and _unheard(self._topology)
                ):
                    self._wake.set()
            except ChainError as error:
                if error.message != failed:
                    log.warning("%s: the lease is not renewed: %s", self.name, error.message)
                failed = error.message
                self._wake.set()
            await asyncio.sleep(self.terms.renew_s if self.terms else self.tick_s)

    async def _look(self) -> NodeState:
        self._state = await self.store.state()
        self._state_at = self.now()
        return self._state

    def _note(self, what: str, error: ChainError) -> None:
        text = f"{what}: {error.message}"
        if text != self._last_error:
            log.warning("%s: %s", self.name, text)
        self._last_error = text


def _check_registry(name: str, state: NodeState, asked: Assignment) -> None:
    """Raises Refused if a store knows what only a registry that has lost decisions can't know.

    An epoch is known to a store one before it is granted, by a fence, and no more.
    """
    knows = state.epoch > asked.epoch + 1
    is_new = isinstance(asked, Lead) and asked.epoch == 1 and not asked.began
    mine = isinstance(asked, Lead) and (state.reign, state.promotion) == (asked.epoch, asked.promotion)
    if knows or (is_new and not mine and state.tip != EMPTY):
        raise Refused(
            f"{name} is at {state.tip} and knows epoch {state.epoch}; the registry is in epoch {asked.epoch},"
            " as far as it was read",
            hint="did the registry lose decisions? docs/operations.md, The registry is lost",
        )


def _unheard(topology: Topology) -> tuple[str, ...]:
    return tuple(n for n in topology.joining if n not in topology.heard)


def _why_again(state: NodeState) -> str:
    """Why a head asks for a new epoch, as far as its store can tell."""
    if state.clock_is_back:
        return "its clock went back"
    if state.fenced:
        return "an operation fenced it, and is not under way any more"
    if state.reigning:
        return "its lease was taken"
    return "its server restarted, or its store was replaced"


def _log_change(before: LinkStatus, after: LinkStatus) -> None:
    log.info(
        "link %s to %s: %s, was %s%s",
        after.source,
        after.target,
        after.state.value,
        before.state.value,
        f" ({after.last_error})" if after.last_error and after.state.value != "streaming" else "",
    )
