"""What was done is taken back: once, in reverse, whatever fails."""

from __future__ import annotations

import asyncio

import pytest

from failover.drills.ground import Undos
from failover.drills.stage import surely


async def test_the_latest_is_taken_back_first_and_nothing_twice() -> None:
    done: list[str] = []
    undos = Undos()
    for name in ("first", "second"):

        async def undo(name: str = name) -> None:
            done.append(name)

        undos.add(name, undo)
    assert [r.ok for r in await undos.run()] == [True, True]
    assert done == ["second", "first"]
    assert await undos.run() == ()
    assert undos.done()


async def test_one_that_fails_keeps_no_other_and_is_tried_again() -> None:
    done: list[str] = []
    undos = Undos()

    async def works() -> None:
        done.append("works")

    async def fails_once() -> None:
        done.append("fails")
        if done.count("fails") == 1:
            raise OSError("not now")

    undos.add("works", works)
    undos.add("fails once", fails_once)
    results = await undos.run()
    assert [(r.action, r.ok, r.error) for r in results] == [
        ("fails once", False, "OSError: not now"),
        ("works", True, ""),
    ]
    assert not undos.done()
    assert [r.ok for r in await undos.run()] == [True]
    assert done == ["fails", "works", "fails"]


async def test_what_must_be_done_is_done_however_often_it_is_cancelled() -> None:
    done = asyncio.Event()

    async def work() -> None:
        await asyncio.sleep(0.05)
        done.set()

    task = asyncio.create_task(surely(work()))
    for _ in range(3):
        await asyncio.sleep(0.005)
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done.is_set()
