"""The ports of the registry and of a store as another process sees them: every verb is a call."""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, TypeVar
from uuid import UUID

from chain.errors import Busy, Unavailable
from chain.event import EMPTY, Appended, Epoch, Event, Expected, NewEvent, Position, Revision, Tip
from chain.history import History
from chain.lease import Lease, Leases
from chain.memory import MemoryLeases
from chain.registry import Locks
from chain.store import (
    Batch,
    Checked,
    DeadEvent,
    Digest,
    Glance,
    Ground,
    Identity,
    Knowledge,
    NodeState,
    Page,
    Progress,
    Role,
    Seal,
    Store,
)
from tests.simulation.network import NEAR_S, Disk, Network, Process, Work
from tests.simulation.stores import SimStore

T = TypeVar("T")

SILENT_S: Final = 6.0
"""When the registry's server ends a session of which nothing is heard."""


@dataclass(slots=True)
class Line:
    """The way from one process to another. Near ones share a machine."""

    network: Network
    caller: Process
    callee: Process
    timeout_s: float = 2.0
    near: bool = False

    def ask(self, work: Work[T], *, writes: bool = False, disk: Disk | None = None) -> Awaitable[T]:
        return self.network.call(
            self.caller, self.callee, work, timeout_s=self.timeout_s, writes=writes, near=self.near, disk=disk
        )

    def delay_s(self) -> float:
        return self.network.delay_s(NEAR_S if self.near else self.network.far_s)


class RemoteStore:
    """A store at the other end of a line."""

    def __init__(self, line: Line, store: SimStore) -> None:
        self.line, self.store = line, store
        self.encoding = store.encoding

    async def close(self) -> None:
        """Nothing to close."""

    async def get(self, stream: str, revision: Revision = Revision(0), limit: int = 1000) -> Page:
        return await self.line.ask(lambda: self.store.get(stream, revision, limit))

    async def add(self, stream: str, expected: Expected, events: Sequence[NewEvent]) -> Appended:
        return await self._append(lambda: self.store.commit(stream, expected, events))

    async def append_system(self, stream: str, expected: Expected, events: Sequence[NewEvent]) -> Appended:
        return await self._append(lambda: self.store.commit(stream, expected, events, system=True))

    async def _append(self, work: Work[Appended]) -> Appended:
        """Answered only when what it wrote is durable."""
        return await self.line.ask(work, writes=True, disk=self.store)

    async def log(self, after: Position = Position(0), limit: int = 1000) -> Page:
        return await self.line.ask(lambda: self.store.log(after, limit))

    async def follow(self, after: Position = Position(0)) -> AsyncIterator[Page]:
        while True:
            page = await self.log(after)
            if page.events:
                yield page
                after = Position(page.next)
            else:
                await self.wait(after, 1.0)

    async def tip(self) -> Tip:
        return await self.line.ask(self.store.tip)

    async def at(self, position: Position) -> Event | None:
        return await self.line.ask(lambda: self.store.at(position))

    async def history(self) -> History:
        return await self.line.ask(self.store.history)

    async def read(self, after: Position, limit: int, max_bytes: int) -> Batch:
        return await self.line.ask(lambda: self.store.read(after, limit, max_bytes))

    async def apply(
        self, batch: Batch, epoch: Epoch, upstream: str, *, behind: Future[Tip] | None = None
    ) -> Tip:
        if behind is not None:
            self.line.network.met["a batch behind another"] += 1
            await asyncio.wait({behind})
        return await self.line.ask(lambda: self.store.apply(batch, epoch, upstream), writes=True)

    async def begin_load(self, epoch: Epoch, upstream: str) -> None:
        await self.line.ask(lambda: self.store.begin_load(epoch, upstream), writes=True)

    async def end_load(self) -> None:
        await self.line.ask(self.store.end_load, writes=True)

    async def give_up(self, fork: Position, tip: Tip, epoch: Epoch, upstream: str) -> int:
        return await self.line.ask(lambda: self.store.give_up(fork, tip, epoch, upstream), writes=True)

    async def dead_branch(self, after: Tip = EMPTY, limit: int = 100) -> tuple[DeadEvent, ...]:
        return await self.line.ask(lambda: self.store.dead_branch(after, limit))

    async def holds(self, ids: Sequence[UUID]) -> frozenset[UUID]:
        return await self.line.ask(lambda: self.store.holds(ids))

    async def release(self, dead: Sequence[DeadEvent]) -> None:
        await self.line.ask(lambda: self.store.release(dead), writes=True)

    async def wait(self, after: Position, timeout_s: float) -> None:
        """A hint comes after a while, or is lost."""
        line, network = self.line, self.line.network
        if line.caller.frozen:
            await line.caller.wait_awake()
        loop = asyncio.get_running_loop()
        if self.store.length > after:
            await asyncio.sleep(line.delay_s())
            return
        hint = loop.create_future()

        def told() -> None:
            if not hint.done() and (line.near or not network.meets_cut(line.callee, line.caller)):
                hint.set_result(None)

        def grown() -> None:
            loop.call_later(line.delay_s(), told)

        def give_up() -> None:
            if not hint.done():
                hint.set_result(None)

        self.store.waiting.append(grown)
        timer = loop.call_later(timeout_s, give_up)
        try:
            await hint
        finally:
            timer.cancel()
            if grown in self.store.waiting:
                self.store.waiting.remove(grown)

    async def tell(self, progress: Mapping[str, Tip]) -> None:
        await self.line.ask(lambda: self.store.tell(progress), writes=True)

    async def progress(self) -> Mapping[str, Progress]:
        return await self.line.ask(self.store.progress)

    async def prepare(self, identity: Identity) -> None:
        await self.line.ask(lambda: self.store.prepare(identity), writes=True)

    async def state(self) -> NodeState:
        return await self.line.ask(self.store.state)

    async def fence(self, epoch: Epoch) -> Tip:
        return await self.line.ask(lambda: self.store.fence(epoch), writes=True)

    async def promote(
        self,
        epoch: Epoch,
        promotion: UUID,
        lease_until: datetime | None = None,
        *,
        ground: Ground | None = None,
    ) -> Tip:
        return await self.line.ask(
            lambda: self.store.promote(epoch, promotion, lease_until, ground=ground), writes=True
        )

    async def renew(self, epoch: Epoch, read_at: datetime, duration: timedelta | None) -> None:
        if self.line.near and self.store.stuns:
            self.store.stuns = False
            self.line.caller.freeze()
        await self.line.ask(lambda: self.store.renew(epoch, read_at, duration), writes=True)

    async def lapse(self, epoch: Epoch, until: datetime) -> bool:
        return await self.line.ask(lambda: self.store.lapse(epoch, until), writes=True)

    async def promise(self, epoch: Epoch, duration: timedelta) -> None:
        await self.line.ask(lambda: self.store.promise(epoch, duration), writes=True)

    async def follow_upstream(self, epoch: Epoch, upstream: str, role: Role) -> None:
        await self.line.ask(lambda: self.store.follow_upstream(epoch, upstream, role), writes=True)

    async def detach(self, epoch: Epoch) -> None:
        await self.line.ask(lambda: self.store.detach(epoch), writes=True)

    async def strays(self, limit: int) -> tuple[Position, ...]:
        return await self.line.ask(lambda: self.store.strays(limit))

    async def digest(self, first: Position, last: Position) -> Digest:
        return await self.line.ask(lambda: self.store.digest(first, last))

    async def seal(self, number: int, last: Position, agreed: bytes | None = None) -> Checked:
        return await self.line.ask(lambda: self.store.seal(number, last, agreed))

    async def seals(self) -> tuple[Seal, ...]:
        return await self.line.ask(lambda: self.store.seals())

    async def verified(self) -> Knowledge:
        return await self.line.ask(lambda: self.store.verified())

    async def glance(self, after: Position) -> Glance:
        return await self.line.ask(lambda: self.store.glance(after))


