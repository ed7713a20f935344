"""What is verified of a node while it is being filled: whole segments, in order, up to one that differs."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from uuid import uuid4

import pytest

from chain.errors import Unavailable
from chain.event import MAX_APPEND_EVENTS, Epoch, Expect, NewEvent, Position
from chain.memory import MemoryStore
from chain.store import SEGMENT, Digest, Identity, Role, Seal
from failover.steps.members import CaughtUp
from replicator.growing import Growing
from replicator.verify import Verdict, verify_pair
from tests.conformance.stores import CHAIN, ONE, TWO, copy

AT = SEGMENT + 77


class Copy(MemoryStore):
    """May not answer."""

    away = False

    async def digest(self, first: Position, last: Position) -> Digest:
        if self.away:
            raise Unavailable("b: no answer in time")
        return await super().digest(first, last)


@pytest.fixture
async def source() -> MemoryStore:
    source = MemoryStore("a")
    await source.prepare(Identity(CHAIN, "a"))
    await source.promote(ONE, uuid4())
    for _ in range(10):  # two segments, and a half
        await source.add("s", Expect.ANY, [NewEvent("T", b"data") for _ in range(MAX_APPEND_EVENTS)])
    return source


async def copied(source: MemoryStore, *, wrong_at: int = 0, up_to: int = 10 * SEGMENT) -> Copy:
    target = Copy("b")
    await target.prepare(Identity(CHAIN, "b"))
    await target.follow_upstream(ONE, "a", Role.TAIL)
    await target.apply(await source.read(Position(0), up_to, 1 << 30), Epoch(1), "a")
    if wrong_at:
        events = target._log.events
        events[wrong_at - 1] = events[wrong_at - 1]._replace(data=b"rotten")
    return target


async def test_whole_segments_are_compared_as_far_as_the_target_is(source: MemoryStore) -> None:
    target = await copied(source, up_to=SEGMENT + 5)
    growing = Growing("a", source, "b", target)
    assert not growing.is_due(Position(SEGMENT - 1))
    await growing.advance()
    assert growing.verified == SEGMENT
    assert not growing.is_due(Position(SEGMENT + 5))
    await copy(source, target, "a")
    await growing.advance()
    assert (growing.verified, growing.stopped) == (2 * SEGMENT, False)


async def test_it_stops_before_what_differs_and_the_verification_from_there_tells_it(
    source: MemoryStore,
) -> None:
    target = await copied(source, wrong_at=AT)
    growing = Growing("a", source, "b", target)
    await growing.advance()
    assert (growing.verified, growing.stopped) == (SEGMENT, True)
    assert not growing.is_due((await source.tip()).position)
    verified = await verify_pair("a", source, "b", target, first=growing.verified)
    assert (verified.verdict, verified.differing) == (Verdict.DIFF, (AT,))


async def test_it_stops_before_what_the_source_has_noted_otherwise(source: MemoryStore) -> None:
    """The two are equal, and not what was agreed on: the source rotted before it was copied."""
    agreed = (await source.digest(Position(1), Position(SEGMENT))).value
    await source.seal(1, Position(SEGMENT), agreed)
    source._log.events[5] = source._log.events[5]._replace(data=b"rotten")
    growing = Growing("a", source, "b", await copied(source))
    await growing.advance()
    assert (growing.verified, growing.stopped) == (0, True)


@pytest.mark.parametrize("last", [SEGMENT, 100])
async def test_it_stops_before_what_the_target_has_noted_otherwise_or_in_part(
    source: MemoryStore, last: int
) -> None:
    """Notes that it can't hold against a whole segment are for `verify_pair`, which can."""
    target = await copied(source)
    if last == SEGMENT:
        target._seals[1] = Seal(1, Position(last), b"another", datetime.now(UTC))
    else:
        await target.seal(1, Position(last), (await source.digest(Position(1), Position(last))).value)
    growing = Growing("a", source, "b", target)
    await growing.advance()
    assert (growing.verified, growing.stopped) == (0, True)


async def test_what_cannot_be_read_is_tried_three_times(source: MemoryStore) -> None:
    target = await copied(source)
    growing = Growing("a", source, "b", target)
    target.away = True
    for tried in (False, False, True):
        await growing.advance()
        assert growing.stopped is tried


async def test_what_was_read_in_a_catch_up_counts_if_nothing_has_changed_since(source: MemoryStore) -> None:
    target = await copied(source)
    tip, now = (await target.tip()).position, asyncio.get_running_loop().time()
    same = CaughtUp("a", ONE, Position(SEGMENT), tip, now)
    assert await same.first("a", ONE, target) == SEGMENT
    assert await replace(same, verified=Position(0)).first("a", ONE, target) == 1
    assert await same.first("x", ONE, target) == 1
    assert await same.first("a", TWO, target) == 1
    assert await replace(same, at=now - 3600).first("a", ONE, target) == 1
    older = await copied(source, up_to=tip - 1)  # as if it had been restored
    assert await same.first("a", ONE, older) == 1


async def test_a_node_that_is_away_is_asked_again(source: MemoryStore) -> None:
    target = await copied(source)
    growing, tip = Growing("a", source, "b", target), (await source.tip()).position
    target.away = True
    await growing.advance()
    assert (growing.verified, growing.stopped, growing.is_due(tip)) == (0, False, True)
    target.away = False
    await growing.advance()
    assert growing.verified == 2 * SEGMENT
