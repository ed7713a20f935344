"""What counts as having an event, and as being asked who the members are."""

from __future__ import annotations

import asyncio

import pytest

from chain.acks import Decided, Wanted
from chain.event import Epoch, Position, Tip
from chain.topology import Topology

ONE, TWO, THREE = Epoch(1), Epoch(2), Epoch(3)


def tip(position: int, epoch: Epoch) -> Tip:
    return Tip(Position(position), epoch)


@pytest.mark.parametrize(
    ("told", "reign", "met"),
    [
        (tip(8, TWO), TWO, True),
        (tip(8, TWO), THREE, True),
        (tip(9, THREE), THREE, True),
        (tip(7, TWO), TWO, False),
        (tip(9, ONE), THREE, False),
        (tip(12, ONE), ONE, False),  # the head went back, and wrote it in a newer epoch than was known of it
    ],
)
def test_what_is_told_counts_in_the_events_epoch_and_the_heads(told: Tip, reign: Epoch, met: bool) -> None:
    wanted = Wanted(tip(8, TWO), frozenset({"west-1"}), every=True)
    assert wanted.met({"west-1": told}, reign) is met


async def test_who_the_members_are_is_read_after_it_was_asked() -> None:
    """Not the reading of a second ago, nor one that is under way."""
    numbers = iter(range(1, 9))
    reading, go = asyncio.Event(), asyncio.Event()

    async def read() -> Topology:
        number = next(numbers)
        reading.set()
        await go.wait()
        return Topology("shop", {}, "east", Epoch(number), None, ("a",), None)  # type: ignore[arg-type]

    decided = Decided(read)
    first = asyncio.create_task(decided.current())
    await reading.wait()
    await asyncio.sleep(0.01)
    second = asyncio.create_task(decided.as_of_now())
    await asyncio.sleep(0.01)
    go.set()
    assert ((await first).epoch, (await second).epoch) == (1, 2)
    assert (await decided.current()).epoch == 2
    await asyncio.sleep(0.01)
    assert (await decided.as_of_now()).epoch == 3