class RemoteLeases:
    """The leases of a registry at the other end of a line."""

    def __init__(self, line: Line, leases: MemoryLeases) -> None:
        self.line, self.leases = line, leases

    async def read(self, chain: str) -> Lease | None:
        return await self.line.ask(lambda: self.leases.read(chain))

    async def renew(self, chain: str, epoch: Epoch, holder: str, duration_s: float | None) -> Lease:
        return await self.line.ask(lambda: self.leases.renew(chain, epoch, holder, duration_s), writes=True)

    async def take(
        self, chain: str, epoch: Epoch, holder: str, duration_s: float | None, seen: Lease | None
    ) -> Lease:
        return await self.line.ask(
            lambda: self.leases.take(chain, epoch, holder, duration_s, seen), writes=True
        )


@dataclass(slots=True)
class Sessions:
    """The locks of a registry: each by a session, which the server may end unasked."""

    held: dict[str, object] = field(default_factory=dict)

    def end_all(self) -> None:
        self.held.clear()


class RemoteLocks:
    """The locks of a registry at the other end of a line. A lock ends with its holder's block."""

    def __init__(self, line: Line, sessions: Sessions) -> None:
        self.line, self.sessions = line, sessions

    @asynccontextmanager
    async def hold(self, name: str) -> AsyncIterator[None]:
        session, ended = object(), False

        async def take() -> None:
            if ended:  # a request that comes late, or a second time
                raise Unavailable("the session has ended")
            if self.sessions.held.setdefault(name, session) is not session:
                raise Busy(f"another operator or controller is at work on {name}")

        def release() -> None:
            if self.sessions.held.get(name) is session:
                del self.sessions.held[name]

        try:
            await self.line.ask(take)
        except BaseException:
            # The server may hold it for a holder that is not there; it finds that out after a while.
            ended = True
            network = self.line.network
            asyncio.get_running_loop().call_later(network.rng.uniform(0.0, SILENT_S), release)
            raise
        try:
            yield
        finally:
            ended = True
            release()


if TYPE_CHECKING:

    def _ports(store: RemoteStore, leases: RemoteLeases, locks: RemoteLocks) -> tuple[Store, Leases, Locks]:
        return store, leases, locks
