"""The ledger: nothing of a dead branch is dropped silently."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chain.errors import BadInput, Corrupt
from chain.event import EPOCH_STREAM, LEDGER_STREAM, Epoch, Event, NewEvent, Position, Revision, new_id
from chain.ledger import (
    KEPT,
    REQUEUED,
    Entry,
    EntryState,
    discarded_event,
    entry_event,
    find,
    fold,
    requeued_event,
)
from chain.store import DeadEvent

THEN = datetime(2026, 1, 1, 12, 30, 59, 123456, tzinfo=UTC)
LATER = datetime(2026, 1, 2, tzinfo=UTC)

PURCHASE = Event(
    position=Position(41),
    epoch=Epoch(3),
    stream="customer-7",
    revision=Revision(5),
    id=UUID("0189aaaa-0000-7000-8000-000000000001"),
    type="Purchased",
    data=b'{"cds": 2}',
    metadata=b"{}",
    recorded_at=THEN,
)


def dead(event: Event = PURCHASE) -> DeadEvent:
    return DeadEvent(event, "east-1", Position(40))


def recorded(events: Sequence[NewEvent]) -> list[Event]:
    """The events as the stream `$ledger` of a log that goes on behind the fork."""
    return [
        PURCHASE._replace(
            position=Position(100 + n),
            epoch=Epoch(4),
            stream=LEDGER_STREAM,
            revision=Revision(n),
            id=event.id,
            type=event.type,
            data=event.data,
            metadata=event.metadata,
            recorded_at=LATER,
        )
        for n, event in enumerate(events)
    ]


def ledger(*events: NewEvent) -> list[Entry]:
    return list(fold(recorded(events)).values())


def kept(event: Event = PURCHASE) -> tuple[NewEvent, Entry]:
    record, _ = entry_event(dead(event))
    (entry,) = ledger(record)
    return record, entry


texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20)
events = st.builds(
    Event,
    st.integers(1, 2**63 - 1).map(Position),
    st.integers(1, 2**31).map(Epoch),
    texts.filter(lambda name: name != LEDGER_STREAM),
    st.integers(0, 2**63 - 1).map(Revision),
    st.uuids(),
    texts,
    st.binary(max_size=200),
    st.binary(max_size=200),
    st.datetimes(timezones=st.just(UTC)),
)


class TestKeeping:
    @settings(deadline=None)
    @given(events)
    def test_a_dead_event_is_kept_whole_whatever_its_bytes(self, event: Event) -> None:
        _, entry = kept(event)
        assert entry.event == event
        assert (entry.node, entry.fork, entry.kept_at) == ("east-1", 40, LATER)
        assert entry.state is EntryState.OPEN

    def test_its_data_is_the_entrys_data_byte_for_byte(self) -> None:
        bytes_ = b"\xff\xfe\x00 no text"
        record, _ = entry_event(dead(PURCHASE._replace(data=bytes_, metadata=bytes_)))
        assert record.data == bytes_

    @given(events)
    def test_the_same_dead_event_is_always_the_same_entry(self, event: Event) -> None:
        first, again = entry_event(dead(event)), entry_event(dead(event))
        assert first == again
        assert first[0].id == first[1] != event.id

    def test_two_deaths_of_one_event_are_two_entries(self) -> None:
        second = PURCHASE._replace(epoch=Epoch(4), position=Position(50))
        assert entry_event(dead())[1] != entry_event(dead(second))[1]

    def test_entries_are_in_the_order_in_which_they_were_kept(self) -> None:
        dying = [PURCHASE._replace(id=new_id(), position=Position(41 + n)) for n in range(5)]
        found = ledger(*(entry_event(dead(event))[0] for event in dying))
        assert [entry.event for entry in found] == dying

    def test_geochains_own_events_are_kept_and_known_as_such(self) -> None:
        assert kept(PURCHASE._replace(stream=EPOCH_STREAM))[1].is_system
        assert not kept()[1].is_system

    def test_what_the_dead_branch_had_in_its_own_ledger_goes_in_as_what_it_was(self) -> None:
        record, entry = kept()
        for own in recorded([record, requeued_event(entry, Position(60), "ada")]):
            again, ident = entry_event(dead(own))
            assert again == NewEvent(own.type, own.data, own.metadata, own.id)
            assert ident == own.id

    def test_an_entry_and_its_decision_survive_a_second_failover(self) -> None:
        record, entry = kept()
        branch = recorded([record, discarded_event(entry, "a test", "ada")])
        (found,) = ledger(*(entry_event(dead(own))[0] for own in branch))
        assert (found.event, found.state, found.reason) == (PURCHASE, EntryState.DISCARDED, "a test")


class TestDeciding:
    def test_a_requeued_event_says_where_it_is_now(self) -> None:
        record, entry = kept()
        (found,) = ledger(record, requeued_event(entry, Position(200), "ada"))
        assert (found.state, found.position) == (EntryState.REQUEUED, 200)
        assert found.event == PURCHASE

    def test_a_discarded_event_says_why_and_is_still_there(self) -> None:
        record, entry = kept()
        (found,) = ledger(record, discarded_event(entry, "sent again by hand", "ada"))
        assert (found.state, found.reason) == (EntryState.DISCARDED, "sent again by hand")
        assert found.event == PURCHASE

    def test_an_event_that_is_back_in_the_log_is_not_discarded_any_more(self) -> None:
        record, entry = kept()
        back, gone = requeued_event(entry, Position(200), "ada"), discarded_event(entry, "no", "bob")
        for order in ([back, gone], [gone, back]):
            (found,) = ledger(record, *order)
            assert (found.state, found.position) == (EntryState.REQUEUED, 200)

    def test_a_decision_made_twice_has_one_id_so_it_is_stored_once(self) -> None:
        _, entry = kept()
        requeues = {requeued_event(entry, Position(p), "ada").id for p in (200, 300)}
        discards = {discarded_event(entry, reason, "ada").id for reason in ("a", "b")}
        assert len(requeues) == len(discards) == 1
        assert requeues != discards

    def test_a_decision_touches_its_own_entry_only(self) -> None:
        record, entry = kept()
        other, _ = kept(PURCHASE._replace(id=new_id(), position=Position(42)))
        states = [e.state for e in ledger(record, other, discarded_event(entry, "no", "ada"))]
        assert states == [EntryState.DISCARDED, EntryState.OPEN]

    def test_who_decided_is_recorded(self) -> None:
        _, entry = kept()
        assert json.loads(discarded_event(entry, "no", "ada").data)["by"] == "ada"


class TestCorruption:
    @pytest.mark.parametrize(
        "event",
        [
            NewEvent(REQUEUED, b'{"entry": "0189aaaa-0000-7000-8000-000000000001", "position": 1}'),
            NewEvent(REQUEUED, b'{"entry": "no id"}'),
            NewEvent(REQUEUED, b'{"entry": 5}'),
            NewEvent(REQUEUED, b"[]"),
            NewEvent(REQUEUED, b"\xff"),
            NewEvent(KEPT, b"", b""),
            NewEvent(KEPT, b"", b"{}"),
            NewEvent(KEPT, b"", b"[]"),
        ],
        ids=lambda event: f"{event.type} {event.data!r} {event.metadata!r}",
    )
    def test_an_entry_that_can_not_be_read_is_not_passed_over(self, event: NewEvent) -> None:
        with pytest.raises(Corrupt, match=r"\$ledger can't be read at revision 1"):
            ledger(kept()[0], event)


class TestFinding:
    def test_an_entry_is_found_by_the_beginning_of_its_id_or_its_events(self) -> None:
        entry = kept()[1]
        assert find([entry], str(entry.id)[:8]) == entry
        assert find([entry], "0189aaaa") == entry
        assert find([entry], str(PURCHASE.id)) == entry

    def test_what_is_not_there_says_so_and_where_to_look(self) -> None:
        with pytest.raises(BadInput, match="no entry 'zz'") as caught:
            find([kept()[1]], "zz")
        assert "ledger list" in caught.value.hint

    def test_a_beginning_that_fits_two_is_not_guessed_at(self) -> None:
        other = PURCHASE._replace(id=UUID("0189aaaa-0000-7000-8000-000000000002"))
        entries = [kept()[1], kept(other)[1]]
        with pytest.raises(BadInput, match="2 entries begin with '0189'"):
            find(entries, "0189")
        assert find(entries, str(other.id)).event == other
