"""How appends gather into groups, on sessions that answer after a while and store nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from chain.event import Expect, NewEvent
from chain.postgres.appender import IN_FLIGHT, Appender
from chain.postgres.sessions import Sessions


@dataclass
class Answering:
    """In place of the sessions: appends everything, and keeps what came as one group."""

    name: str = "a"
    groups: list[int] = field(default_factory=list)
    """The events of each, in the order in which they were sent."""
    under_way: int = 0
    most_under_way: int = 0

    @asynccontextmanager
    async def use(self, *, writes: bool) -> AsyncIterator[Answering]:
        yield self

    async def fetchrow(self, _query: str, *columns: Sequence[Any]) -> dict[str, Any]:
        _, requests, _, counts, *_ = columns
        self.groups.append(sum(counts))
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        await asyncio.sleep(0.003)
        self.under_way -= 1
        many = len(requests)
        answers = {"r_outcome": "appended", "r_position": 1, "r_revision": 0, "r_epoch": 1}
        return {"r_lease_left": None} | {name: [answer] * many for name, answer in answers.items()}

    async def close(self) -> None:
        """Nothing to close."""


@pytest.fixture
def sessions() -> Answering:
    return Answering()


@pytest.fixture
def appender(sessions: Answering) -> Appender:
    return Appender(cast("Sessions", sessions), group_events=100)


def events(count: int = 1) -> list[NewEvent]:
    return [NewEvent("Tested", b"") for _ in range(count)]


async def call(appender: Appender, stream: str, times: int, count: int = 1) -> None:
    for _ in range(times):
        await appender.add(stream, Expect.ANY, events(count))


async def burst(appender: Appender, streams: Sequence[str], count: int = 1) -> None:
    await asyncio.gather(*(call(appender, stream, 1, count) for stream in streams))


async def test_a_caller_alone_waits_for_nobody(appender: Appender, sessions: Answering) -> None:
    await call(appender, "s", 5)
    assert sessions.groups == [1] * 5


async def test_two_groups_of_about_the_same_size_take_turns(appender: Appender, sessions: Answering) -> None:
    await asyncio.gather(*(call(appender, f"s-{n}", 20) for n in range(64)))
    settled = sessions.groups[8:-8]
    assert len(settled) > 8
    assert 24 <= min(settled) <= max(settled) <= 40, sessions.groups
    assert sessions.most_under_way == IN_FLIGHT


async def test_a_few_wait_for_company_while_a_group_is_under_way(
    appender: Appender, sessions: Answering
) -> None:
    await burst(appender, [f"s-{n}" for n in range(6)])
    assert sessions.groups == [1, 5]
    assert sessions.most_under_way == 1


async def test_what_waits_for_one_stream_goes_together(appender: Appender, sessions: Answering) -> None:
    """What stays behind would have to wait for this group: no other could take it along."""
    await burst(appender, ["hot"] * 64)
    assert sessions.groups == [1, 63]


async def test_a_group_holds_no_more_than_it_may_but_a_request_that_is_larger(
    appender: Appender, sessions: Answering
) -> None:
    await burst(appender, ["hot"] * 5, count=40)
    assert sessions.groups == [40, 80, 80]
    sessions.groups.clear()
    await call(appender, "large", 1, count=250)
    assert sessions.groups == [250]
