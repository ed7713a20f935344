"""The simulated network, and the processes that talk over it.

A call is a request and an answer, each on its way for a while, each lost if it meets a cut. A request that is
on its way arrives, whatever has become of its sender; a frozen process takes it when it wakes.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeVar

from chain.errors import ChainError, OutcomeUnknown, Unavailable

T = TypeVar("T")

NEAR_S: Final = (0.0001, 0.0005)
"""Between processes of one machine."""
FLUSH_S: Final = (0.0005, 0.005)
SLOW_FLUSH_S: Final = (0.02, 0.6)
LATE_S: Final = (0.3, 7.0)
"""How long what is late is on its way; longer than any lease."""


@dataclass(slots=True, eq=False)
class Process:
    """Something that runs somewhere: a store's server, a daemon, a controller, an operator."""

    name: str
    up: bool = True
    frozen: bool = False
    _waiting: list[Callable[[], object]] = field(default_factory=list)

    def freeze(self) -> None:
        self.frozen = True

    def wake(self) -> None:
        if self.frozen:
            self.frozen = False
            waiting, self._waiting = self._waiting, []
            for each in waiting:
                each()

    def kill(self) -> None:
        """What came while it was frozen is refused now."""
        self.up = False
        self.wake()

    def when_awake(self, do: Callable[[], object]) -> None:
        self._waiting.append(do)

    async def wait_awake(self) -> None:
        while self.frozen:
            awake = asyncio.get_running_loop().create_future()
            self.when_awake(lambda awake=awake: awake.done() or awake.set_result(None))  # type: ignore[misc]
            await awake


class Disk(Protocol):
    """What a server writes to."""

    starts: int
    """How often its server was started again."""

    def flush(self) -> None: ...


Work = Callable[[], Coroutine[Any, Any, T]]
"""What a call does at its callee: a transaction, which never waits for anything."""


@dataclass(slots=True)
class Network:
    """Delays in seconds. A cut is a pair of process names: what the first sends, the second never gets."""

    rng: random.Random
    far_s: tuple[float, float] = (0.001, 0.005)
    loss: float = 0.0
    late: float = 0.0
    """How often a request is on its way for very long."""
    repeat: float = 0.0
    """How often a request arrives twice."""
    slow_flush: float = 0.0
    """How often a disk takes its time."""
    cuts: set[tuple[str, str]] = field(default_factory=set)
    met: Counter[str] = field(default_factory=Counter)
    """How often something came about that a simulation is made for."""
    faults: list[BaseException] = field(default_factory=list)
    """What was raised that is no ChainError."""

    async def call(
        self,
        caller: Process,
        callee: Process,
        work: Work[T],
        *,
        timeout_s: float,
        writes: bool = False,
        near: bool = False,
        disk: Disk | None = None,
    ) -> T:
        """Raises what `work` raises; Unavailable, or OutcomeUnknown for what `writes`, if no answer comes.

        With a `disk`, the answer waits until that is flushed.
        """
        if caller.frozen:
            await caller.wait_awake()
        if not caller.up:
            raise asyncio.CancelledError(f"{caller.name} is dead and says nothing")
        loop = asyncio.get_running_loop()
        answer = loop.create_future()
        message = _Message(self, loop, caller, callee, work, near, disk, answer)
        if near:
            loop.call_later(self.delay_s(NEAR_S), message.arrive)
        else:
            self._send(message)
            if self.repeat and self.rng.random() < self.repeat:
                self.met["repeated message"] += 1
                self._send(message)
        timer = loop.call_later(timeout_s, message.time_out, writes)
        try:
            result: T = await answer
            return result
        finally:
            timer.cancel()
            answer.cancel()
            if caller.frozen:
                await caller.wait_awake()

    def delay_s(self, between: tuple[float, float]) -> float:
        """As `uniform`, which is called more than anything else here."""
        low_s, high_s = between
        return low_s + (high_s - low_s) * self.rng.random()

    def flush_s(self) -> float:
        slow = self.slow_flush and self.rng.random() < self.slow_flush
        return self.delay_s(SLOW_FLUSH_S if slow else FLUSH_S)

    def meets_cut(self, sender: Process, receiver: Process) -> bool:
        if self.cuts and (sender.name, receiver.name) in self.cuts:
            self.met["cut message"] += 1
            return True
        if self.loss and self.rng.random() < self.loss:
            self.met["lost message"] += 1
            return True
        return False

    def _send(self, message: _Message) -> None:
        delay_s = self.delay_s(self.far_s)
        if self.late and self.rng.random() < self.late:
            delay_s = self.delay_s(LATE_S)
        message.loop.call_later(delay_s, message.arrive)


class _Message:
    """A request, what it does, and its answer."""

    __slots__ = ("answer", "callee", "caller", "disk", "loop", "near", "network", "work")

    def __init__(
        self,
        network: Network,
        loop: asyncio.AbstractEventLoop,
        caller: Process,
        callee: Process,
        work: Work[Any],
        near: bool,
        disk: Disk | None,
        answer: asyncio.Future[Any],
    ) -> None:
        self.network, self.loop, self.near, self.disk = network, loop, near, disk
        self.caller, self.callee, self.work, self.answer = caller, callee, work, answer

    def arrive(self) -> None:
        callee = self.callee
        if callee.frozen:
            callee.when_awake(self.arrive)
            return
        if not self.near and self.network.meets_cut(self.caller, callee):
            return
        if not callee.up:
            self._give(None, Unavailable(f"{callee.name}: connection refused"))
            return
        if self.answer.done():
            self.network.met["late message"] += 1
        work = self.work()
        try:
            work.send(None)
        except StopIteration as end:
            result, error = end.value, None
        except ChainError as refusal:
            result, error = None, refusal
        except BaseException as fault:
            self.network.faults.append(fault)
            result, error = None, Unavailable(f"{callee.name} failed: {fault!r}")
        else:
            work.close()
            waits = "a transaction waits for nothing"
            self.network.faults.append(AssertionError(waits))
            result, error = None, Unavailable(f"{callee.name} failed: {waits}")
        if self.disk is not None and error is None:
            self.loop.call_later(self.network.flush_s(), self._flush, self.disk, self.disk.starts, result)
        else:
            self._reply(result, error)

    def _flush(self, disk: Disk, starts: int, result: Any) -> None:
        callee = self.callee
        if callee.frozen:
            callee.when_awake(lambda: self._flush(disk, starts, result))
        elif callee.up and disk.starts == starts:
            disk.flush()
            self._reply(result, None)
        else:
            self._give(None, OutcomeUnknown(f"{callee.name}: connection lost"))

    def _reply(self, result: Any, error: ChainError | None) -> None:
        if self.near:
            self._give(result, error)
        else:
            self.loop.call_later(self.network.delay_s(self.network.far_s), self._return, result, error)

    def _return(self, result: Any, error: ChainError | None) -> None:
        if self.callee.up and not self.answer.done() and not self.network.meets_cut(self.callee, self.caller):
            self._give(result, error)

    def _give(self, result: Any, error: ChainError | None) -> None:
        if self.answer.done():
            return
        if error is None:
            self.answer.set_result(result)
        else:
            self.answer.set_exception(error)

    def time_out(self, writes: bool) -> None:
        kind = OutcomeUnknown if writes else Unavailable
        self._give(None, kind(f"{self.callee.name}: no answer in time"))
