"""Three nodes with equal logs, and the defects that are planted behind their backs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final
from uuid import uuid4

import pytest

from chain.event import Expect, NewEvent
from chain.postgres import PostgresStore
from chain.store import Identity, Role, Store
from failover.local.postgres import LocalPostgres
from replicator.findings import Kind
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
    create table saved_segment as select * from chain.segment;
"""
_RESTORE: Final = """
    truncate chain.event;
    insert into chain.event select * from saved_event;
    delete from chain.node;
    insert into chain.node select * from saved_node;
    truncate chain.segment;
    insert into chain.segment select * from saved_segment;
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

    def expected(self, node: str) -> tuple[Found, Found]:
        """What is found in each of the two pairs, if it is planted on `node`."""
        mirrored, nothing = self.mirrored or self.found, frozenset[tuple[int, Kind]]()
        return {"a": (mirrored, nothing), "b": (self.found, mirrored), "c": (nothing, self.found)}[node]


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
