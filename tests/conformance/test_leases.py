"""The lease's record in the registry: compare-and-set, whatever keeps it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable

import pytest

from chain.errors import LeaseLost
from chain.event import Epoch
from chain.lease import NOBODY, Lease, Leases
from chain.memory import MemoryLeases
from chain.postgres import PostgresLeases, PostgresStore
from chain.registry import REGISTRY
from failover.local.postgres import LocalPostgres
from tests.conformance.stores import CHAIN, ONE, TWO, MemoryStores, PostgresStores, Stores
from tests.conformance.washed import Databases, WashedStores
from tests.databases import connect

THREE = Epoch(3)
DURATIONS = (0.1, 0.4, 3.0, None)

Opened = Callable[[], Leases]
"""Opens the same leases once more, as another process would."""


async def opener(stores: Stores) -> tuple[Opened, list[PostgresStore]]:
    if not isinstance(stores, PostgresStores):
        leases = MemoryLeases()
        return (lambda: leases), []
    first = await stores.bare("registry")
    await first.prepare(REGISTRY)
    dsn = stores.dsn(first)
    opened: list[PostgresStore] = []

    def again() -> Leases:
        opened.append(PostgresStore(dsn, name="registry"))
        return PostgresLeases(opened[-1])

    return again, opened


@pytest.fixture(scope="module")
def databases(postgres_server: LocalPostgres) -> Databases:
    return Databases(postgres_server)


@pytest.fixture
async def each_kind(databases: Databases) -> AsyncIterator[dict[str, Stores]]:
    washed = WashedStores(databases)
    yield {"memory": MemoryStores(), "postgres": washed}
    await washed.close()


@pytest.fixture
async def opened(stores: Stores) -> AsyncIterator[Opened]:
    again, made = await opener(stores)
    yield again
    for store in made:
        await store.close()


@pytest.fixture
def leases(opened: Opened) -> Leases:
    return opened()


async def test_there_is_none_at_first(leases: Leases) -> None:
    assert await leases.read(CHAIN) is None
    with pytest.raises(LeaseLost):
        await leases.renew(CHAIN, ONE, "a", 3.0)
    assert await leases.read(CHAIN) is None


@pytest.mark.parametrize("duration_s", DURATIONS)
async def test_what_was_taken_is_read(leases: Leases, duration_s: float | None) -> None:
    taken = await leases.take(CHAIN, ONE, "a", duration_s, None)
    assert (taken.epoch, taken.holder, taken.duration_s) == (ONE, "a", duration_s)
    assert await leases.read(CHAIN) == taken


async def test_a_renewal_counts_and_changes_the_duration(leases: Leases) -> None:
    seen = [await leases.take(CHAIN, ONE, "a", 3.0, None)]
    for duration_s in (3.0, 3.0, None, 0.2):
        renewed = await leases.renew(CHAIN, ONE, "a", duration_s)
        assert renewed == await leases.read(CHAIN)
        assert (renewed.epoch, renewed.holder, renewed.duration_s) == (ONE, "a", duration_s)
        assert renewed not in seen
        seen.append(renewed)


@pytest.mark.parametrize(("epoch", "holder"), [(ONE, "a"), (THREE, "a"), (TWO, "b"), (TWO, NOBODY)])
async def test_only_its_holder_in_its_epoch_renews(leases: Leases, epoch: Epoch, holder: str) -> None:
    taken = await leases.take(CHAIN, TWO, "a", 3.0, None)
    with pytest.raises(LeaseLost):
        await leases.renew(CHAIN, epoch, holder, 3.0)
    assert await leases.read(CHAIN) == taken


async def test_each_chain_has_its_own(leases: Leases) -> None:
    mine = await leases.take(CHAIN, ONE, "a", 3.0, None)
    other = await leases.take("payments", THREE, "x", 0.5, None)
    await leases.renew("payments", THREE, "x", 0.5)
    assert await leases.read(CHAIN) == mine
    with pytest.raises(LeaseLost):
        await leases.renew(CHAIN, THREE, "x", 0.5)
    with pytest.raises(LeaseLost):
        await leases.take(CHAIN, THREE, "b", 3.0, other)


async def test_it_is_taken_only_as_it_was_seen(leases: Leases) -> None:
    first = await leases.take(CHAIN, ONE, "a", 3.0, None)
    second = await leases.renew(CHAIN, ONE, "a", 3.0)
    unlike = [
        None,
        first,
        Lease(ONE, "b", second.renewals, 3.0),
        Lease(TWO, "a", second.renewals, 3.0),
        Lease(ONE, "a", second.renewals + 1, 3.0),
    ]
    for seen in unlike:
        with pytest.raises(LeaseLost):
            await leases.take(CHAIN, TWO, "b", 3.0, seen)
        assert await leases.read(CHAIN) == second
    taken = await leases.take(CHAIN, TWO, "b", 3.0, second)
    assert (taken.epoch, taken.holder) == (TWO, "b")
    with pytest.raises(LeaseLost):
        await leases.renew(CHAIN, ONE, "a", 3.0)


async def test_a_record_that_is_gone_is_not_what_was_seen(leases: Leases) -> None:
    with pytest.raises(LeaseLost):
        await leases.take(CHAIN, TWO, "b", 3.0, Lease(ONE, "a", 7, 3.0))
    assert await leases.read(CHAIN) is None


async def test_an_old_epoch_never_comes_back(leases: Leases) -> None:
    now = await leases.take(CHAIN, TWO, "b", 3.0, None)
    for holder in ("a", "b", NOBODY):
        with pytest.raises(LeaseLost):
            await leases.take(CHAIN, ONE, holder, 3.0, now)
    ended = await leases.take(CHAIN, TWO, NOBODY, 3.0, now)
    with pytest.raises(LeaseLost):
        await leases.take(CHAIN, ONE, "a", 3.0, ended)
    assert await leases.read(CHAIN) == ended


async def test_between_two_heads_it_is_nobodys(leases: Leases) -> None:
    a = await leases.take(CHAIN, ONE, "a", 3.0, None)
    ended = await leases.take(CHAIN, TWO, NOBODY, 3.0, a)
    assert ended.holder == NOBODY
    with pytest.raises(LeaseLost):
        await leases.renew(CHAIN, ONE, "a", 3.0)
    b = await leases.take(CHAIN, TWO, "b", 3.0, ended)
    assert len({a, ended, b}) == 3


async def test_taken_again_by_the_same_it_still_differs(leases: Leases) -> None:
    """Else an observer who missed what lay in between would go on counting."""
    seen = [await leases.take(CHAIN, ONE, "a", 3.0, None)]
    for holder in (NOBODY, "a", NOBODY, "a"):
        seen.append(await leases.take(CHAIN, ONE, holder, 3.0, seen[-1]))
    assert len(set(seen)) == len(seen)


@pytest.mark.parametrize("exists", [False, True], ids=["the first", "from another"])
async def test_of_many_who_take_it_at_once_one_wins(opened: Opened, exists: bool) -> None:
    many = [opened() for _ in range(5)]
    seen = await many[0].take(CHAIN, ONE, "a", 3.0, None) if exists else None
    await asyncio.gather(*(each.read(CHAIN) for each in many))  # all are connected

    outcomes = await asyncio.gather(
        *(each.take(CHAIN, TWO, f"n{n}", 3.0, seen) for n, each in enumerate(many * 3)),
        return_exceptions=True,
    )
    won = [outcome for outcome in outcomes if isinstance(outcome, Lease)]
    assert len(won) == 1
    assert {type(o) for o in outcomes} == {Lease, LeaseLost}
    assert await many[1].read(CHAIN) == won[0]


async def test_a_renewal_and_a_taking_never_both_hold(opened: Opened) -> None:
    head, other = opened(), opened()
    for n in range(10):
        before = await head.read(CHAIN)
        seen = await head.take(CHAIN, Epoch(2 * n + 1), "a", 3.0, before)
        renewed, taken = await asyncio.gather(
            head.renew(CHAIN, seen.epoch, "a", 3.0),
            other.take(CHAIN, Epoch(2 * n + 2), NOBODY, 3.0, seen),
            return_exceptions=True,
        )
        assert isinstance(renewed, Lease) != isinstance(taken, Lease)
        assert {type(renewed), type(taken)} == {Lease, LeaseLost}
        assert await other.read(CHAIN) in (renewed, taken)


async def test_concurrent_renewals_all_count(opened: Opened) -> None:
    many = [opened() for _ in range(3)]
    await many[0].take(CHAIN, ONE, "a", 3.0, None)
    renewed = await asyncio.gather(*(each.renew(CHAIN, ONE, "a", 3.0) for each in many * 4))
    assert len(set(renewed)) == 12
    last = await many[0].read(CHAIN)
    assert last is not None
    assert last.renewals == max(lease.renewals for lease in renewed)


async def test_who_comes_later_reads_what_was_kept(opened: Opened) -> None:
    await opened().take(CHAIN, ONE, "a", 3.0, None)
    renewed = await opened().renew(CHAIN, ONE, "a", 0.5)
    assert await opened().read(CHAIN) == renewed


async def test_in_postgres_it_waits_for_the_disk(each_kind: dict[str, Stores]) -> None:
    """A registry that forgot a renewal, or a taking, in a crash would give the same lease twice."""
    stores = each_kind["postgres"]
    assert isinstance(stores, PostgresStores)
    store = await stores.bare("registry")
    await store.prepare(REGISTRY)
    behind = await connect(stores.dsn(store))
    await behind.execute("set synchronous_commit = off")
    for call in (
        "select chain.take_lease('c', 1, 'a', 100, null, null, null)",
        "select chain.renew_lease('c', 1, 'a', 100)",
        "select chain.take_lease('c', 2, 'b', 100, 1, 'a', 1)",
    ):
        async with behind.transaction():
            await behind.execute(call)
            assert await behind.fetchval("show synchronous_commit") == "on", call
    await behind.close()


@pytest.mark.parametrize("seed", range(3))
async def test_both_kinds_answer_the_same_and_every_record_is_new(
    each_kind: dict[str, Stores], seed: int
) -> None:
    """Any sequence of verbs: the adapters agree, epochs never fall, and no record was there before."""
    told: list[list[Lease | None]] = []
    for kind in each_kind.values():
        again, made = await opener(kind)
        told.append(await play(again(), random.Random(seed)))
        for store in made:
            await store.close()
    assert told[0] == told[1]
    records = [lease for lease in told[0] if lease is not None]
    assert len(records) > 20
    assert len(set(records)) == len(records)
    assert [lease.epoch for lease in records] == sorted(lease.epoch for lease in records)


async def play(leases: Leases, chance: random.Random) -> list[Lease | None]:
    """Each verb's answer, None for a refusal. What is `seen` is sometimes old."""
    answers: list[Lease | None] = []
    seen: list[Lease | None] = [None]
    for _ in range(120):
        epoch = Epoch(chance.randint(1, 6))
        holder = chance.choice(["a", "b", NOBODY])
        duration_s = chance.choice(DURATIONS)
        now = seen[-1]
        try:
            if chance.random() < 0.5:
                if now is not None and chance.random() < 0.7:
                    epoch, holder = now.epoch, now.holder
                answer = await leases.renew(CHAIN, epoch, holder, duration_s)
            else:
                if now is not None and chance.random() < 0.7:
                    epoch = Epoch(now.epoch + chance.choice([0, 0, 0, 1]))
                answer = await leases.take(CHAIN, epoch, holder, duration_s, chance.choice([*seen[-3:], now]))
        except LeaseLost:
            answers.append(None)
            assert await leases.read(CHAIN) == now
        else:
            answers.append(answer)
            seen.append(answer)
    return answers
