"""Batches under way: how many, in which order, and whose error is told."""

from __future__ import annotations

import asyncio

import pytest

from chain.errors import Corrupt, StaleLink
from chain.event import Epoch, Position, Tip
from chain.store import Batch
from replicator.applying import BESIDE, Applying


class Target:
    """Applies a batch once it is told to."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.behind: dict[int, asyncio.Task[Tip] | None] = {}
        self.ended: list[int] = []
        self._gates: dict[int, asyncio.Future[None]] = {}

    async def apply(self, batch: Batch, behind: asyncio.Task[Tip] | None) -> Tip:
        self.begun.append(batch.after)
        self.behind[batch.after] = behind
        gate = self._gates[batch.after] = asyncio.get_running_loop().create_future()
        try:
            await gate
        finally:
            self.ended.append(batch.after)
        return Tip(batch.last, Epoch(1))

    async def let(self, after: int, error: Exception | None = None) -> None:
        if error is None:
            self._gates[after].set_result(None)
        else:
            self._gates[after].set_exception(error)
        await asyncio.sleep(0)


def batch(after: int) -> Batch:
    return Batch(Position(after), Epoch(1), 10, (), at_tip=False)


async def turn() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


async def test_no_more_are_under_way_than_may_be_and_each_knows_the_one_before() -> None:
    target = Target()
    applying = Applying(target.apply)
    for after in (0, 10):
        await applying.begin(batch(after))
    third = asyncio.create_task(applying.begin(batch(20)))
    await turn()
    assert target.begun == [0, 10]
    assert BESIDE == 2
    assert target.behind[0] is None
    first = target.behind[10]
    assert first is not None

    await target.let(0)
    await third
    await turn()
    assert target.begun == [0, 10, 20]
    assert (await first).position == 10
    await target.let(10)
    await target.let(20)
    await applying.wait()
    await applying.begin(batch(30))
    await turn()
    assert target.behind[30] is None
    await applying.close()


async def test_the_older_one_s_error_is_told() -> None:
    target = Target()
    applying = Applying(target.apply)
    for after in (0, 10):
        await applying.begin(batch(after))
    await turn()
    await target.let(10, Corrupt("the newer"))
    waiting = asyncio.create_task(applying.wait())
    await turn()
    assert not waiting.done()
    await target.let(0, StaleLink("the older"))
    with pytest.raises(StaleLink):
        await waiting
    await applying.close()


async def test_closing_ends_the_newest_first() -> None:
    target = Target()
    applying = Applying(target.apply)
    for after in (0, 10):
        await applying.begin(batch(after))
    await turn()
    await applying.close()
    assert target.ended == [10, 0]


async def test_what_is_done_beside_it_is_given_up_when_a_batch_fails() -> None:
    target = Target()
    applying = Applying(target.apply)
    await applying.begin(batch(0))
    reading = asyncio.create_task(applying.beside(asyncio.sleep(60)))
    await turn()
    await target.let(0, Corrupt("it is"))
    with pytest.raises(Corrupt):
        await reading
    with pytest.raises(Corrupt):  # and is told again
        await applying.wait()
    await applying.close()


async def test_what_is_done_beside_it_goes_on_when_a_batch_has_ended() -> None:
    target = Target()
    applying = Applying(target.apply)
    await applying.begin(batch(0))
    answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def read() -> int:
        return await answer

    reading = asyncio.create_task(applying.beside(read()))
    await turn()
    await target.let(0)
    await turn()
    assert not reading.done()
    answer.set_result(7)
    assert await reading == 7
    await applying.close()
