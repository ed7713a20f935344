"""The workload of a drill: writers, readers and followers that go through the client as an application does,
and note down every call and every answer.

It never asks more of the chain than its pace, holds a bounded history, and ends within a bound even if the
chain is down for good. It judges nothing: that is the checker's part.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from random import Random

from chain.acks import Ack
from chain.client import Client
from chain.errors import TimedOut, Unavailable
from chain.event import Expect, new_id
from chain.tasks import end
from chain.topology import Topology
from failover.drills.history import History
from failover.drills.recorder import Interval, Recorder
from failover.drills.workers import DECIDED_S, GRACE_S, SLICE_S, Follower, Reader, Stage, Writer


@dataclass(frozen=True, slots=True)
class Load:
    """How much of what. Of its writes every third goes to a stream that the writers share."""

    writers: int = 6
    readers: int = 2
    followers: int = 1
    """Of the tail; one more follows the nearest node."""
    writes_per_s: float = 200.0
    """All writers together, at most."""
    reads_per_s: float = 40.0
    max_batch: int = 3
    shared_streams: int = 3
    data_bytes: int = 120
    acks: tuple[Ack, ...] = (Ack.HEAD, Ack.HEAD, Ack.REGION, Ack.CHAIN)
    """Drawn from, evenly."""
    retries: int = 2
    """How often an append of unknown outcome is sent again, with the same ids."""
    call_s: float = 10.0
    """The deadline of the client's calls."""
    max_calls: int = 200_000
    """Recorded calls and pages; then it goes to rest."""

    def __str__(self) -> str:
        levels = ", ".join(dict.fromkeys(ack.value for ack in self.acks))
        return (
            f"{self.writers} writers at {self.writes_per_s:g} appends/s together (ack {levels}),"
            f" {self.readers} readers at {self.reads_per_s:g} reads/s, {self.followers} followers of the tail"
            " and one of the nearest node"
        )


class Workload:
    """A workload on the chain that `client` is a client of, which is not closed by it.

    The client's deadline should be the load's `call_s`. `topology` tells what is decided, `nodes` are those
    that readers read at. With the same seed and the same answers it makes the same calls. `start`,
    `wait_running`, `stop`; a workload is run once.
    """

    def __init__(
        self,
        client: Client,
        topology: Callable[[], Awaitable[Topology]],
        nodes: Sequence[str],
        *,
        load: Load | None = None,
        seed: int = 0,
    ) -> None:
        self.load = load or Load()
        self._seed = seed
        prefix = f"drill-{seed}-{new_id().hex[-12:]}/"
        self._recorder = Recorder(self.load.max_calls)
        self._stage = Stage(client, topology, tuple(nodes), self._recorder, prefix, self.load.call_s)
        self._resting = asyncio.Event()
        self._callers: asyncio.Task[None] | None = None
        self._followers: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Appends the first event, acknowledged by the whole chain, and starts everybody. Idempotent.

        Raises Unavailable if the chain does not take that event: then nothing was started.
        """
        if self._callers is not None:
            return
        first = self._writer("start")
        write = await first.add(first.own, Expect.ANY, first.events(1), Ack.CHAIN)
        if write.appended is None or not write.acknowledged:
            raise Unavailable(
                f"the workload's first event was not taken: {write.error}",
                hint="a drill begins on a chain that is whole: chainctl status",
            )
        self._stage.start = write.appended.token
        self._callers = asyncio.create_task(self._call(), name="writers and readers of a drill")
        self._followers = asyncio.create_task(self._follow(), name="followers of a drill")

    async def wait_running(self, wait_s: float = 30.0) -> None:
        """Returns when a write has been acknowledged, and a follower given an event, since the call.

        Raises TimedOut.
        """
        try:
            async with asyncio.timeout(wait_s):
                await self._recorder.wait_running()
        except TimeoutError:
            raise TimedOut(
                f"no write was acknowledged and followed within {wait_s:g} s", hint="see: chainctl status"
            ) from None

    async def stop(self, settle_s: float = 10.0) -> History:
        """Ends the writers and readers; gives the followers `settle_s` at most to come to the last write, and
        ends them, too. Idempotent; complete when it returns. Raises what a task of its own died of.
        """
        self._stage.ending.set()
        died = await _ended(self._callers, self.load.call_s + 2 * GRACE_S)
        if self.load.followers and self._followers is not None and not self._followers.done():
            try:
                async with asyncio.timeout(settle_s):
                    await self._recorder.wait_followed()
            except TimeoutError:
                pass  # what was not seen at the tail is for the checker to say
        self._resting.set()
        died = died or await _ended(self._followers, SLICE_S + 2 * DECIDED_S + GRACE_S)
        if died is not None:
            raise died
        return self.history()

    def history(self) -> History:
        """What has been recorded up to now."""
        return self._recorder.history(self._stage.prefix, self._stage.start)

    def take(self) -> Interval:
        """What was acknowledged, and what failed, since the last `take`. Raises what a task died of."""
        for task in (self._callers, self._followers):
            if task is not None and task.done() and not task.cancelled() and (died := task.exception()):
                raise died
        return self._recorder.take()

    async def _call(self) -> None:
        load = self.load
        async with asyncio.TaskGroup() as tasks:
            for number in range(load.writers):
                tasks.create_task(self._writer(f"writer-{number}").run())
            for number in range(load.readers):
                name = f"reader-{number}"
                every_s = load.readers / load.reads_per_s
                tasks.create_task(Reader(name, self._stage, self._random(name), every_s).run())

    async def _follow(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for number in range(self.load.followers):
                tasks.create_task(Follower(f"tail-{number}", self._stage, True, self._resting).run())
            tasks.create_task(Follower("nearest", self._stage, False, self._resting).run())

    def _writer(self, name: str) -> Writer:
        load = self.load
        return Writer(
            name,
            self._stage,
            self._random(name),
            own=f"{self._stage.prefix}{name}",
            shared=tuple(f"{self._stage.prefix}shared-{n}" for n in range(load.shared_streams)),
            acks=load.acks,
            every_s=load.writers / load.writes_per_s,
            max_batch=load.max_batch,
            data_bytes=load.data_bytes,
            retries=load.retries,
        )

    def _random(self, name: str) -> Random:
        return Random(f"{self._seed}/{name}")


async def _ended(task: asyncio.Task[None] | None, wait_s: float) -> BaseException | None:
    """Waits for the task, and after that ends it; what it died of, if it did."""
    if task is None:
        return None
    await asyncio.wait({task}, timeout=wait_s)
    if not task.done():
        await end(task)
    return None if task.cancelled() else task.exception()
