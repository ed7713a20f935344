"""What the log promises to applications: order, density, optimistic concurrency."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from chain.errors import BadEvent, ChainError, WrongRevision
from chain.event import (
    EPOCH_STREAM,
    LEDGER_STREAM,
    MAX_APPEND_EVENTS,
    MAX_EVENT_BYTES,
    Expect,
    Expected,
    NewEvent,
    Position,
    Revision,
    Tip,
)
from chain.store import Store
from tests.conformance.stores import ONE, event, events, whole

LONGEST = "ä" * 256
"""512 bytes."""


async def test_what_was_added_is_read_again_by_stream_by_position_and_in_the_log(store: Store) -> None:
    new = NewEvent("Placed", b"\x00\xff data", b'{"traceparent": "00-1"}')
    added = await store.add("order-1", Expect.NO_STREAM, [new])

    (got,) = (await store.get("order-1")).events
    assert got == await store.at(added.first_position)
    assert got == (await store.log(Position(1))).events[0]
    assert (got.position, got.epoch, got.stream, got.revision) == (2, 1, "order-1", 0)
    assert (got.id, got.type, got.data, got.metadata) == (new.id, new.type, new.data, new.metadata)
    assert abs(datetime.now(UTC) - got.recorded_at) < timedelta(minutes=1)
    assert added.token == await store.tip() == Tip(Position(2), ONE)


async def test_empty_data_and_metadata_that_is_no_json_are_kept_as_they_are(store: Store) -> None:
    await store.add("s", Expect.ANY, [NewEvent("T", b"", b"{not json \xff"), NewEvent("T")])

    first, second = (await store.get("s")).events
    assert (first.data, first.metadata) == (b"", b"{not json \xff")
    assert (second.data, second.metadata) == (b"", b"")


async def test_an_event_may_have_16_mib_and_not_one_byte_more(store: Store) -> None:
    largest = NewEvent("T", b"x" * (MAX_EVENT_BYTES - 1), b"y")
    added = await store.add("s", Expect.ANY, [largest])
    stored = await store.at(added.first_position)
    assert stored is not None
    assert stored.data == largest.data

    with pytest.raises(BadEvent, match="16,777,217"):
        await store.add("s", Expect.ANY, [NewEvent("T", largest.data + b"z", b"y")])
    assert await store.tip() == added.token


@pytest.mark.parametrize("name", ["x", LONGEST, "with 'quote' and \\ and \n", "🜁"])
async def test_names_of_up_to_512_bytes_are_kept_exactly(store: Store, name: str) -> None:
    await store.add(name, Expect.NO_STREAM, [NewEvent(name)])
    (got,) = (await store.get(name)).events
    assert (got.stream, got.type) == (name, name)


@pytest.mark.parametrize("name", ["", LONGEST + "x", "a\x00b", "\ud800"], ids=repr)
async def test_other_names_are_refused_for_streams_and_types(store: Store, name: str) -> None:
    with pytest.raises(BadEvent):
        await store.add(name, Expect.ANY, [event()])
    with pytest.raises(BadEvent):
        await store.add("s", Expect.ANY, [NewEvent(name)])
    assert (await store.tip()).position == 1


async def test_an_append_holds_1_to_4096_events(store: Store) -> None:
    most = events(MAX_APPEND_EVENTS)
    added = await store.add("s", Expect.NO_STREAM, most)
    assert (added.first_position, added.last_position, added.last_revision) == (2, 4097, 4095)
    assert [got.id for got in await whole(store)][1:] == [new.id for new in most]

    for count in (0, MAX_APPEND_EVENTS + 1):
        with pytest.raises(BadEvent):
            await store.add("s", Expect.ANY, events(count))


@pytest.mark.parametrize("stream", [EPOCH_STREAM, LEDGER_STREAM, "$mine"])
async def test_system_streams_are_closed_to_users(store: Store, stream: str) -> None:
    with pytest.raises(BadEvent, match="system stream"):
        await store.add(stream, Expect.ANY, [event()])


async def test_geochain_may_append_to_them_and_wrap_a_whole_event_in_one(store: Store) -> None:
    wrapped = event(b"x" * (MAX_EVENT_BYTES + 1))
    added = await store.append_system(LEDGER_STREAM, Expect.NO_STREAM, [wrapped])
    assert (await store.append_system(LEDGER_STREAM, Expect.NO_STREAM, [wrapped])).repeated
    assert await store.tip() == added.token


@pytest.mark.parametrize("expected", [Expect.ANY, Expect.NO_STREAM, Revision(-1)])
async def test_a_stream_without_events_may_be_expected(store: Store, expected: Expected) -> None:
    added = await store.add("s", expected, events(2))
    assert (added.last_revision, added.repeated) == (1, False)


@pytest.mark.parametrize("expected", [Expect.ANY, Revision(1)])
async def test_the_streams_last_revision_may_be_expected(store: Store, expected: Expected) -> None:
    await store.add("s", Expect.NO_STREAM, events(2))
    assert (await store.add("s", expected, [event()])).last_revision == 2


@pytest.mark.parametrize("expected", [Expect.NO_STREAM, Revision(0), Revision(2), Revision(10**12)])
async def test_a_wrong_expectation_is_told_where_the_stream_is_and_writes_nothing(
    store: Store, expected: Expected
) -> None:
    added = await store.add("s", Expect.NO_STREAM, events(2))
    with pytest.raises(WrongRevision) as refusal:
        await store.add("s", expected, [event()])
    assert refusal.value.current == 1
    assert await store.tip() == added.token


async def test_a_revision_expected_of_no_stream_is_told_minus_one(store: Store) -> None:
    with pytest.raises(WrongRevision) as refusal:
        await store.add("s", Revision(0), [event()])
    assert refusal.value.current == -1


async def test_an_absurd_expectation_fails_and_hurts_nobody(store: Store) -> None:
    with pytest.raises(ChainError):
        await store.add("s", Revision(2**80), [event()])
    await store.add("s", Expect.NO_STREAM, [event()])


async def test_pages_say_where_to_go_on_and_when_the_end_is_reached(store: Store) -> None:
    await store.add("s", Expect.NO_STREAM, events(5))

    first = await store.get("s", limit=3)
    rest = await store.get("s", Revision(first.next), limit=3)
    assert [e.revision for e in first.events + rest.events] == [0, 1, 2, 3, 4]
    assert (first.at_tip, rest.at_tip, rest.next) == (False, True, 5)

    first = await store.log(limit=4)
    rest = await store.log(Position(first.next), limit=4)
    assert [e.position for e in first.events + rest.events] == [1, 2, 3, 4, 5, 6]
    assert (first.at_tip, rest.at_tip, rest.next) == (False, True, 6)


async def test_beyond_the_end_there_is_nothing(store: Store) -> None:
    assert (await store.get("nobody")).events == ()
    assert (await store.get("nobody", Revision(7))).next == 7
    page = await store.log(Position(99))
    assert (page.events, page.next, page.at_tip) == ((), 99, True)
    assert await store.at(Position(0)) is None
    assert await store.at(Position(2)) is None


async def test_a_stream_does_not_see_streams_of_similar_names(store: Store) -> None:
    for name in ("order-1", "order-10", "Order-1", "order-1 "):
        await store.add(name, Expect.NO_STREAM, [event(name.encode())])
    assert [e.data for e in (await store.get("order-1")).events] == [b"order-1"]


async def test_time_never_runs_backwards_in_the_log(store: Store) -> None:
    for _ in range(20):
        await store.add(str(uuid4()), Expect.NO_STREAM, events(2))
    times = [e.recorded_at for e in await whole(store)]
    assert times == sorted(times)
