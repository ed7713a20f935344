"""An event loop in virtual time, whose every choice comes from a seed.

Time stands still while anything can run, and jumps to the next timer when nothing can. With a seed, what is
ready at the same time runs in an order that the seed chooses: every interleaving that asyncio allows.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
from collections.abc import Callable, Coroutine
from contextvars import Context
from functools import partial
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

    __slots__ = ("_callback", "_cancelled", "_context", "_when")

    def __init__(self, callback: Callable[[], Any], context: Context | None, when: float) -> None:
        self._callback, self._context, self._when, self._cancelled = callback, context, when, False

    def cancel(self) -> None:
        self._cancelled = True

    def cancelled(self) -> bool:
        return self._cancelled

    def when(self) -> float:
        return self._when


class VirtualLoop(asyncio.BaseEventLoop):
    """asyncio's own loop, but for the time, the order of what is ready, and input, of which there is none."""

    def __init__(self, rng: random.Random | None = None) -> None:
        super().__init__()
        self._rng = rng
        self._now = 0.0
        self._soon: list[_Handle] = []
        self._later: list[tuple[float, int, _Handle]] = []
        self._numbers = itertools.count()
        self.steps = 0
        self.set_task_factory(self._make_task)

    def time(self) -> float:
        return self._now

    # Any callback, any arguments: the signatures of typeshed say more than is needed here.

    def call_soon(self, callback: Any, *args: Any, context: Context | None = None) -> Any:  # type: ignore[override]
        handle = _Handle(partial(callback, *args) if args else callback, context, self._now)
        self._soon.append(handle)
        return handle

    def call_soon_threadsafe(self, callback: Any, *args: Any, context: Context | None = None) -> Any:  # type: ignore[override]
        return self.call_soon(callback, *args, context=context)

    def call_later(self, delay: float, callback: Any, *args: Any, context: Context | None = None) -> Any:  # type: ignore[override]
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(self, when: float, callback: Any, *args: Any, context: Context | None = None) -> Any:  # type: ignore[override]
        handle = _Handle(partial(callback, *args) if args else callback, context, when)
        heapq.heappush(self._later, (when, next(self._numbers), handle))
        return handle

    def _make_task(self, loop: Any, coro: Any, context: Any = None) -> asyncio.Task[Any]:
        # The number comes first: a task is put into a set while it is made.
        task = NumberedTask.__new__(NumberedTask)
        task._number = next(self._numbers)
        task.__init__(coro, loop=loop, context=context)  # type: ignore[misc]
        return task

    def _run_once(self) -> None:
        later = self._later
        while later and later[0][2]._cancelled:
            heapq.heappop(later)
        if not self._soon:
            if not later:
                raise Stuck("every task waits for something that no task will do")
            self._now = max(self._now, later[0][0])
        while later and later[0][0] <= self._now:
            self._soon.append(heapq.heappop(later)[2])
        ready, self._soon = self._soon, []
        if self._rng is not None and len(ready) > 1:
            self._rng.shuffle(ready)
        self.steps += 1
        for handle in ready:
            if not handle._cancelled:
                self._run(handle)

    def _run(self, handle: _Handle) -> None:
        try:
            if handle._context is None:
                handle._callback()
            else:
                handle._context.run(handle._callback)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            self.call_exception_handler({"message": "a callback failed", "exception": error})


def simulate(work: Coroutine[Any, Any, T], *, rng: random.Random | None = None) -> T:
    """Runs `work` to its end in virtual time; every task that it leaves behind is cancelled."""
    loop = VirtualLoop(rng)
    try:
        return loop.run_until_complete(work)
    finally:
        for _ in range(20):  # a cancellation can be lost where it meets the end of what was awaited
            tasks = sorted(asyncio.all_tasks(loop), key=hash)
            if not tasks:
                break
            for task in tasks:
                task.cancel()
            loop.run_until_complete(asyncio.wait(tasks, timeout=10.0))
        loop.close()
