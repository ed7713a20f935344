"""How far an event has come: the levels of acknowledgement, the waiting for them, and what a log holds.

A head's store keeps what the nodes downstream have told of their logs, each only what it has durable. One
task a head looks at that for all calls that wait, and only while one waits.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final, Generic, TypeVar

from chain.errors import BadInput, ChainError, Diverged, NotHead, Refused, TimedOut, Unavailable
from chain.event import EMPTY, Appended, Epoch, Event, Position, Tip
from chain.store import NodeState, Store
from chain.tasks import end
from chain.topology import Topology

log = logging.getLogger(__name__)

LOOK_S: Final = 0.005
ANSWER_S: Final = 2.0
HEARSAY_S: Final = 0.25
FRESH_S: Final = 1.0
UNREADABLE_S: Final = 5.0

T = TypeVar("T")


class Ack(Enum):
    """Where an append is durable when `add` returns. Each level holds those before it."""

    HEAD = "head"
    """On the head: the loss of the head may take it out of the log, into the ledger."""
    REGION = "region"
    """On a node in another region, too: the loss of the head's whole region leaves a copy."""
    CHAIN = "chain"
    """On every member of the chain: no failover takes it out of the log."""


class NotYetReplicated(TimedOut):
    """The head that answered has the events; the nodes behind it have not yet come as far as was asked."""

    def __init__(self, message: str, *, appended: Appended, reached: Ack, asked: Ack, hint: str = "") -> None:
        super().__init__(
            message,
            hint=hint
            or "the events are safe on that head; the same call with the same ids may be given again",
        )
        self.appended = appended
        self.reached = reached
        self.asked = asked


@dataclass(frozen=True, slots=True)
class Head:
    """A node in one reign: as long as it is writable in that reign, its log has lost nothing since."""

    node: str
    reign: Epoch

    def check(self, state: NodeState) -> None:
        """Raises NotHead if it is that no more, by its own word."""
        if not state.writable or state.reign != self.reign:
            raise NotHead(f"the reign {self.reign} of {self.node} is over")


@dataclass(frozen=True, slots=True)
class Wanted:
    """That the event of `token` is on `nodes`: on every one of them, or on any."""

    token: Tip
    nodes: frozenset[str]
    every: bool

    def met(self, tips: Mapping[str, Tip], reign: Epoch) -> bool:
        """Whether it is so, by what the nodes told the head of `reign`, whose log has the event.

        A position counts only in the event's own epoch or the head's: in both the node's log and the head's
        are one up to the event (L4). A node on another branch can be at a larger position without it. What
        was told to a head of an older epoch than the event's says nothing of it.
        """
        if reign < self.token.epoch:
            return False
        alike = (self.token.epoch, reign)
        has = (
            (tip := tips.get(node)) is not None and tip.position >= self.token.position and tip.epoch in alike
            for node in self.nodes
        )
        return all(has) if self.every else any(has)


