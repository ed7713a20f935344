"""What a caller may rely on who does not know whether the first try came through."""

from __future__ import annotations

from dataclasses import replace

import pytest

from chain.errors import BadEvent, WrongRevision
from chain.event import Expect, Expected, Revision
from chain.store import Store
from tests.conformance.stores import event, events


@pytest.mark.parametrize("expected", [Expect.ANY, Expect.NO_STREAM, Revision(-1)])
async def test_the_same_append_again_gives_the_first_result(store: Store, expected: Expected) -> None:
    new = events(3)
    first = await store.add("s", expected, new)
    assert await store.add("s", expected, new) == replace(first, repeated=True)


async def test_it_does_so_after_the_stream_and_the_log_moved_on(store: Store) -> None:
    await store.add("s", Expect.NO_STREAM, events(2))
    new = events(3)
    first = await store.add("s", Revision(1), new)
    await store.add("other", Expect.ANY, events(4))
    await store.add("s", Revision(4), events(2))

    again = replace(first, repeated=True)
    assert await store.add("s", Revision(1), new) == again
    assert await store.add("s", Expect.ANY, new) == again


async def test_the_same_events_at_another_revision_are_a_conflict(store: Store) -> None:
    new = events(2)
    await store.add("s", Expect.NO_STREAM, new)
    with pytest.raises(WrongRevision) as refusal:
        await store.add("s", Revision(1), new)
    assert refusal.value.current == 1


@pytest.mark.parametrize("expected", [Expect.ANY, Expect.NO_STREAM, Revision(1)])
async def test_a_partial_repeat_is_a_conflict_and_writes_nothing(store: Store, expected: Expected) -> None:
    old = events(2)
    first = await store.add("s", Expect.NO_STREAM, old)
    for partial in ([old[0], event()], [event(), old[1]], [*old, event()], [old[1]], old[::-1]):
        if len(partial) == 1 and expected is not Expect.NO_STREAM:
            continue  # one event of two, alone, where it stands: that is no conflict
        with pytest.raises(WrongRevision):
            await store.add("s", expected, partial)
    assert await store.tip() == first.token


@pytest.mark.parametrize("expected", [Expect.ANY, Expect.NO_STREAM])
async def test_an_id_of_another_stream_is_a_conflict(store: Store, expected: Expected) -> None:
    new = event()
    first = await store.add("s", Expect.ANY, [new])
    with pytest.raises(WrongRevision):
        await store.add("t", expected, [new])
    assert await store.tip() == first.token


async def test_events_that_came_in_two_appends_are_not_one_append_if_others_lie_between(
    store: Store,
) -> None:
    one, two = events(2)
    await store.add("s", Expect.NO_STREAM, [one])
    await store.add("elsewhere", Expect.NO_STREAM, [event()])
    await store.add("s", Revision(0), [two])
    with pytest.raises(WrongRevision):
        await store.add("s", Expect.NO_STREAM, [one, two])


async def test_an_id_twice_in_one_append_is_refused(store: Store) -> None:
    twice = event()
    with pytest.raises(BadEvent, match="twice"):
        await store.add("s", Expect.ANY, [twice, event(), twice])
