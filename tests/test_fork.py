"""Forks and the encoding, held against models by hypothesis."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chain.encoding import decode, encode
from chain.errors import Corrupt
from chain.event import EPOCH_STREAM, Epoch, Event, Position, Revision, Tip
from chain.history import History, fork, read_history, reign_event

_NODES = ("a", "b", "c")


@dataclass(slots=True)
class Chain:
    """A model of the real thing: logs of nodes, written by heads, copied as prefixes, cut at forks."""

    logs: dict[str, list[Event]]
    heads: set[str] = field(default_factory=set)
    epoch: int = 0
    events: int = 0

    def write(self, node: str, count: int) -> None:
        """A head goes on in its reign, whether or not there is a newer one elsewhere."""
        if node in self.heads:
            for _ in range(count):
                self._append(node, self.logs[node][-1].epoch, "s", UUID(int=self._next()), b"")

    def promote(self, node: str, *, same_number: bool) -> None:
        """Its next epoch; with `same_number` perhaps one that was granted before, as if restored."""
        known = max((e.epoch for e in self.logs[node]), default=0)
        self.epoch = known + 1 if same_number else max(self.epoch, known) + 1
        event = reign_event(Epoch(self.epoch), UUID(int=self._next()), node)
        self._append(node, Epoch(self.epoch), EPOCH_STREAM, event.id, event.data)
        self.heads.add(node)

    def copy(self, source: str, target: str, count: int) -> None:
        """The target gives up its dead branch and takes some of what the source has beyond."""
        if source != target:
            common = shared(self.logs[source], self.logs[target])
            del self.logs[target][common:]
            self.logs[target] += self.logs[source][common : common + count]
            self.heads.discard(target)

    def history(self, node: str) -> History:
        log = self.logs[node]
        tip = Tip(Position(len(log)), log[-1].epoch if log else Epoch(0))
        return read_history(self.reigns(node), tip)

    def reigns(self, node: str) -> list[Event]:
        return [e for e in self.logs[node] if e.stream == EPOCH_STREAM]

    def _append(self, node: str, epoch: Epoch, stream: str, ident: UUID, data: bytes) -> None:
        log = self.logs[node]
        revision = Revision(sum(e.stream == stream for e in log))
        position = Position(len(log) + 1)
        log.append(
            Event(position, epoch, stream, revision, ident, "T", data, b"", datetime(2026, 1, 1, tzinfo=UTC))
        )

    def _next(self) -> int:
        self.events += 1
        return self.events


def shared(one: list[Event], other: list[Event]) -> int:
    """The length of the longest common prefix, by looking at every event."""
    length = 0
    for ours, theirs in zip(one, other, strict=False):
        if ours != theirs:
            break
        length += 1
    return length


_node = st.sampled_from(_NODES)
_step = st.one_of(
    st.tuples(st.just("write"), _node, st.integers(1, 3)),
    st.tuples(st.just("promote"), _node, st.booleans()),
    st.tuples(st.just("copy"), _node, _node, st.integers(0, 6)),
)


@given(st.lists(_step, min_size=3, max_size=40))
def test_the_fork_is_the_longest_common_prefix(steps: list[tuple[object, ...]]) -> None:
    chain = Chain({node: [] for node in _NODES})
    for step in steps:
        match step:
            case ("write", str(node), int(count)):
                chain.write(node, count)
            case ("promote", str(node), bool(same)):
                chain.promote(node, same_number=same)
            case ("copy", str(source), str(target), int(count)):
                chain.copy(source, target, count)
    for one in _NODES:
        for other in _NODES:
            expected = shared(chain.logs[one], chain.logs[other])
            assert fork(chain.history(one), chain.history(other)) == expected


def test_promotions_that_share_a_number_are_not_taken_for_one() -> None:
    chain = Chain({node: [] for node in _NODES})
    chain.promote("a", same_number=False)
    chain.copy("a", "b", 9)
    for node in ("a", "b"):
        chain.promote(node, same_number=True)
    ours, theirs = chain.history("a"), chain.history("b")
    assert ours.tip == theirs.tip
    assert fork(ours, theirs) == 1


def test_reigns_that_do_not_grow_are_corrupt() -> None:
    chain = Chain({node: [] for node in _NODES})
    chain.promote("a", same_number=False)
    (event,) = chain.reigns("a")
    with pytest.raises(Corrupt):
        read_history([event, event], Tip(Position(2), Epoch(1)))


_int8 = st.integers(-(2**63), 2**63 - 1)
_text = st.text(max_size=20)
_event = st.builds(
    Event,
    position=_int8.map(Position),
    epoch=_int8.map(Epoch),
    stream=_text,
    revision=_int8.map(Revision),
    id=st.uuids(),
    type=_text,
    data=st.binary(max_size=40),
    metadata=st.binary(max_size=40),
    recorded_at=st.datetimes(timezones=st.just(UTC)),
)
_events = st.lists(_event, max_size=5)
_ANY_EVENT = Event(
    Position(1), Epoch(1), "s", Revision(0), UUID(int=1), "T", b"", b"", datetime(2026, 1, 1, tzinfo=UTC)
)


@given(_events)
def test_what_is_decoded_is_what_was_encoded(events: list[Event]) -> None:
    assert decode(encode(events)) == tuple(events)


@given(_events, st.integers(1, 200))
def test_it_does_not_matter_how_the_bytes_are_cut(events: list[Event], size: int) -> None:
    data = b"".join(encode(events))
    assert decode([data[at : at + size] for at in range(0, len(data), size)]) == tuple(events)


@given(_events, st.data())
def test_spoiled_bytes_are_corrupt_or_other_events_and_never_crash(
    events: list[Event], data: st.DataObject
) -> None:
    whole = b"".join(encode(events))
    at = data.draw(st.integers(0, len(whole)))
    cut = data.draw(st.integers(0, 30))
    spoiled = whole[:at] + data.draw(st.binary(max_size=30)) + whole[at + cut :]
    try:
        decoded = decode([spoiled])
    except Corrupt:
        return
    assert b"".join(encode(decoded)) == spoiled


@given(st.binary(max_size=200))
def test_noise_is_corrupt(noise: bytes) -> None:
    with pytest.raises(Corrupt):
        decode([noise])


def test_a_time_that_is_none_is_corrupt() -> None:
    header, trailer = encode(())
    row = encode([_ANY_EVENT])[1]
    with pytest.raises(Corrupt):
        decode([header, row[:-8] + (2**63 - 1).to_bytes(8, "big"), trailer])