class Acks:
    """The waiting of a client's appends, on a chain of the nodes `stores`, each in its region."""

    def __init__(
        self, regions: Mapping[str, str], stores: Mapping[str, Store], decided: Decided | None
    ) -> None:
        self._regions = regions
        self._stores = stores
        self._decided = decided
        self._watches: dict[Head, Watch] = {}
        self._closed = False

    async def prepare(self, ack: Ack) -> None:
        """Before anything is written. Raises Refused, BadInput if there can be no such `ack`, Unavailable."""
        if ack is Ack.REGION and len(set(self._regions.values())) < 2:
            raise Refused("the chain has no node in another region", hint="add one, or ask for less")
        if ack is Ack.CHAIN:
            await self._known().current()

    async def wait(self, head: Head, token: Tip, ack: Ack) -> None:
        """Returns when the event is where `ack` says. Raises NotHead, Unavailable; Refused when closed."""
        if ack is Ack.REGION:
            await self._watch(head).wait(self._elsewhere(head, token))
        elif ack is Ack.CHAIN:
            decided = self._known()
            topology = await decided.as_of_now()  # who became a member before it was written is asked, too
            while not await self._on_all(head, token, topology, decided.fresh_s):
                topology = await decided.current()

    def reached(self, head: Head, token: Tip) -> Ack:
        """How far the event is for certain, as of the last look."""
        watch = self._watches.get(head)
        elsewhere = watch is not None and self._elsewhere(head, token).met(watch.tips, head.reign)
        return Ack.REGION if elsewhere else Ack.HEAD

    async def close(self) -> None:
        """Ends the tasks; whoever waits gets Refused."""
        self._closed = True
        for watch in self._watches.values():
            await watch.close()

    async def _on_all(self, head: Head, token: Tip, topology: Topology, fresh_s: float) -> bool:
        """True when it is on every member, False when it is time to ask again who they are."""
        if topology.head != head.node:
            raise NotHead(f"decided is {topology.head} as the head, not {head.node}", head=topology.head)
        members = frozenset(topology.order) - {head.node}
        try:
            async with asyncio.timeout(fresh_s):
                await self._watch(head).wait(Wanted(token, members, every=True))
        except TimeoutError:
            return False
        return True

    def _elsewhere(self, head: Head, token: Tip) -> Wanted:
        home = self._regions[head.node]
        return Wanted(token, frozenset(n for n in self._regions if self._regions[n] != home), every=False)

    def _watch(self, head: Head) -> Watch:
        if self._closed:
            raise closed()
        if head not in self._watches:
            self._watches = {known: watch for known, watch in self._watches.items() if not watch.idle}
            self._watches[head] = Watch(head, self._stores[head.node])
        return self._watches[head]

    def _known(self) -> Decided:
        if self._decided is None:
            raise BadInput(
                "this client does not know the topology, so not whom the chain has",
                hint="make it by chain.connect.open_client",
            )
        return self._decided


class Watch:
    """How far the nodes behind one head are, looked at for all calls that wait."""

    def __init__(self, head: Head, store: Store) -> None:
        self.head = head
        self.tips: Mapping[str, Tip] = {}
        """As of the last look."""
        self._store = store
        self._waiting: dict[asyncio.Future[None], Wanted] = {}
        self._new: list[asyncio.Future[None]] = []
        self._task: asyncio.Task[None] | None = None

    @property
    def idle(self) -> bool:
        return self._task is None

    async def wait(self, wanted: Wanted) -> None:
        """Returns when it is so. Raises NotHead when the reign is over, Unavailable, Refused when closed."""
        answer = asyncio.get_running_loop().create_future()
        self._waiting[answer] = wanted
        self._new.append(answer)
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name=f"watch the progress at {self.head.node}")
        try:
            await answer
        finally:
            self._waiting.pop(answer, None)
            if answer.done() and not answer.cancelled():
                answer.exception()  # a caller that was cancelled meanwhile has nobody to hear it

    async def close(self) -> None:
        """Ends the task; whoever waits gets Refused."""
        if self._task is not None:
            await end(self._task)
        self._fail(closed())

    async def _run(self) -> None:
        try:
            while self._waiting:
                self._answer(await self._look())
                await asyncio.sleep(LOOK_S)
        except Exception as error:
            if not isinstance(error, ChainError):
                log.exception("watching the progress at %s failed", self.head.node)
            self._fail(error)
        finally:
            self._task = None

    async def _look(self) -> Mapping[str, Tip]:
        try:
            async with asyncio.timeout(ANSWER_S):
                told = await self._store.progress()
                state = await self._store.state()
        except TimeoutError:
            raise Unavailable(f"{self.head.node} has not answered within {ANSWER_S:g} s") from None
        # The state comes after the progress: a head in its reign now was so when the progress was read.
        self.head.check(state)
        return {node: progress.tip for node, progress in told.items()}

    def _answer(self, tips: Mapping[str, Tip]) -> None:
        """Looks through all who wait if something has changed, else only through those who came since."""
        asking = self._new if tips == self.tips else list(self._waiting)
        self._new, self.tips = [], tips
        for answer in asking:
            wanted = self._waiting.get(answer)
            if wanted is not None and not answer.done() and wanted.met(tips, self.head.reign):
                del self._waiting[answer]
                answer.set_result(None)

    def _fail(self, error: Exception) -> None:
        waiting, self._waiting, self._new = self._waiting, {}, []
        for answer in waiting:
            if not answer.done():
                answer.set_exception(error)


