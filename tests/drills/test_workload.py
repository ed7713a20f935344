"""What the workload promises: every call and answer on record, at its pace, within bounds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from uuid import uuid4

import pytest

from chain.acks import Ack
from chain.client import Client
from chain.errors import OutcomeUnknown, TimedOut, Unavailable
from chain.event import EMPTY, Appended, Expected, NewEvent, Revision
from chain.memory import MemoryStore
from chain.store import Ground, Identity, Page, Role
from chain.tasks import end
from chain.topology import Topology
from failover.drills.checker import Checked, check
from failover.drills.final import read_final
from failover.drills.findings import Kind
from failover.drills.history import History, Result
from failover.drills.workload import Load, Workload
from tests.conformance.stores import CHAIN, ONE, copy

REGIONS = {"a": "east", "b": "west", "c": "east"}
FAST = Load(writers=4, readers=2, writes_per_s=400, reads_per_s=200, call_s=1.0)


class Node(MemoryStore):
    """A node that can be down, and that may forget to answer."""

    down = False
    unanswered = 0
    """So many of the next appends are stored, and their answer is lost."""

    async def add(self, stream: str, expected: Expected, events: Sequence[NewEvent]) -> Appended:
        appended = await super().add(stream, expected, events)
        if self.unanswered:
            self.unanswered -= 1
            raise OutcomeUnknown("the connection broke")
        return appended

    def _check_prepared(self) -> None:  # every verb comes by here
        if self.down:
            raise Unavailable(f"{self.name} is down")
        super()._check_prepared()


@dataclass
class Row:
    """A chain a → b → c in memory, copied all the time."""

    nodes: dict[str, Node]
    client: Client
    order: tuple[str, ...] = ("a", "b", "c")

    async def topology(self) -> Topology:
        return Topology(CHAIN, REGIONS, "east", ONE, uuid4(), self.order, Ground(EMPTY, datetime.now(UTC)))

    def workload(self, load: Load = FAST, seed: int = 1) -> Workload:
        return Workload(self.client, self.topology, self.order, load=load, seed=seed)

    async def checked(self, history: History) -> Checked:
        return check(history, await read_final(self.nodes, await self.topology(), history.start))

    async def keep_copying(self) -> None:
        while True:
            for source, target in (("a", "b"), ("b", "c")):
                with suppress(Unavailable):
                    tip = await copy(self.nodes[source], self.nodes[target], source)
                    await self.nodes["a"].tell({target: tip})
            await asyncio.sleep(0.002)


@asynccontextmanager
async def row(make: Callable[[str], Node] = Node, *, call_s: float = FAST.call_s) -> AsyncIterator[Row]:
    nodes = {name: make(name) for name in "abc"}
    for name, node in nodes.items():
        await node.prepare(Identity(CHAIN, name))
    await nodes["a"].promote(ONE, uuid4())
    await nodes["b"].follow_upstream(ONE, "a", Role.MIDDLE)
    await nodes["c"].follow_upstream(ONE, "b", Role.TAIL)
    made: Row

    async def topology() -> Topology:
        return await made.topology()

    client = Client(REGIONS, nodes.__getitem__, topology=topology, deadline_s=call_s)
    made = Row(nodes, client)
    copying = asyncio.create_task(made.keep_copying())
    try:
        yield made
    finally:
        await end(copying)
        await client.close()


async def run_for(workload: Workload, writes: int) -> History:
    """Runs it until so many writes were acknowledged, and stops it."""
    await workload.start()
    async with asyncio.timeout(20):
        while sum(w.acknowledged for w in workload.history().writes) < writes:
            await asyncio.sleep(0.01)
    return await workload.stop()


async def test_what_a_sound_chain_answers_is_recorded_and_holds() -> None:
    async with row() as chain:
        workload = chain.workload()
        await workload.start()
        async with asyncio.timeout(30):  # writers meet on shared streams
            while not any(w.result is Result.FAILED for w in workload.history().writes):
                await asyncio.sleep(0.01)
        history = await run_for(workload, 150)
        checked = await chain.checked(history)
    assert checked.findings == ()
    assert checked.result().ok
    counts = checked.counts
    acknowledged = [
        counts[f"events_acknowledged_by_{who}"] for who in ("the_head", "another_region", "the_chain")
    ]
    assert all(acknowledged), "every level was asked for"
    assert counts["appends_refused"] > 0
    assert min(counts["reads"], counts["pages_followed"]) > 0
    assert {page.tail for page in history.followed} == {True, False}
    last = max(w.appended.last_position for w in history.writes if w.acknowledged and w.appended)
    assert max(page.seen[-1].position for page in history.followed if page.tail) >= last
    assert checked.stable_s["max"] >= checked.stable_s["p50"] >= 0


async def test_an_append_without_an_answer_is_recorded_as_that_and_sent_again_with_its_ids() -> None:
    async with row(call_s=0.2) as chain:
        workload = chain.workload(Load(writers=1, readers=0, writes_per_s=200, call_s=0.2, acks=(Ack.HEAD,)))
        await workload.start()
        chain.nodes["a"].down = True
        async with asyncio.timeout(10):
            while workload.history().writes[-1].result is not Result.UNKNOWN:
                await asyncio.sleep(0.01)
        chain.nodes["a"].down = False
        await workload.wait_running()
        history = await workload.stop()
        assert (await chain.checked(history)).findings == ()
    unknown = next(w for w in history.writes if w.result is Result.UNKNOWN)
    again = [w for w in history.writes if w.contents == unknown.contents]
    assert len(again) > 1
    assert again[-1].acknowledged
    assert "not done within 0.2 s" in unknown.error


async def test_lost_answers_make_no_duplicates() -> None:
    async with row() as chain:
        workload = chain.workload()
        await workload.start()
        chain.nodes["a"].unanswered = 20
        await workload.wait_running()
        history = await workload.stop()
        assert chain.nodes["a"].unanswered == 0
        assert (await chain.checked(history)).findings == ()


async def test_it_ends_within_its_bound_though_the_chain_is_down_for_good() -> None:
    async with row(call_s=0.3) as chain:
        workload = chain.workload(Load(call_s=0.3))
        await workload.start()
        await workload.wait_running()
        for node in chain.nodes.values():
            node.down = True
        async with asyncio.timeout(10):
            history = await workload.stop(settle_s=0.1)
            checked = await chain.checked(history)
        assert workload.take().acknowledged >= 0
    assert checked.result().ok is None
    assert "could not be read" in checked.incomplete


async def test_it_does_not_begin_on_a_chain_that_does_not_take_its_first_event() -> None:
    async with row(call_s=0.2) as chain:
        chain.nodes["c"].down = True
        before = asyncio.all_tasks()
        workload = chain.workload(Load(call_s=0.2))
        with pytest.raises(Unavailable, match="first event"):
            await workload.start()
        history = await workload.stop()
        assert history.reads == ()
        assert not {t for t in asyncio.all_tasks() - before if "drill" in t.get_name()}


async def test_who_waits_for_it_to_run_is_told_when_it_does_not() -> None:
    async with row(call_s=0.2) as chain:
        workload = chain.workload(Load(call_s=0.2))
        await workload.start()
        chain.nodes["a"].down = True
        with pytest.raises(TimedOut):
            await workload.wait_running(0.5)
        await workload.stop(settle_s=0.1)


async def test_it_holds_a_bounded_history_and_goes_to_rest_when_it_is_full() -> None:
    async with row() as chain:
        workload = chain.workload(Load(call_s=1.0, max_calls=60))
        await workload.start()
        async with asyncio.timeout(20):
            while workload.history().full_at_s is None:
                await asyncio.sleep(0.01)
        history = await workload.stop()
    calls = len(history.writes) + len(history.reads) + len(history.followed)
    under_way = workload.load.writers + workload.load.readers
    assert 60 <= calls <= 60 + under_way + len(history.followed)


async def test_without_a_follower_of_the_tail_nobody_waits_for_one() -> None:
    async with row() as chain:
        workload = chain.workload(replace(FAST, followers=0))
        await workload.start()
        await workload.wait_running()
        async with asyncio.timeout(20):
            history = await workload.stop(settle_s=60.0)
    assert history.followed
    assert not any(page.tail for page in history.followed)


async def test_it_never_goes_beyond_its_pace() -> None:
    load = Load(writers=3, readers=0, writes_per_s=60, call_s=1.0, acks=(Ack.HEAD,))
    async with row() as chain:
        history = await run_for(chain.workload(load), 40)
    begun = sorted(write.invoked_s for write in history.writes[1:])
    assert len(begun) <= (begun[-1] - begun[0]) * load.writes_per_s + load.writers


async def test_with_the_same_seed_and_answers_it_makes_the_same_calls() -> None:
    load = Load(writers=1, readers=0, writes_per_s=1000, call_s=1.0)
    made = []
    for _ in range(2):
        async with row() as chain:
            history = await run_for(chain.workload(load, seed=9), 30)
        calls = ((w.stream.split("/")[1], w.expected, len(w.contents), w.ack) for w in history.writes)
        made.append(list(calls)[:30])
    assert made[0] == made[1]


async def test_what_it_takes_is_what_ended_since_the_last_time() -> None:
    async with row() as chain:
        workload = chain.workload()
        await workload.start()
        await workload.wait_running()
        first = workload.take()
        history = await workload.stop()
        second = workload.take()
    acknowledged = sum(write.acknowledged for write in history.writes)
    assert first.acknowledged + second.acknowledged == acknowledged
    assert first.latency_p99_s is not None
    assert first.latency_p50_s is not None
    assert first.latency_p99_s >= first.latency_p50_s > 0


async def test_an_error_of_its_own_is_never_silent() -> None:
    class Broken(Node):
        async def get(self, stream: str, revision: Revision = Revision(0), limit: int = 1000) -> Page:
            raise ZeroDivisionError

    async with row(Broken) as chain:
        workload = chain.workload()
        await workload.start()
        await wait_dead(workload)
        with pytest.raises(ExceptionGroup) as caught:
            await workload.stop()
        assert caught.group_contains(ZeroDivisionError)


async def wait_dead(workload: Workload) -> None:
    """Waits until who samples it is told that something died."""
    async with asyncio.timeout(10):
        while True:
            try:
                workload.take()
            except ExceptionGroup:
                return
            await asyncio.sleep(0.01)


# From end to end: a store that does wrong is found out through the workload alone.


class Doubling(Node):
    """Stores what it is given twice."""

    async def add(self, stream: str, expected: Expected, events: Sequence[NewEvent]) -> Appended:
        appended = await super().add(stream, expected, events)
        await super().add(
            stream, appended.last_revision, [NewEvent(e.type, e.data, e.metadata) for e in events]
        )
        return appended


class Stale(Node):
    """Leaves the last event out of what it reads of a stream."""

    async def get(self, stream: str, revision: Revision = Revision(0), limit: int = 1000) -> Page:
        page = await super().get(stream, revision, limit)
        return Page(page.events[:-1], page.next, page.at_tip) if stream.startswith("drill") else page


class Garbling(Node):
    """Reads other bytes than it was given."""

    async def get(self, stream: str, revision: Revision = Revision(0), limit: int = 1000) -> Page:
        page = await super().get(stream, revision, limit)
        if not stream.startswith("drill"):
            return page
        return Page(tuple(e._replace(data=b"?") for e in page.events), page.next, page.at_tip)


@pytest.mark.parametrize(
    ("make", "kinds"),
    [
        (Doubling, {Kind.DUPLICATED}),
        (Stale, {Kind.STALE_TOKEN, Kind.STALE_LATEST}),
        (Garbling, {Kind.ALTERED}),
    ],
)
async def test_a_store_that_does_wrong_is_found_out(make: Callable[[str], Node], kinds: set[Kind]) -> None:
    async with row(make) as chain:
        checked = await chain.checked(await run_for(chain.workload(), 60))
    assert kinds <= {finding.kind for finding in checked.findings}
