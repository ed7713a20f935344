"""Verification finds every planted defect, on every node, at its position, and names what differs."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from uuid import uuid4

import pytest

from chain.event import Epoch, Event, Expect, NewEvent, Position, Revision
from chain.memory import MemoryStore
from replicator import verify
from replicator.comparison import MAX_REPORTED
from replicator.findings import Finding, Kind, as_json, compare
from replicator.verify import Verdict, verify_chain, verify_pair
from tests.conformance.stores import ONE
from tests.planted import AT, COUNT, DEFECTS, NODES, Chain, Defect, chain, dsns, filled

__all__ = ["chain", "dsns"]  # fixtures


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "SETTLES_S", 0.01)


async def test_equal_logs_are_equal(chain: Chain) -> None:
    verified = await verify_chain(chain.stores)
    assert [(v.verdict, v.first, v.last, v.findings) for v in verified] == [(Verdict.OK, 1, COUNT, ())] * 2


@pytest.mark.parametrize("node", NODES)
@pytest.mark.parametrize("defect", DEFECTS, ids=lambda d: d.name)
async def test_a_planted_defect_is_found_where_it_is(chain: Chain, defect: Defect, node: str) -> None:
    await chain.run(node, defect.sql)
    expected = defect.expected(node)
    verified = await verify_chain(chain.stores)
    found = tuple(frozenset((f.position, f.kind) for f in v.findings) for v in verified)
    assert found == expected
    assert [v.verdict for v in verified] == [Verdict.DIFF if some else Verdict.OK for some in expected]
    for finding in (f for v in verified for f in v.findings):
        if defect.columns:
            assert finding.columns == defect.columns
        if finding.kind is Kind.STRAY:
            assert finding.node == node
        json.dumps(as_json(finding))


async def test_both_values_are_told(chain: Chain) -> None:
    await chain.run("b", f"update chain.event set data = '\\xff' where position = {AT}")
    found = (await verify_pair("a", chain.stores["a"], "b", chain.stores["b"])).findings
    (told,) = [as_json(f) for f in found]
    assert (told["position"], told["kind"], told["columns"]) == (AT, "altered", ["data"])
    assert (told["source"]["data"], told["target"]["data"]) == ("data 75", "0xff")
    assert str(found[0]) == "77 altered (data)"


async def test_a_range_that_the_target_has_nothing_of_is_not_ok(chain: Chain) -> None:
    await chain.run("b", f"update chain.node set tip_position = {AT}")
    found = await verify_pair("a", chain.stores["a"], "b", chain.stores["b"], first=Position(AT + 2))
    assert (found.verdict, found.reason) == (Verdict.UNKNOWN, f"b has not come to {AT + 2} yet")


async def test_a_hole_on_both_sides_is_found(chain: Chain) -> None:
    for node in NODES:
        await chain.run(node, f"delete from chain.event where position = {AT}")
    verified = await verify_chain(chain.stores)
    assert [[(f.position, f.kind) for f in v.findings] for v in verified] == [[(AT, Kind.MISSING)]] * 2


async def test_no_more_are_named_than_can_be_read(chain: Chain) -> None:
    await chain.run("b", "update chain.event set data = 'forged' where position > 40")
    found = (await verify_pair("a", chain.stores["a"], "b", chain.stores["b"])).findings
    assert [f.position for f in found] == list(range(41, 41 + MAX_REPORTED))


async def test_a_difference_that_is_gone_a_moment_later_is_none() -> None:
    """A dead branch that is being given up."""
    one, other = MemoryStore("a"), MemoryStore("b")
    await filled({"a": one, "b": other})
    await one.add("s", Expect.ANY, [NewEvent("Alive", b"", b"")])
    other._log.extend([_dead_event()])
    looks = 0
    tip = other.tip

    async def heal() -> object:
        nonlocal looks
        looks += 1
        if looks == 2:
            other._log.truncate(Position(COUNT))
        return await tip()

    other.tip = heal  # type: ignore[assignment]
    verified = await verify_pair("a", one, "b", other)
    assert (verified.verdict, looks) == (Verdict.OK, 2)


def test_an_event_that_stands_elsewhere_has_moved() -> None:
    one, two, three = (_event(p) for p in (1, 2, 3))
    moved = [_event(2, like=one), _event(3, like=two)]
    found = compare([one, two, three], moved, [Position(p) for p in (1, 2, 3)])
    assert [(f.position, f.kind) for f in found] == [(1, Kind.MISSING), (2, Kind.MOVED), (3, Kind.REPLACED)]
    assert str(found[0]) == "1 missing"
    assert str(Finding(Position(9), Kind.STRAY, node="b")) == "9 stray on b"


def _event(position: int, *, like: Event | None = None) -> Event:
    return Event(
        Position(position),
        Epoch(1),
        "s",
        Revision(position - 1),
        like.id if like is not None else uuid4(),
        "T",
        like.data if like is not None else b"%d" % position,
        b"",
        datetime(2026, 1, 1, tzinfo=UTC),
    )


def _dead_event() -> Event:
    return Event(Position(COUNT + 1), ONE, "dead", Revision(0), uuid4(), "T", b"", b"", datetime.now(UTC))