class Shared(Generic[T]):
    """One run of `work` for all who ask while it runs; its answer or its error is theirs."""

    def __init__(self, work: Callable[[], Awaitable[T]]) -> None:
        self._work = work
        self._one = asyncio.Lock()
        self._ended = 0
        self._outcome: asyncio.Future[T] | None = None

    async def __call__(self) -> T:
        ended_before = self._ended
        async with self._one:
            if self._outcome is None or self._ended == ended_before:
                # A caller that is cancelled here leaves no outcome: the next in line runs it anew.
                outcome: asyncio.Future[T] = asyncio.get_running_loop().create_future()
                try:
                    outcome.set_result(await self._work())
                except ChainError as error:
                    outcome.set_exception(error)
                    outcome.exception()  # is heard below; a future must not complain if it is not heard twice
                self._outcome = outcome
                self._ended += 1
            return self._outcome.result()


class Decided:
    """The topology as decided, read from the registry at most once a second for all callers."""

    def __init__(self, read: Callable[[], Awaitable[Topology]]) -> None:
        self._read = read
        self._topology: Topology | None = None
        self._read_at = 0.0
        self._begun_at = -1.0
        self._renew = Shared(self._read_patiently)

    @property
    def fresh_s(self) -> float:
        """For how long the last reading is still good."""
        return self._read_at + FRESH_S - asyncio.get_running_loop().time()

    async def current(self) -> Topology:
        """Not older than a second. Raises Unavailable if it can't be read for 5 s; Refused."""
        if self._topology is None or self.fresh_s <= 0:
            return await self._renew()
        return self._topology

    async def as_of_now(self) -> Topology:
        """Read after the call. Raises as `current`."""
        called_at = asyncio.get_running_loop().time()
        while self._topology is None or self._begun_at < called_at:
            await self._renew()
        return self._topology

    async def hearsay(self) -> str:
        """For messages: what is decided, as far as can be said at once."""
        try:
            async with asyncio.timeout(HEARSAY_S):
                topology = await self._read()
        except (ChainError, TimeoutError) as error:
            return f"what is decided can't be read: {error or 'no answer'}"
        return f"decided is {topology.head} in epoch {topology.epoch}"

    async def _read_patiently(self) -> Topology:
        seen = ""
        try:
            async with asyncio.timeout(UNREADABLE_S):
                while True:
                    try:
                        begun_at = asyncio.get_running_loop().time()
                        self._topology = await self._read()
                        self._begun_at = begun_at
                        self._read_at = asyncio.get_running_loop().time()
                        return self._topology
                    except ChainError as error:
                        if not error.retriable:
                            raise
                        seen = error.message
                    await asyncio.sleep(LOOK_S * 10)
        except TimeoutError:
            raise Unavailable(
                f"the topology could not be read for {UNREADABLE_S:g} s: {seen or 'no answer'}",
                hint="the acknowledgement of a whole chain needs the registry; see: chainctl status",
            ) from None


async def holds(store: Store, place: Tip) -> bool:
    """Whether the node's log has `place`; False may change. Raises Diverged if a newer reign left it out.

    Epochs never fall along a log. So a tip of an older epoch can't have the place, whatever its position:
    that node is late, or on a dead branch itself. Of the same epoch, it has all positions up to its own.
    """
    tip = await store.tip()
    if place == EMPTY or tip.epoch == place.epoch:
        return tip.position >= place.position
    if tip.epoch < place.epoch:
        return False
    event = await store.at(place.position)
    if event is None and tip.position >= place.position:  # cut back between the two looks
        return False
    if event is None or event.epoch != place.epoch:
        raise Diverged(
            f"{place} is on a dead branch",
            hint="the write was on a head that was lost: chainctl ledger list; what is read at the tail is"
            " on every node, and no failover takes it away",
        )
    return True


async def joins(store: Store, place: Tip, first: Event) -> bool:
    """Whether `first`, the event behind `place` on this log, has `place` before it. Raises Diverged."""
    if first.epoch <= place.epoch:
        return first.epoch == place.epoch
    # A new reign began here. Behind which event, says the same snapshot; `first` is not in it if that event
    # is as large as a page.
    before, *behind = (await store.log(Position(place.position - 1), 2)).events or (None,)
    if before is None or before.epoch != place.epoch:
        await holds(store, place)
        return False
    return not behind or behind[0].epoch == first.epoch


def closed() -> Refused:
    return Refused("the client is closed")
