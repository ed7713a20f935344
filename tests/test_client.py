"""What the client promises applications, on memory stores."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from uuid import uuid4

import pytest

from chain.client import Ack, Client, NotYetReplicated, Recency
from chain.errors import (
    BadInput,
    ChainError,
    Diverged,
    Overloaded,
    Refused,
    TimedOut,
    Unavailable,
    WrongRevision,
)
from chain.event import EMPTY, Appended, Epoch, Expect, Expected, NewEvent, Position, Tip
from chain.memory import MemoryStore
from chain.store import Ground, Identity, NodeState, Page, Progress, Role
from chain.topology import Topology
from tests.conformance.stores import CHAIN, ONE, START, TWO, MemoryStores, copy, event, events, follower, head

THREE = Epoch(3)
REGIONS = {"a": "east", "b": "west", "c": "east"}


class Node(MemoryStore):
    """A memory store whose server can be down, or hang, and that tells when it was asked."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.down = False
        self.answering = asyncio.Event()
        self.answering.set()
        self.asked: dict[str, int] = {}
        self._asked = asyncio.Condition()

    async def until_asked(self, what: str, times: int = 1) -> None:
        """Waits until it was asked for this again, so many times."""
        goal = self.asked.get(what, 0) + times
        async with asyncio.timeout(5), self._asked:
            await self._asked.wait_for(lambda: self.asked.get(what, 0) >= goal)

    async def state(self) -> NodeState:
        await self._ask("state")
        return await super().state()

    async def tip(self) -> Tip:
        await self._ask("tip")
        return await super().tip()

    async def log(self, after: Position = START, limit: int = 1000) -> Page:
        await self._ask("log")
        return await super().log(after, limit)

    async def add(self, stream: str, expected: Expected, events: Sequence[NewEvent]) -> Appended:
        await self._ask("add")
        return await super().add(stream, expected, events)

    async def progress(self) -> Mapping[str, Progress]:
        await self._ask("progress")
        return await super().progress()

    async def wait(self, after: Position, timeout_s: float) -> None:
        await self._ask("wait")
        await super().wait(after, timeout_s)

    async def _ask(self, what: str) -> None:
        async with self._asked:
            self.asked[what] = self.asked.get(what, 0) + 1
            self._asked.notify_all()
        await self.answering.wait()

    def _check_prepared(self) -> None:  # every verb comes by here
        if self.down:
            raise Unavailable(f"{self.name} is down")
        super()._check_prepared()


class Nodes(MemoryStores):
    def __init__(self) -> None:
        self.made: dict[str, Node] = {}

    async def bare(self, name: str = "a") -> Node:
        return self.made.setdefault(name, Node(name))


class Shop:
    """A chain a → b → c in two regions. Nothing is copied or told but by the test."""

    def __init__(self, nodes: Mapping[str, Node]) -> None:
        self.nodes = nodes
        self.a, self.b, self.c = (nodes[name] for name in "abc")
        self.order: tuple[str, ...] = ("a", "b", "c")
        self.registry_down = False

    async def topology(self) -> Topology:
        if self.registry_down:
            raise Unavailable("the registry is down")
        return Topology(
            CHAIN, REGIONS, "east", ONE, uuid4(), self.order, Ground(EMPTY, datetime(2026, 1, 1, tzinfo=UTC))
        )

    @asynccontextmanager
    async def client(
        self,
        nodes: str = "abc",
        *,
        topology: bool = True,
        deadline_s: float = 5.0,
        buffer_events: int = 100,
    ) -> AsyncIterator[Client]:
        made = Client(
            {name: REGIONS[name] for name in nodes},
            self.nodes.__getitem__,
            topology=self.topology if topology else None,
            deadline_s=deadline_s,
            buffer_events=buffer_events,
        )
        try:
            yield made
        finally:
            await made.close()

    async def told(self, node: Node) -> None:
        """The head hears what the node holds by now."""
        await self.a.tell({node.name: await MemoryStore.tip(node)})

    async def a_is_lost(self, new: Node, epoch: Epoch = TWO) -> None:
        self.a.down = True
        await new.promote(epoch, uuid4())
        self.order = (new.name, *(name for name in "bc" if name != new.name))


