"""The link: copies the log of a source to its target, and is pulled by the target's daemon.

    probing ──▶ (loading) ──▶ streaming
    (any state) ──▶ paused     while the peer can't be reached; then probing
    (any state) ──▶ fenced     the assignment is no longer true: the link ends
    probing ──▶ diverged       and, when the dead branch is given up, on

There is no checkpoint but the target's own tip: batch and tip commit in one transaction, so the link can be
cut anywhere, run twice, or start again, and the target's log stays a prefix of the source's.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import Enum
from math import inf
from typing import Protocol

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception

from chain.errors import ChainError, Corrupt, Diverged, StaleLink, WrongIdentity
from chain.event import EMPTY, Position, Tip
from chain.history import History, fork
from chain.store import Batch, NodeState, Replica
from chain.tasks import end
from chain.topology import Follow
from replicator.applying import Applying
from replicator.read_ahead import Pace, ReadAhead


class LinkState(Enum):
    """What is guaranteed of the target's log while the link is in a state."""

    PROBING = "probing"
    """Nothing yet: the two logs are being compared."""
    LOADING = "loading"
    """As streaming; but what only lookups need is left out, and the target can't be promoted."""
    STREAMING = "streaming"
    """The target's log is a prefix of the source's, and grows as the source's does."""
    DIVERGED = "diverged"
    """The target holds a dead branch. It is being kept and given up; nothing else is applied."""
    PAUSED = "paused"
    """The target's log stays as it is: a peer can't be reached. The link tries again by itself."""
    FENCED = "fenced"
    """The target's log stays as it is: a newer decision holds. The daemon starts another link, if any."""


class Source(Replica, Protocol):
    async def state(self) -> NodeState: ...


Target = Source


@dataclass(frozen=True, slots=True)
class LinkStatus:
    """A link's own word."""

    source: str
    target: str
    state: LinkState
    since: datetime
    target_tip: Tip = EMPTY
    source_tip: Tip = EMPTY
    """As last seen; the difference is the lag in events as far as this link knows."""
    events: int = 0
    """Copied since the link began."""
    given_up: int = 0
    """Events of dead branches that it gave up."""
    last_error: str = ""
    cut_off_since: datetime | None = None
    """Since when it has not been streaming; None while it is."""

    @property
    def lag_events(self) -> int:
        return max(0, self.source_tip.position - self.target_tip.position)


