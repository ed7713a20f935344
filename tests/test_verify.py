"""Verification finds every planted defect, on every node, at its position, and names what differs."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from uuid import uuid4

import pytest

from chain.event import Epoch, Event, Expect, NewEvent, Position, Revision
from chain.memory import MemoryStore
from chain.postgres import PostgresStore
from chain.store import Identity, Role, Store
from failover.local.postgres import LocalPostgres
from replicator import verify
from replicator.findings import Finding, Kind, as_json, compare
from replicator.verify import MAX_REPORTED, Verdict, verify_chain, verify_pair
from tests.conformance.stores import CHAIN, ONE, copy
from tests.databases import connect, new_database

COUNT: Final = 300
AT: Final = 77
NODES: Final = ("a", "b", "c")
Found = frozenset[tuple[int, Kind]]

_UNLOCK: Final = """
    alter table chain.event drop constraint event_position, drop constraint event_stream,
                            drop constraint event_id, drop constraint event_placed;
    create table saved_event as select * from chain.event;
    create table saved_node as select * from chain.node;
"""
_RESTORE: Final = """
    truncate chain.event;
    insert into chain.event select * from saved_event;
    delete from chain.node;
    insert into chain.node select * from saved_node;
"""


@dataclass(frozen=True)
class Defect:
    """Rows altered behind a node's back, and what is found if it is the target of a pair, and its source."""

    name: str
    sql: str
    found: Found
    columns: tuple[str, ...] = ()
    mirrored: Found | None = None
    """What is found from the other side, if that is not the same."""


def altered(column: str, sql: str) -> Defect:
    return Defect(
        f"{column} altered",
        f"update chain.event set {sql} where position = {AT}",
        frozenset({(AT, Kind.OTHER_EPOCH if column == "epoch" else Kind.ALTERED)}),
        tuple(column.split(", ")),
    )


def swap(one: int, other: int) -> str:
    return (
        f"update chain.event set position = case position when {one} then {other} else {one} end"
        f" where position in ({one}, {other})"
    )


def each(kind: Kind, *positions: int) -> Found:
    return frozenset((position, kind) for position in positions)


DEFECTS: Final = (
    Defect(
        "a gap",
        f"delete from chain.event where position = {AT}",
        each(Kind.MISSING, AT),
        mirrored=each(Kind.EXTRA, AT),
    ),
    Defect(
        "several gaps",
        f"delete from chain.event where position in ({AT}, 101, 299)",
        each(Kind.MISSING, AT, 101, 299),
        mirrored=each(Kind.EXTRA, AT, 101, 299),
    ),
    Defect(
        "a tail that is gone",
        f"delete from chain.event where position > {COUNT - 2}",
        each(Kind.MISSING, COUNT - 1, COUNT),
        mirrored=each(Kind.EXTRA, COUNT - 1, COUNT),
    ),
    altered("data", "data = 'forged'"),
    altered("data", "data = set_bit(data, 0, 1 - get_bit(data, 0))"),
    altered("data, metadata", "data = metadata, metadata = data"),
    altered("metadata", "metadata = '{}'"),
    altered("type", "type = 'Forged'"),
    altered("recorded_at", "recorded_at = recorded_at + interval '1 microsecond'"),
    altered("stream", "stream = 'elsewhere'"),
    altered("revision", "revision = revision + 1"),
    altered("id", "id = gen_random_uuid()"),
    altered("id", "id = (select id from chain.event where position = 5)"),
    altered("epoch", "epoch = 2"),
    Defect("neighbours swapped", swap(AT, AT + 1), each(Kind.SWAPPED, AT, AT + 1)),
    Defect("swapped far apart", swap(AT, 250), each(Kind.SWAPPED, AT, 250)),
    Defect(
        "a position twice",
        "insert into chain.event select position, epoch, stream, 5000, gen_random_uuid(), type, data,"
        f" metadata, recorded_at from chain.event where position = {AT}",
        each(Kind.DOUBLE, AT),
    ),
    Defect(
        "another event in its place",
        f"update chain.event set id = gen_random_uuid(), data = 'other', revision = 9 where position = {AT}",
        each(Kind.REPLACED, AT),
    ),
    Defect(
        "another suffix",
        "update chain.event set id = gen_random_uuid(), data = 'forked', epoch = 2"
        f" where position > {COUNT - 3}",
        each(Kind.REPLACED, COUNT - 2, COUNT - 1, COUNT),
    ),
    Defect(
        "a row beyond the tip",
        f"update chain.event set position = 9000 where position = {AT}",
        each(Kind.MISSING, AT) | each(Kind.STRAY, 9000),
        mirrored=each(Kind.EXTRA, AT) | each(Kind.STRAY, 9000),
    ),
    Defect(
        "a row before the first position",
        "insert into chain.event select 0, epoch, stream, 5000, gen_random_uuid(), type, data, metadata,"
        f" recorded_at from chain.event where position = {AT}",
        each(Kind.STRAY, 0),
    ),
    Defect(
        "a checkpoint that went back",
        "update chain.node set tip_position = tip_position - 1",
        each(Kind.STRAY, COUNT),
        mirrored=each(Kind.STRAY, COUNT) | each(Kind.EXTRA, COUNT),
    ),
)


class Chain:
    """Three nodes with equal logs, whose rows can be altered and put back."""

    def __init__(self, dsns: dict[str, str]) -> None:
        self.dsns = dsns
        self.stores: dict[str, Store] = {n: PostgresStore(dsn, name=n) for n, dsn in dsns.items()}

    async def run(self, node: str, sql: str) -> None:
        connection = await connect(self.dsns[node])
        await connection.execute(sql)
        await connection.close()

    async def close(self) -> None:
        for store in self.stores.values():
            await store.close()


async def filled(stores: dict[str, Store]) -> None:
    """A head with COUNT events, the first of which is its promotion, and what follows it."""
    for name, store in stores.items():
        await store.prepare(Identity(CHAIN, name))
    first, *others = stores
    await stores[first].promote(ONE, uuid4())
    for number in range(COUNT - 1):
        event = NewEvent("Placed", b"data %d" % number, b'{"n": %d}' % number)
        await stores[first].add(f"s-{number % 7}", Expect.ANY, [event])
    for upstream, name in zip((first, *others), others, strict=False):
        await stores[name].follow_upstream(ONE, upstream, Role.MIDDLE)
        await copy(stores[upstream], stores[name], upstream)


@pytest.fixture(scope="module")
async def dsns(postgres_server: LocalPostgres) -> dict[str, str]:
    made = Chain({node: await new_database(postgres_server) for node in NODES})
    await filled(made.stores)
    for node in NODES:
        await made.run(node, _UNLOCK)
    await made.close()
    return made.dsns


@pytest.fixture
async def chain(dsns: dict[str, str]) -> AsyncIterator[Chain]:
    made = Chain(dsns)
    yield made
    for node in NODES:
        await made.run(node, _RESTORE)
    await made.close()


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
    mirrored = defect.mirrored or defect.found
    nothing: Found = frozenset()
    expected = {"a": (mirrored, nothing), "b": (defect.found, mirrored), "c": (nothing, defect.found)}[node]
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