@pytest.fixture
async def shop() -> Shop:
    nodes = Nodes()
    await head(nodes, "a")
    await follower(nodes, "b", of="a")
    await follower(nodes, "c", of="b")
    return Shop(nodes.made)


async def add(client: Client, ack: Ack = Ack.HEAD, new: NewEvent | None = None) -> Appended:
    return await client.add("s", Expect.ANY, [new or event()], ack)


async def begun(work: Awaitable[Appended], node: Node, what: str = "progress") -> asyncio.Task[Appended]:
    """The call, under way: it has come to where the node is asked again and again."""
    task = asyncio.ensure_future(work)
    await node.until_asked(what, 2)
    assert isinstance(task, asyncio.Task)
    assert not task.done()
    return task


def watchers() -> list[str]:
    return [task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("watch ")]


class TestAcknowledgement:
    async def test_head_is_durable_on_the_head_and_asks_for_no_more(self, shop: Shop) -> None:
        async with shop.client(topology=False) as client:
            done = await add(client)
            assert (done.token, done.repeated) == (Tip(Position(2), ONE), False)
            assert "progress" not in shop.a.asked

    async def test_region_waits_for_a_node_in_another_region(self, shop: Shop) -> None:
        async with shop.client(topology=False) as client:
            call = await begun(add(client, Ack.REGION), shop.a)
            await shop.a.tell({"c": Tip(Position(9), ONE), "x": Tip(Position(9), ONE)})
            await shop.a.until_asked("progress", 2)
            assert not call.done()
            await copy(shop.a, shop.b, "a")
            await shop.told(shop.b)
            done = await call
            assert await shop.b.at(done.last_position)

    async def test_chain_waits_for_every_member(self, shop: Shop) -> None:
        async with shop.client() as client:
            call = await begun(add(client, Ack.CHAIN), shop.a)
            await copy(shop.a, shop.b, "a")
            await shop.told(shop.b)
            await shop.a.until_asked("progress", 2)
            assert not call.done()
            await copy(shop.b, shop.c, "b")
            await shop.told(shop.c)
            done = await call
            assert await shop.c.at(done.last_position)

    async def test_a_chain_of_one_is_its_head(self, shop: Shop) -> None:
        shop.order = ("a",)
        async with shop.client() as client:
            assert (await add(client, Ack.CHAIN)).last_position == 2

    async def test_a_node_that_is_no_member_any_more_is_not_waited_for(
        self, shop: Shop, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("chain.acks.FRESH_S", 0.05)
        async with shop.client() as client:
            call = await begun(add(client, Ack.CHAIN), shop.a)
            await copy(shop.a, shop.b, "a")
            await shop.told(shop.b)
            shop.order = ("a", "b")
            assert await call

    async def test_a_larger_position_on_a_dead_branch_does_not_count(self, shop: Shop) -> None:
        """b led epoch 2 and was lost; a leads epoch 3 and has heard of b's long branch."""
        await shop.b.promote(TWO, uuid4())
        await shop.b.add("s", Expect.ANY, events(20))
        await shop.a.promote(THREE, uuid4())
        await shop.told(shop.b)
        async with shop.client("ab") as client:
            call = await begun(add(client, Ack.REGION), shop.a)
            assert (await MemoryStore.tip(shop.b)).position > (await MemoryStore.tip(shop.a)).position
            await shop.a.until_asked("progress", 2)
            assert not call.done()
            await shop.b.follow_upstream(THREE, "a", Role.TAIL)
            await shop.b.give_up(START, await MemoryStore.tip(shop.b), THREE, "a")
            await copy(shop.a, shop.b, "a")
            await shop.told(shop.b)
            assert (await call).epoch == THREE

    async def test_an_event_of_an_older_reign_counts_where_the_heads_reign_is(self, shop: Shop) -> None:
        new = event()
        async with shop.client() as client:
            first = await add(client, new=new)
            await shop.a.promote(TWO, uuid4())
            await shop.b.follow_upstream(TWO, "a", Role.MIDDLE)
            await copy(shop.a, shop.b, "a")
            await shop.told(shop.b)
            again = await add(client, Ack.REGION, new)
            assert (again.token, again.repeated) == (first.token, True)

    async def test_without_another_region_it_is_refused_and_nothing_is_written(self, shop: Shop) -> None:
        async with shop.client("ac") as client:
            with pytest.raises(Refused, match="no node in another region"):
                await add(client, Ack.REGION)
            assert "add" not in shop.a.asked

    async def test_chain_needs_to_know_who_is_a_member_before_it_writes(
        self, shop: Shop, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("chain.acks.UNREADABLE_S", 0.1)
        shop.registry_down = True
        async with shop.client() as client, shop.client(topology=False) as ignorant:
            with pytest.raises(Unavailable, match=r"topology could not be read for .* the registry is down"):
                await add(client, Ack.CHAIN)
            with pytest.raises(BadInput, match="does not know the topology"):
                await add(ignorant, Ack.CHAIN)
            assert "add" not in shop.a.asked

    async def test_at_the_deadline_it_is_told_what_was_reached(self, shop: Shop) -> None:
        async with shop.client(deadline_s=0.1) as client:
            with pytest.raises(NotYetReplicated, match="a has the events") as caught:
                await add(client, Ack.REGION)
            assert (caught.value.reached, caught.value.asked) == (Ack.HEAD, Ack.REGION)
            assert isinstance(caught.value, TimedOut)
            await copy(shop.a, shop.b, "a")
            await shop.told(shop.b)
            new = event()
            await shop.a.tell({"b": Tip(Position(3), ONE)})
            with pytest.raises(NotYetReplicated) as caught:
                await add(client, Ack.CHAIN, new)
            assert (caught.value.reached, caught.value.asked) == (Ack.REGION, Ack.CHAIN)
            await shop.a.tell({"c": Tip(Position(3), ONE)})
            again = await add(client, Ack.CHAIN, new)
            assert again == Appended(
                caught.value.appended.first_position,
                caught.value.appended.last_position,
                caught.value.appended.last_revision,
                ONE,
                repeated=True,
            )

    async def test_one_callers_deadline_leaves_the_others(self, shop: Shop) -> None:
        async with shop.client() as client:
            patient = await begun(add(client, Ack.REGION), shop.a)
            hasty = await begun(add(client, Ack.REGION), shop.a)
            hasty.cancel()
            await asyncio.wait({hasty})
            assert hasty.cancelled()
            await shop.a.tell({"b": Tip(Position(9), ONE)})
            assert (await patient).last_position == 2

    async def test_many_calls_share_one_look(self, shop: Shop) -> None:
        async with shop.client() as client:
            calls = [asyncio.create_task(add(client, Ack.REGION)) for _ in range(50)]
            await shop.a.until_asked("progress", 3)
            assert len(watchers()) == 1
            assert shop.a.asked["progress"] < 10
            await shop.a.tell({"b": Tip(Position(51), ONE)})
            positions = {(await call).last_position for call in calls}
            assert positions == set(range(2, 52))

    async def test_nobody_looks_while_nobody_waits(self, shop: Shop) -> None:
        async with shop.client() as client:
            await shop.a.tell({"b": Tip(Position(9), ONE)})
            await add(client, Ack.REGION)
            async with asyncio.timeout(1):
                while watchers():
                    await asyncio.sleep(0)
                await add(client, Ack.REGION)  # and somebody does again for the next

    async def test_closing_ends_the_looking_and_the_waiting(self, shop: Shop) -> None:
        async with shop.client() as client:
            call = await begun(add(client, Ack.REGION), shop.a)
            await client.close()
            assert watchers() == []
            with pytest.raises(NotYetReplicated, match="the client is closed"):
                await call
            with pytest.raises(Refused, match="closed"):
                await add(client)


class TestTheHeadIsLost:
    async def test_while_waiting_the_events_go_to_the_new_head_once(self, shop: Shop) -> None:
        new = event()
        async with shop.client() as client:
            call = await begun(add(client, Ack.REGION, new), shop.a)
            await shop.a_is_lost(shop.b)
            await shop.b.until_asked("progress", 2)
            assert not call.done()
            await shop.b.tell({"c": Tip(Position(9), TWO)})
            done = await call
        assert (done.epoch, done.repeated) == (TWO, False)
        assert [e.id for e in (await shop.b.get("s")).events] == [new.id]

    async def test_an_event_that_the_new_head_has_is_found_there(self, shop: Shop) -> None:
        async with shop.client() as client:
            call = await begun(add(client, Ack.REGION), shop.a)
            await copy(shop.a, shop.c, "b")
            await shop.a_is_lost(shop.c)
            await shop.c.until_asked("progress", 2)
            await shop.c.tell({"b": Tip(Position(3), TWO)})
            done = await call
        assert (done.token, done.repeated) == (Tip(Position(2), ONE), True)
        assert len((await shop.c.get("s")).events) == 1

    async def test_a_fenced_head_is_believed_no_more(self, shop: Shop) -> None:
        """It still answers, and hears that b holds the event; but b leads a reign of its own by now."""
        async with shop.client() as client:
            call = await begun(add(client, Ack.REGION), shop.a)
            await shop.a.fence(TWO)
            await shop.a.tell({"b": Tip(Position(2), ONE)})
            await shop.b.promote(TWO, uuid4())
            await shop.b.until_asked("progress", 2)
            assert not call.done()
            await shop.b.tell({"c": Tip(Position(9), TWO)})
            assert (await call).epoch == TWO

    async def test_a_revision_that_another_took_meanwhile_is_told(self, shop: Shop) -> None:
        async with shop.client() as client:
            call = await begun(client.add("s", Expect.NO_STREAM, [event()], Ack.REGION), shop.a)
            await shop.b.promote(TWO, uuid4())
            await shop.b.add("s", Expect.NO_STREAM, [event()])
            shop.a.down = True
            with pytest.raises(WrongRevision):
                await call

    async def test_calls_wait_for_a_head_and_go_on_with_it(self, shop: Shop) -> None:
        shop.a.down = True
        async with shop.client() as client:
            call = await begun(add(client), shop.b, "state")
            await shop.b.promote(TWO, uuid4())
            assert (await call).epoch == TWO

    async def test_at_the_deadline_it_is_told_what_was_last_seen(self, shop: Shop) -> None:
        shop.a.down = True
        shop.order = ("b", "c", "unheard-of")
        async with shop.client("abc", deadline_s=0.1) as client:
            with pytest.raises(
                Unavailable, match=r"no node takes writes now.*decided is b in epoch 1"
            ) as caught:
                await add(client)
            assert "same ids" in caught.value.hint
            shop.registry_down = True
            with pytest.raises(Unavailable, match="what is decided can't be read"):
                await add(client)

    async def test_a_node_that_hangs_costs_no_more_than_the_deadline(self, shop: Shop) -> None:
        async with shop.client(deadline_s=0.1) as client:
            await add(client)
            shop.a.answering.clear()
            began = time.monotonic()
            with pytest.raises(Unavailable, match=r"not done within 0\.1 s"):
                await add(client)
            assert time.monotonic() - began < 1

    async def test_all_callers_share_one_search(self, shop: Shop) -> None:
        shop.b.answering.clear()
        async with shop.client() as client:
            calls = [asyncio.create_task(add(client)) for _ in range(50)]
            await shop.b.until_asked("state")
            shop.b.answering.set()
            assert len({(await call).last_position for call in calls}) == 50
            assert shop.a.asked["state"] == shop.b.asked["state"] == 1

    async def test_a_search_whose_caller_gives_up_is_taken_over_by_the_next(self, shop: Shop) -> None:
        shop.b.answering.clear()
        async with shop.client() as client:
            hasty, patient = (asyncio.create_task(add(client)) for _ in range(2))
            await shop.b.until_asked("state")
            hasty.cancel()
            shop.b.answering.set()
            assert (await patient).last_position == 2


class TestBuffer:
    async def test_what_is_too_much_is_refused_at_once_and_the_rest_goes_on(self, shop: Shop) -> None:
        shop.a.down = True
        async with shop.client(buffer_events=10) as client:
            call = await begun(client.add("s", Expect.ANY, events(8)), shop.b, "state")
            with pytest.raises(Overloaded, match="8 events are under way") as caught:
                await client.add("s", Expect.ANY, events(3))
            assert caught.value.retriable
            shop.a.down = False
            assert (await call).last_revision == 7
            assert (await client.add("s", Expect.ANY, events(10))).last_revision == 17

    async def test_an_append_that_never_fits_is_bad_input(self, shop: Shop) -> None:
        async with shop.client(buffer_events=10) as client:
            with pytest.raises(BadInput, match="10 at most"):
                await client.add("s", Expect.ANY, events(11))


class TestReading:
    async def test_latest_is_the_head_wherever_it_has_gone(self, shop: Shop) -> None:
        """The old head answers, too: it follows now, and lags."""
        async with shop.client() as client:
            await add(client)
            assert len((await client.get("s")).events) == 1
            await copy(shop.a, shop.b, "a")
            await shop.b.promote(TWO, uuid4())
            await shop.a.follow_upstream(TWO, "b", Role.TAIL)
            await shop.b.add("s", Expect.ANY, [event()])
            assert len((await client.get("s")).events) == 2
            assert (await client.log(Position(2))).events[-1].epoch == TWO

    async def test_any_is_the_nearest_node_that_answers(self, shop: Shop) -> None:
        await copy(shop.a, shop.b, "a")
        async with shop.client("cba") as client:
            assert (await client.log(recency=Recency.ANY)).events == ()
            shop.c.down = True
            assert len((await client.log(recency=Recency.ANY)).events) == 1
            asked = shop.c.asked["log"]
            await client.log(recency=Recency.ANY)
            assert shop.c.asked["log"] == asked
            shop.b.down = shop.a.down = True
            shop.c.down = False
            assert (await client.log(recency=Recency.ANY)).events == ()

    async def test_any_does_not_wait_for_a_node_that_hangs(
        self, shop: Shop, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("chain.client.ANSWER_S", 0.05)
        shop.c.answering.clear()
        async with shop.client("ca") as client:
            assert len((await client.log(recency=Recency.ANY)).events) == 1

    async def test_a_node_that_was_named_is_the_one_that_is_read(self, shop: Shop) -> None:
        async with shop.client(deadline_s=0.1) as client:
            assert (await client.log(node="b")).events == ()
            shop.b.down = True
            with pytest.raises(Unavailable, match="b is down"):
                await client.log(node="b")
            with pytest.raises(BadInput, match="no node 'x'"):
                await client.log(node="x")

    @pytest.mark.parametrize("where", [{"node": "b"}, {"recency": Recency.ANY}])
    async def test_at_least_waits_until_the_node_has_the_event(
        self, shop: Shop, where: Mapping[str, object]
    ) -> None:
        async with shop.client("bca") as client:
            done = await add(client)
            read: Callable[..., Awaitable[Page]] = client.get
            reading = asyncio.ensure_future(read("s", at_least=done.token, **where))
            await shop.b.until_asked("wait")
            await copy(shop.a, shop.b, "a")
            assert len((await reading).events) == 1

    async def test_at_least_is_bounded(self, shop: Shop) -> None:
        async with shop.client(deadline_s=0.1) as client:
            done = await add(client)
            with pytest.raises(TimedOut, match="b has not come to 2@1"):
                await client.get("s", node="b", at_least=done.token)

    async def test_a_token_of_a_dead_branch_is_diverged_at_once_even_beyond_the_tip(self, shop: Shop) -> None:
        async with shop.client() as client:
            near, far = [(await client.add("s", Expect.ANY, events(5))).token for _ in range(2)]
            await shop.a_is_lost(shop.b)
            await shop.b.add("s", Expect.ANY, events(6))
            for token in (near, far):
                with pytest.raises(Diverged, match="dead branch"):
                    await client.get("s", at_least=token)

    async def test_a_node_on_a_dead_branch_has_only_to_catch_up(self, shop: Shop) -> None:
        """It is the node that is on a dead branch there, not the token."""
        async with shop.client() as client:
            await client.add("s", Expect.ANY, events(5))
            await shop.b.promote(TWO, uuid4())
            await shop.a.follow_upstream(TWO, "b", Role.TAIL)
            done = await add(client)
            reading = asyncio.ensure_future(client.get("s", node="a", at_least=done.token))
            await shop.a.until_asked("wait")
            await shop.a.give_up(START, await MemoryStore.tip(shop.a), TWO, "b")
            await copy(shop.b, shop.a, "b")
            assert len((await reading).events) == 1


class TestFollowing:
    @asynccontextmanager
    async def following(
        self, client: Client, after: Position | Tip = START, **where: Recency
    ) -> AsyncIterator[Callable[[int], Awaitable[list[Position]]]]:
        """Takes so many positions more, page by page."""
        pages = client.follow(after, **where)  # type: ignore[arg-type]

        async def take(count: int) -> list[Position]:
            taken: list[Position] = []
            async with asyncio.timeout(5):
                while len(taken) < count:
                    taken += [e.position for e in (await anext(pages)).events]
            return taken

        try:
            yield take
        finally:
            await pages.aclose()  # type: ignore[attr-defined]

    async def test_it_goes_on_at_another_node_without_a_gap_or_a_repetition(self, shop: Shop) -> None:
        await shop.a.add("s", Expect.ANY, events(9))
        await copy(shop.a, shop.b, "a")
        async with shop.client("bca") as client, self.following(client) as take:
            assert await take(10) == list(range(1, 11))
            await shop.a.add("s", Expect.ANY, events(5))
            await copy(shop.a, shop.c, "b")
            shop.b.down = True
            assert await take(5) == list(range(11, 16))
            shop.c.down = True
            await shop.a.add("s", Expect.ANY, events(5))
            assert await take(5) == list(range(16, 21))

    async def test_a_node_that_lags_behind_what_was_yielded_is_passed_over(self, shop: Shop) -> None:
        await shop.a.add("s", Expect.ANY, events(9))
        await copy(shop.a, shop.b, "a")
        async with shop.client("bca") as client, self.following(client) as take:
            await take(10)
            shop.b.down = True
            await shop.a.add("s", Expect.ANY, events(5))
            assert await take(5) == list(range(11, 16))
            assert "log" not in shop.c.asked

    async def test_it_waits_for_what_comes(self, shop: Shop) -> None:
        async with shop.client() as client, self.following(client) as take:
            await take(1)
            more = asyncio.ensure_future(take(1))
            await shop.a.until_asked("wait")
            await shop.a.add("s", Expect.ANY, events(1))
            assert await more == [2]

    async def test_a_new_reign_goes_on_where_the_old_one_ended(self, shop: Shop) -> None:
        await shop.a.add("s", Expect.ANY, events(4))
        await copy(shop.a, shop.b, "a")
        async with shop.client() as client, self.following(client) as take:
            await take(5)
            await shop.a_is_lost(shop.b)
            assert await take(1) == [6]

    @pytest.mark.parametrize("longer", [0, 20])
    async def test_what_a_lost_head_had_alone_is_diverged(self, shop: Shop, longer: int) -> None:
        """Whether the new head's log has come past that place or not."""
        await shop.a.add("s", Expect.ANY, events(9))
        async with shop.client("ab") as client, self.following(client) as take:
            await take(10)
            await shop.a_is_lost(shop.b)
            if longer:
                await shop.b.add("s", Expect.ANY, events(longer))
            with pytest.raises(Diverged, match="10@1 is on a dead branch") as caught:
                await take(1)
            assert "tail" in caught.value.hint

    async def test_a_branch_that_is_replaced_behind_its_back_is_diverged(self, shop: Shop) -> None:
        """The node never fails: it gives the branch up, and its log grows past that place again."""
        await shop.a.add("s", Expect.ANY, events(9))
        async with shop.client("ab") as client, self.following(client) as take:
            await take(10)
            await shop.b.promote(TWO, uuid4())
            await shop.b.add("s", Expect.ANY, events(20))
            await shop.a.follow_upstream(TWO, "b", Role.TAIL)
            await shop.a.give_up(START, await MemoryStore.tip(shop.a), TWO, "b")
            await copy(shop.b, shop.a, "b")
            with pytest.raises(Diverged, match="10@1"):
                await take(1)

    async def test_a_log_that_is_grown_anew_from_an_older_one_is_left(self, shop: Shop) -> None:
        """It is dense and its events are real, but they are not those behind what was yielded."""
        await shop.a.add("s", Expect.ANY, events(9))
        await shop.b.promote(TWO, uuid4())
        await shop.b.add("s", Expect.ANY, events(4))
        async with shop.client("b", deadline_s=0.1) as client, self.following(client) as take:
            assert await take(5) == [1, 2, 3, 4, 5]
            await shop.b.follow_upstream(THREE, "a", Role.TAIL)
            await shop.b.give_up(START, await MemoryStore.tip(shop.b), THREE, "a")
            await copy(shop.a, shop.b, "a")
            with pytest.raises(Unavailable, match="b does not hold 5@2"):
                await take(1)

    async def test_a_returned_head_with_a_dead_branch_is_no_place_to_go_on(self, shop: Shop) -> None:
        await shop.a.add("s", Expect.ANY, events(9))
        await shop.b.promote(TWO, uuid4())
        await shop.b.add("s", Expect.ANY, events(3))
        await shop.c.follow_upstream(TWO, "b", Role.TAIL)
        await copy(shop.b, shop.c, "b")
        async with shop.client("bac") as client, self.following(client) as take:
            assert await take(4) == [1, 2, 3, 4]
            shop.b.down = True
            more = asyncio.ensure_future(take(1))
            await shop.c.until_asked("wait")
            shop.b.down = False
            await shop.b.add("s", Expect.ANY, events(1))
            await copy(shop.b, shop.c, "b")
            assert await more == [5]

    async def test_a_tip_is_held_to_from_the_start(self, shop: Shop) -> None:
        await shop.a.add("s", Expect.ANY, events(4))
        await copy(shop.a, shop.b, "a")
        last = await MemoryStore.tip(shop.b)
        await shop.b.promote(TWO, uuid4())
        shop.a.down = True
        async with shop.client() as client:
            async with self.following(client, last) as take:
                assert await take(1) == [6]
            async with self.following(client, Tip(Position(6), ONE)) as take:
                with pytest.raises(Diverged):
                    await take(1)
            async with self.following(client, EMPTY) as take:
                assert (await take(1))[0] == 1

    async def test_latest_follows_the_head(self, shop: Shop) -> None:
        async with shop.client("cba") as client, self.following(client, recency=Recency.LATEST) as take:
            assert await take(1) == [1]
            await copy(shop.a, shop.b, "a")
            await shop.b.promote(TWO, uuid4())
            await shop.a.fence(TWO)
            assert await take(1) == [2]
            assert "log" not in shop.c.asked

    async def test_it_ends_when_no_node_is_of_use(self, shop: Shop) -> None:
        async with shop.client(deadline_s=0.1) as client, self.following(client) as take:
            await take(1)
            for node in shop.nodes.values():
                node.down = True
            with pytest.raises(ChainError, match=r"not done within 0\.1 s.*is down"):
                await take(1)


async def test_it_opens_a_store_a_node_and_closes_what_it_was_given() -> None:
    closed: list[str] = []

    class Closing(MemoryStore):
        async def close(self) -> None:
            closed.append(self.name)

    async def close_registry() -> None:
        closed.append("registry")

    client = Client(REGIONS, Closing, on_close=close_registry)
    await client.close()
    assert closed == ["a", "b", "c", "registry"]


async def test_the_name_of_the_head_is_told() -> None:
    store = MemoryStore("a")
    await store.prepare(Identity(CHAIN, "a"))
    await store.promote(ONE, uuid4())
    client = Client({"a": "east"}, lambda _: store)
    assert await client.head() == "a"
    await client.close()
