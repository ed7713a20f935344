"""How late events are is measured whatever the clocks say, and a canary shows it where nobody writes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from chain.event import Event, Expect, NewEvent, Position
from chain.memory import MemoryStore
from chain.store import Store
from chain.tasks import end
from replicator.canary import CANARY_STREAM, sing
from replicator.latency import BUCKETS_S, Clock, LatencyMeter, Window
from replicator.throttle import BRAKE, MAX_PAUSE_S, Throttle
from replicator.verifier import Verifier
from replicator.verify import verify_pair
from tests.conformance.stores import CHAIN, copy
from tests.planted import COUNT, NODES, filled
from tests.test_verifier import FAST, registry_of

WAIT_S = 20.0


def skewed(seconds: float) -> Callable[[], datetime]:
    return lambda: datetime.now(UTC) + timedelta(seconds=seconds)


async def chain_of(skews: tuple[float, ...] = (0, 0, 0)) -> dict[str, Store]:
    stores: dict[str, Store] = {
        node: MemoryStore(node, clock=skewed(skew)) for node, skew in zip(NODES, skews, strict=True)
    }
    await filled(stores)
    return stores


def meter_of(stores: dict[str, Store], node: str) -> LatencyMeter:
    return LatencyMeter(node, stores[node], lambda: ("a", stores["a"]), {}, Window(60.0))


# Clocks.


@given(there=st.floats(0, 1), back=st.floats(0, 1), ahead=st.floats(-100, 100), drifts=st.floats(0, 0.01))
def test_a_clock_is_as_far_ahead_as_is_said_give_or_take(
    there: float, back: float, ahead: float, drifts: float
) -> None:
    clock = Clock()
    clock.read(10.0, 10.0 + there + back + drifts, 10.0 + there + ahead)
    offset = clock.offset()
    assert offset is not None
    assert abs(offset.ahead_s - ahead) <= offset.uncertain_s + 1e-9


def test_of_many_readings_the_shortest_round_trip_counts_and_old_ones_do_not() -> None:
    clock = Clock()
    clock.read(0.0, 1.0, 5.0)
    clock.read(2.0, 2.1, 7.05)
    clock.read(3.0, 4.0, 8.9)
    best = clock.offset()
    assert best is not None
    assert (round(best.ahead_s, 6), round(best.uncertain_s, 6)) == (5.0, 0.05)
    clock.read(100.0, 101.0, 105.5)
    later = clock.offset()
    assert later is not None
    assert later.uncertain_s == 0.5


# Windows.


@given(samples=st.lists(st.floats(0, 100), min_size=1, max_size=200))
def test_percentiles_are_exact(samples: list[float]) -> None:
    window = Window(60.0)
    for sample in samples:
        window.add(0.0, sample)
    summary = window.summary(1.0)
    assert summary is not None
    assert (summary.count, summary.max_s) == (len(samples), max(samples))
    for percent, value in ((50, summary.p50_s), (95, summary.p95_s), (99, summary.p99_s)):
        assert value in samples
        assert sum(s <= value for s in samples) >= percent * len(samples) / 100
        assert sum(s < value for s in samples) < percent * len(samples) / 100
    assert sum(window.counts) == len(samples)
    assert [sum(a < s <= b for s in samples) for a, b in pairwise(BUCKETS_S)] == window.counts[1:-1]


def test_a_window_forgets() -> None:
    window = Window(60.0)
    window.add(0.0, 9.0)
    window.add(50.0, 1.0)
    summary = window.summary(61.0)
    assert summary is not None
    assert (summary.count, summary.max_s) == (1, 1.0)
    assert window.summary(200.0) is None


# Measuring.


async def test_latency_is_measured_although_the_clocks_are_hours_apart() -> None:
    stores = await chain_of((3600.0, -7200.0, 0.0))
    meter = meter_of(stores, "b")
    measuring = asyncio.create_task(meter.run())
    try:
        async with asyncio.timeout(WAIT_S):
            while meter.lateness().summary is None:
                await stores["a"].add("s", Expect.ANY, [NewEvent("T")])
                await asyncio.sleep(0.05)
                await copy(stores["a"], stores["b"], "a")
                await asyncio.sleep(0.05)
    finally:
        await end(measuring)
    late = meter.lateness()
    assert late.summary is not None
    assert late.clock is not None
    assert 0.04 < late.summary.p50_s < WAIT_S  # what it took, not what the clocks are apart
    assert abs(late.clock.ahead_s + 10_800) <= late.clock.uncertain_s + 0.01
    assert not late.late(WAIT_S)


async def test_an_event_that_does_not_come_is_late_and_named() -> None:
    stores = await chain_of()
    events = [NewEvent("T") for _ in range(5)]
    await stores["a"].add("s", Expect.ANY, events)
    await copy(stores["a"], stores["b"], "a", limit=2)  # b has it all, c nothing of it
    verifier = Verifier(CHAIN, await registry_of(), stores.__getitem__, replace(FAST, objective_s=0.02))
    await asyncio.sleep(0.05)
    await verifier.pass_once()
    b, c = verifier.lateness()
    assert (b.missing, b.late(0.02)) == (None, False)
    assert (c.missing, c.late(0.02)) == (COUNT + 1, True)
    assert c.missing_s >= 0.05
    by_command = await verify_pair("b", stores["b"], "c", stores["c"])
    assert by_command.missing is not None
    assert by_command.missing.position == COUNT + 1
    assert by_command.missing.age_s >= 0.05


# The canary.


async def test_a_canary_sings_only_on_a_head_where_nobody_writes() -> None:
    stores = await chain_of()
    tip = (await stores["a"].tip()).position
    singing = [asyncio.create_task(sing(stores[node], 0.01)) for node in ("a", "b")]
    try:
        async with asyncio.timeout(WAIT_S):
            while (await stores["a"].tip()).position < tip + 2:
                await asyncio.sleep(0.01)
        assert (await stores["b"].tip()).position == tip
    finally:
        for task in singing:
            await end(task)
    written = (await stores["a"].log(Position(tip))).events
    assert {event.stream for event in written} == {CANARY_STREAM}


async def test_a_canary_is_silent_while_others_write() -> None:
    stores = await chain_of()
    written: list[Event] = []
    real = stores["a"].state

    async def written_in_between() -> object:
        await stores["a"].add("s", Expect.ANY, [NewEvent("T")])
        state = await real()
        written.extend((await stores["a"].log(Position(COUNT))).events)
        return state

    stores["a"].state = written_in_between  # type: ignore[assignment,method-assign]
    singing = asyncio.create_task(sing(stores["a"], 0.001))
    async with asyncio.timeout(WAIT_S):
        while len(written) < 20:
            await asyncio.sleep(0.01)
    await end(singing)
    assert {event.stream for event in written} == {"s"}


# The throttle.


def test_reading_takes_its_share_and_less_while_a_node_is_under_strain() -> None:
    throttle = Throttle(0.25)
    assert throttle.pause_s(0.1) == 0.1 * 3
    throttle.behind = True
    assert throttle.pause_s(0.1) == 0.1 * (3 + BRAKE - 1)
    throttle.behind = False
    answers_s = (0.002, 0.003, 0.002, 0.2, 0.003)
    assert [slow_after(throttle, answer_s) for answer_s in answers_s] == [False] * 3 + [True, False]
    assert Throttle(1.0).pause_s(5.0) == 0
    assert Throttle(0.01).pause_s(60.0) == MAX_PAUSE_S


def slow_after(throttle: Throttle, answer_s: float) -> bool:
    throttle.answered(answer_s)
    return throttle.slow
