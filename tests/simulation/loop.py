"""An event loop in virtual time, whose every choice comes from a seed.

Time stands still while anything can run, and jumps to the next timer when nothing can. With a seed, what is
ready at the same time runs in an order that the seed chooses: every interleaving that asyncio allows.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable, Coroutine
from contextvars import Context
from functools import partial
from heapq import heappop, heappush
from typing import Any, TypeVar

T = TypeVar("T")


class Stuck(Exception):
    """Nothing can run and nothing ever will."""


class NumberedTask(asyncio.Task[Any]):
    """A task whose hash is its number: a set of tasks is gone through in the same order in every process."""

    _number: int

    def __hash__(self) -> int:
        return self._number


class _Handle:
    """A callback that waits for its turn."""

    __slots__ = ("_args", "_callback", "_cancelled", "_context", "_when")

    def __init__(
        self, callback: Callable[..., Any], args: tuple[Any, ...], context: Context | None, when: float
    ) -> None:
        self._callback, self._args, self._context, self._when = callback, args, context, when
        self._cancelled = False

    def cancel(self) -> None:
        self._cancelled = True

    def cancelled(self) -> bool:
        return self._cancelled

    def when(self) -> float:
        return self._when


class VirtualLoop(asyncio.BaseEventLoop):
    """asyncio's own loop, but for the time, the order of what is ready, and input, of which there is none.

    Half of what a life costs goes through here, several thousand times: hence what is written out in full.
    """

    _stopping: bool  # asyncio's own

    def __init__(self, rng: random.Random | None = None) -> None:
        super().__init__()
        self._rng = rng
        self._now = 0.0
        self._soon: list[_Handle] = []
        self._later: list[tuple[float, int, _Handle]] = []
        self._numbers = itertools.count()
        self.steps = 0
        self.failed: BaseException | None = None
        """What a callback raised first: nobody waits for one, so nobody else would tell."""
        self.create_future = partial(asyncio.Future, loop=self)  # type: ignore[method-assign]
        self.get_debug = bool  # type: ignore[method-assign]  # which is False, and asked for each future

    def time(self) -> float:
        return self._now

    # Any callback, any arguments: the signatures of typeshed say more than is needed here.

    def call_soon(self, callback: Any, *args: Any, context: Context | None = None) -> Any:  # type: ignore[override]
        handle = _Handle(callback, args, context, self._now)
        self._soon.append(handle)
        return handle

    def call_soon_threadsafe(self, callback: Any, *args: Any, context: Context | None = None) -> Any:  # type: ignore[override]
        return self.call_soon(callback, *args, context=context)

    def call_later(self, delay: float, callback: Any, *args: Any, context: Context | None = None) -> Any:  # type: ignore[override]
        when = self._now + delay
        handle = _Handle(callback, args, context, when)
        heappush(self._later, (when, next(self._numbers), handle))
        return handle

    def call_at(self, when: float, callback: Any, *args: Any, context: Context | None = None) -> Any:  # type: ignore[override]
        handle = _Handle(callback, args, context, when)
        heappush(self._later, (when, next(self._numbers), handle))
        return handle

    def create_task(self, coro: Any, *, name: Any = None, context: Any = None) -> asyncio.Task[Any]:
        # The number comes first: a task is put into a set while it is made.
        task = NumberedTask.__new__(NumberedTask)
        task._number = next(self._numbers)
        task.__init__(coro, loop=self, name=name, context=context)  # type: ignore[misc]
        return task

    def _run_once(self) -> None:
        """Runs on until the loop is told to stop, or Stuck."""
        later, rng = self._later, self._rng
        while True:
            while later and later[0][2]._cancelled:
                heappop(later)
            ready = self._soon
            if later:
                if not ready and later[0][0] > self._now:
                    self._now = later[0][0]
                now = self._now
                while later and later[0][0] <= now:
                    ready.append(heappop(later)[2])
            elif not ready:
                raise Stuck("every task waits for something that no task will do")
            self._soon = []
            if rng is not None and len(ready) > 1:
                rng.shuffle(ready)
            self.steps += 1
            for handle in ready:
                if handle._cancelled:
                    continue
                try:
                    if handle._context is None:
                        handle._callback(*handle._args)
                    else:
                        handle._context.run(handle._callback, *handle._args)
                except (SystemExit, KeyboardInterrupt):
                    raise
                except BaseException as error:
                    self.failed = self.failed or error
            if self._stopping:
                return


def simulate(work: Coroutine[Any, Any, T], *, rng: random.Random | None = None) -> T:
    """Runs `work` to its end in virtual time; every task that it leaves behind is cancelled."""
    loop = VirtualLoop(rng)
    try:
        result = loop.run_until_complete(work)
        if loop.failed is not None:
            raise loop.failed
        return result
    finally:
        for _ in range(20):  # a cancellation can be lost where it meets the end of what was awaited
            tasks = sorted(asyncio.all_tasks(loop), key=hash)
            if not tasks:
                break
            for task in tasks:
                task.cancel()
            loop.run_until_complete(asyncio.wait(tasks, timeout=10.0))
        loop.close()