@dataclass(slots=True)
class Link:
    """One link, for one assignment of its target. `run` ends only by StaleLink, or by cancellation."""

    chain: str
    source_name: str
    target_name: str
    source: Source
    target: Target
    assignment: Follow
    pace: Pace = field(default_factory=Pace)
    on_change: Callable[[LinkStatus, LinkStatus], None] = lambda before, after: None
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    status: LinkStatus = field(init=False)
    _failures: int = 0
    _way_s: float = inf
    """The least that a small question to the source took, and its answer."""

    def __post_init__(self) -> None:
        now = self.now()
        self.status = LinkStatus(
            self.source_name, self.target_name, LinkState.PROBING, now, cut_off_since=now
        )

    async def run(self) -> None:
        """Copies for ever, through every loss of a peer.

        Raises StaleLink when the node has a newer assignment, and what no retry can mend: WrongIdentity,
        Corrupt, Diverged.
        """
        try:
            async for attempt in self._retrying():
                with attempt:
                    await self._probe_or_end_load()
                    await self._stream()
        except StaleLink as error:
            self._enter(LinkState.FENCED, error.message)
            raise
        except ChainError as error:
            self._enter(LinkState.PAUSED, error.message)
            raise

    def _retrying(self) -> AsyncRetrying:
        """Retriable errors for ever, with jitter; StaleLink is for the daemon, not for another try here."""
        return AsyncRetrying(
            retry=retry_if_exception(_passes),
            wait=lambda _: self._wait_s(),
            before_sleep=self._pause,
            reraise=True,
        )

    def _wait_s(self) -> float:
        """Full jitter, from a tenth of a second up; from the start again after every success."""
        self._failures += 1
        return random.uniform(0, min(self.pace.backoff_s, 0.1 * 2 ** min(self._failures, 10)))

    def _pause(self, attempt: RetryCallState) -> None:
        error = attempt.outcome.exception() if attempt.outcome else None
        self._enter(LinkState.PAUSED, error.message if isinstance(error, ChainError) else str(error))

    async def _probe_or_end_load(self) -> None:
        """Probes. A target that is being loaded can't be head: the load is ended if the source stays away."""
        try:
            await self._probe()
        except ChainError as error:
            since = self.status.cut_off_since or self.now()
            if _passes(error) and (self.now() - since).total_seconds() > self.pace.load_cut_off_s:
                await self.target.end_load()
            raise

    async def _probe(self) -> None:
        """Finds out that the source is the right node and that the target's log is a prefix of its log.

        A dead branch is given up on the way. Raises WrongIdentity, Diverged, StaleLink, Unavailable.
        """
        self._enter(LinkState.PROBING)
        # All at once: to a far source every question is a way to and fro. Of a wrong node only that is told.
        wrong, ours, theirs = await asyncio.gather(
            self._check_source(), self.target.history(), self.source.history(), return_exceptions=True
        )
        if isinstance(wrong, BaseException):
            raise wrong
        if isinstance(ours, BaseException):
            raise ours
        if isinstance(theirs, BaseException):
            raise theirs
        common = fork(theirs, ours)
        if ours.tip.position > common == theirs.tip.position:
            raise _Behind(f"{self.source_name} at {theirs.tip} is behind {self.target_name} at {ours.tip}")
        if ours.tip.position > common:
            self._enter(LinkState.DIVERGED, f"forked behind position {common}")
            strangers = theirs.reigns and ours.reigns and theirs.reigns[0] != ours.reigns[0]
            if strangers and not _holds_nothing(ours):
                raise Diverged(
                    f"{self.target_name} and {self.source_name} have no event in common",
                    hint=f"they were never one chain: wipe {self.target_name}, then chainctl bootstrap it",
                )
            await self._check_source_is_ahead(theirs.tip)
            count = await self.target.give_up(
                common, ours.tip, self.assignment.epoch, self.assignment.upstream
            )
            self.status = replace(self.status, given_up=self.status.given_up + count)
            ours = await self.target.history()
        self.status = replace(self.status, target_tip=ours.tip, source_tip=theirs.tip)
        if ours.tip == EMPTY and theirs.tip.position >= self.pace.load_events:
            await self.target.begin_load(self.assignment.epoch, self.assignment.upstream)

    async def _check_source(self) -> None:
        state = await self.source.state()
        identity = state.identity
        if identity is None or (identity.chain, identity.node) != (self.chain, self.source_name):
            raise WrongIdentity(
                f"where {self.chain}/{self.source_name} should be, stands {identity or 'a nameless store'}",
                hint="check the dsn in chain.yaml",
            )
        if self.source.encoding != self.target.encoding:
            raise WrongIdentity(
                f"{self.source_name} sends {self.source.encoding}, {self.target_name} reads"
                f" {self.target.encoding}",
                hint="upgrade the older of the two",
            )

    async def _check_source_is_ahead(self, tip: Tip) -> None:
        """Only a log of the newest epoch may overrule another: the source must have come to it first."""
        if tip.epoch < self.assignment.epoch:
            raise _Behind(
                f"{self.source_name} is still in epoch {tip.epoch}, the chain in {self.assignment.epoch}",
                hint="it catches up with its own upstream first; the link waits for it",
            )

    async def _stream(self) -> None:
        """Copies batch by batch: one is applied beside the one before it, and those that follow are read."""
        known, ours = await asyncio.gather(self._source_tip(), self.target.state())
        after = self.status.target_tip.position
        ahead = ReadAhead(self._read, self.pace, after, known.position, lambda: self._way_s)
        applying = Applying(self._apply)
        looking: asyncio.Task[Tip] | None = None
        try:
            self._enter(LinkState.LOADING if ours.loading else LinkState.STREAMING)
            while True:
                batch = await applying.beside(ahead.next())
                if looking is not None and looking.done():
                    ahead.source_tip = max(ahead.source_tip, looking.result().position)
                    looking = None
                if looking is None and not batch.at_tip and batch.count and ahead.source_tip == batch.last:
                    looking = asyncio.create_task(self._source_tip())  # there is more: how much?
                if batch.count:
                    await applying.begin(batch)
                if batch.at_tip:
                    await applying.wait()
                if self.status.state is LinkState.LOADING and batch.at_tip:
                    await self.target.end_load()
                    self._enter(LinkState.STREAMING)
        except ChainError:
            await applying.wait()  # the source may be lost, and this the last that came from it
            raise
        finally:
            await applying.close()
            await ahead.close()
            if looking is not None:
                await end(looking)

    async def _read(self, after: Position, limit: int) -> Batch:
        """The next batch that holds something, or an empty one after `idle_s`."""
        batch = await self.source.read(after, limit, self.pace.batch_bytes)
        if batch.count == 0:
            await self.source.wait(after, self.pace.idle_s)
            batch = await self.source.read(after, limit, self.pace.batch_bytes)
            if batch.count == 0:
                await self._check_still_true(after)
        return batch

    async def _check_still_true(self, after: Position) -> None:
        """When nothing comes: is the target still ours, and did either of the two go back?"""
        applied = self.status.target_tip
        state = await self.target.state()
        if state.epoch != self.assignment.epoch or state.upstream != self.assignment.upstream:
            raise StaleLink(f"{self.target_name} follows {state.upstream} in epoch {state.epoch} now")
        if state.tip.position < applied.position:
            raise _Behind(
                f"{self.target_name} went back to {state.tip}; the link had brought it to {applied}"
            )
        self._failures = 0
        tip = await self._source_tip()
        if tip.position < after:
            raise _Behind(f"{self.source_name} went back to {tip}, behind {self.target_name} at {after}")

    async def _source_tip(self) -> Tip:
        clock = asyncio.get_running_loop().time
        start = clock()
        tip = (await self.source.state()).tip
        self._way_s = min(self._way_s, clock() - start)
        self.status = replace(self.status, source_tip=tip)
        return tip

    async def _apply(self, batch: Batch, behind: asyncio.Task[Tip] | None) -> Tip:
        tip = await self.target.apply(batch, self.assignment.epoch, self.assignment.upstream, behind=behind)
        if tip.position != batch.last:
            raise Corrupt(f"{self.target_name} is at {tip} after a batch up to {batch.last}")
        self._failures = 0
        source_tip = max(self.status.source_tip, tip)
        self.status = replace(
            self.status, target_tip=tip, source_tip=source_tip, events=self.status.events + batch.count
        )
        return tip

    def _enter(self, state: LinkState, error: str = "") -> None:
        before = self.status
        since = before.since if before.state is state else self.now()
        cut_off = (
            None if state in (LinkState.LOADING, LinkState.STREAMING) else before.cut_off_since or self.now()
        )
        self.status = replace(
            before,
            state=state,
            since=since,
            last_error=error or before.last_error,
            cut_off_since=cut_off,
        )
        if before.state is not state:
            self.on_change(before, self.status)


def _passes(error: BaseException) -> bool:
    """Is it worth another try of this link?"""
    return isinstance(error, ChainError) and error.retriable and not isinstance(error, StaleLink)


def _holds_nothing(history: History) -> bool:
    """Only promotions: a head that was lost before it could take a write. It may always be overruled."""
    return history.tip.position == len(history.reigns)


class _Behind(ChainError):
    """The source is not where a link can use it yet; it will be, or a new assignment will come."""

    retriable = True
