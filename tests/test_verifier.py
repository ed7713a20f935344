"""The continuous verifier: one pass finds what was planted behind notes that say all is well."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from uuid import uuid4

import asyncpg
import pytest

from chain.commands import create_chain
from chain.event import EMPTY, Expect, NewEvent, Position
from chain.memory import MemoryLeases, MemoryLocks, MemoryStore
from chain.postgres import PostgresStore
from chain.registry import Registry
from chain.store import SEGMENT, Ground, Role, Store
from replicator.findings import Kind
from replicator.pairwatch import PairWord
from replicator.verifier import Verifier, VerifyTerms
from replicator.verify import Verdict, verify_chain, verify_new
from tests.conformance.stores import CHAIN, TWO, copy
from tests.databases import connect
from tests.planted import AT, COUNT, DEFECTS, NODES, Chain, Defect, Found, chain, dsns, filled

__all__ = ["chain", "dsns"]  # fixtures

OPERATIONS: Final = Path(__file__).parent.parent / "docs" / "operations.md"
FAST: Final = VerifyTerms(every_s=0.01, again_s=0.0, share=1.0, settles_s=0.01)


async def registry_of(order: tuple[str, ...] = NODES) -> Registry:
    registry = Registry(MemoryStore("registry"), MemoryLocks(), MemoryLeases(), CHAIN)
    await registry.open()
    ground = Ground(EMPTY, datetime.now(UTC))
    create = create_chain(CHAIN, dict.fromkeys(order, "east"), uuid4(), ground)
    await registry.decide(create, by="a test")
    return registry


async def verifier_of(chain: Chain, terms: VerifyTerms = FAST) -> Verifier:
    return Verifier(CHAIN, await registry_of(), lambda n: PostgresStore(chain.dsns[n], name=n), terms)


@pytest.fixture
async def verifier(chain: Chain) -> AsyncIterator[Verifier]:
    made = await verifier_of(chain)
    yield made
    await made.close()


def found(words: tuple[PairWord, ...]) -> tuple[Found, ...]:
    return tuple(frozenset((f.position, f.kind) for f in w.findings) for w in words)


def verdicts(words: tuple[PairWord, ...]) -> list[tuple[Verdict, int]]:
    return [(w.verdict, w.verified) for w in words]


async def test_a_healthy_chain_is_ok_up_to_its_end(verifier: Verifier) -> None:
    words = await verifier.pass_once()
    assert verdicts(words) == [(Verdict.OK, COUNT)] * 2
    assert [(w.source, w.target, w.findings, w.reason) for w in words] == [
        ("a", "b", (), ""),
        ("b", "c", (), ""),
    ]
    assert all(w.age_s is not None and w.oldest_check_s is not None for w in words)


@pytest.mark.parametrize("node", NODES)
@pytest.mark.parametrize("defect", DEFECTS, ids=lambda d: d.name)
async def test_one_pass_finds_what_was_planted_where_all_was_verified(
    chain: Chain, verifier: Verifier, defect: Defect, node: str
) -> None:
    await verifier.pass_once()
    after = await verifier_of(chain)  # another one, which has only what the nodes have noted
    await chain.run(node, defect.sql)
    expected = defect.expected(node)
    words = await after.pass_once()
    assert found(words) == expected
    assert [w.verdict for w in words] == [Verdict.DIFF if some else Verdict.OK for some in expected]
    await after.close()


async def test_a_defect_that_is_mended_is_forgotten(chain: Chain, verifier: Verifier) -> None:
    await verifier.pass_once()
    await chain.run("b", f"update chain.event set type = type || '!' where position = {AT}")
    bad = await verifier.pass_once()
    assert verdicts(bad) == [(Verdict.DIFF, AT - 1)] * 2
    await chain.run("b", f"update chain.event set type = left(type, -1) where position = {AT}")
    assert verdicts(await verifier.pass_once()) == [(Verdict.OK, COUNT)] * 2


async def test_what_was_rewritten_alike_on_all_nodes_is_found(chain: Chain, verifier: Verifier) -> None:
    """The nodes agree with each other, and not with what they agreed on before."""
    await verifier.pass_once()
    for node in NODES:
        await chain.run(node, f"update chain.event set data = 'forged' where position = {AT}")
    words = await verifier.pass_once()
    assert [w.verdict for w in words] == [Verdict.DIFF] * 2
    assert {(f.position, f.kind, f.node) for f in words[0].findings} == {
        (1, Kind.REWRITTEN, "a"),
        (1, Kind.REWRITTEN, "b"),
    }
    by_command = await verify_chain(chain.stores)
    assert {(f.position, f.kind, f.node) for f in by_command[0].findings} == {
        (1, Kind.REWRITTEN, "a"),
        (1, Kind.REWRITTEN, "b"),
    }


async def test_a_role_that_may_only_read_is_enough(chain: Chain) -> None:
    grants = re.findall(r"```sql\n(create role.*?)```", OPERATIONS.read_text(), re.S)[0]
    create, grant = grants.split("\n", 1)
    admin = await connect(chain.dsns["a"])
    await admin.execute(f"drop role if exists chain_verifier; {create}")
    await admin.close()
    for node in NODES:
        await chain.run(node, grant)
    await chain.run(
        "a", re.findall(r"```sql\n(alter role chain_verifier.*?)```", OPERATIONS.read_text(), re.S)[0]
    )
    as_verifier = {
        node: re.sub("//[^@]*@", "//chain_verifier:choose-one@", where) for node, where in chain.dsns.items()
    }
    verifier = Verifier(CHAIN, await registry_of(), lambda n: PostgresStore(as_verifier[n], name=n), FAST)
    assert verdicts(await verifier.pass_once()) == [(Verdict.OK, COUNT)] * 2
    assert (await chain.stores["b"].verified()).position == COUNT
    await chain.run("b", f"update chain.event set type = 'Forged' where position = {AT}")
    assert verdicts(await verifier.pass_once()) == [(Verdict.DIFF, AT - 1)] * 2
    await verifier.close()

    behind = await connect(as_verifier["b"])
    for forbidden in (
        "delete from chain.event",
        "update chain.segment set value = ''",
        "delete from chain.segment",
        "select chain.fence(9)",
        "select chain.give_up(1, 'a', 1, 1, 0)",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await behind.execute(forbidden)
    assert await behind.fetchval("show statement_timeout") == "1min"
    await behind.close()
    for node in NODES:
        await chain.run(node, "drop owned by chain_verifier")


async def test_only_what_is_new_is_read_if_that_is_asked(chain: Chain, verifier: Verifier) -> None:
    await verifier.pass_once()
    new = await verify_new(chain.stores)
    assert [(v.verdict, v.first, v.last) for v in new] == [(Verdict.OK, COUNT, COUNT)] * 2


async def test_a_node_that_is_away_is_unknown_and_what_was_known_stays(
    chain: Chain, verifier: Verifier
) -> None:
    away = chain.dsns | {"c": "postgresql://127.0.0.1:1/nobody"}
    await verifier.pass_once()
    lost = Verifier(CHAIN, verifier.registry, lambda n: PostgresStore(away[n], name=n), FAST)
    words = await lost.pass_once()
    assert [w.verdict for w in words] == [Verdict.OK, Verdict.UNKNOWN]
    assert "c" in words[1].reason
    await lost.close()


async def test_a_registry_that_is_away_leaves_what_was_known(verifier: Verifier) -> None:
    await verifier.pass_once()
    verifier.registry = Registry(MemoryStore("registry"), MemoryLocks(), MemoryLeases(), CHAIN)
    assert verdicts(await verifier.pass_once()) == [(Verdict.OK, COUNT)] * 2
    assert "the registry can't be read" in verifier.last_error


async def test_a_growing_chain_is_noted_segment_by_segment() -> None:
    stores: dict[str, Store] = {n: MemoryStore(n) for n in NODES}
    await filled(stores)
    verifier = Verifier(CHAIN, await registry_of(), stores.__getitem__, replace(FAST, again_s=60.0))
    assert verdicts(await verifier.pass_once()) == [(Verdict.OK, COUNT)] * 2
    await grow(stores, SEGMENT)
    assert verdicts(await verifier.pass_once()) == [(Verdict.OK, COUNT + SEGMENT)] * 2
    assert [[s.last for s in await store.seals()] for store in stores.values()] == [[SEGMENT]] * 3
    assert sum(scan.segments for scan in verifier.scans().values()) == 0  # nothing was due again

    assert [(v.first, v.last) for v in await verify_new(stores)] == [(SEGMENT, COUNT + SEGMENT)] * 2


async def test_after_a_dead_branch_was_given_up_the_new_one_is_verified() -> None:
    stores: dict[str, Store] = {n: MemoryStore(n) for n in NODES}
    await filled(stores)
    verifier = Verifier(CHAIN, await registry_of(), stores.__getitem__, FAST)
    await verifier.pass_once()
    b, c, fork = stores["b"], stores["c"], Position(COUNT - 10)
    await c.follow_upstream(TWO, "b", Role.TAIL)
    await b.follow_upstream(TWO, "a", Role.MIDDLE)
    for store, upstream in ((b, "a"), (c, "b")):
        await store.give_up(fork, await store.tip(), TWO, upstream)
    await b.promote(TWO, uuid4())
    await b.add("other", Expect.ANY, [NewEvent("Placed", b"%d" % n) for n in range(30)])
    await copy(b, c, "b")
    words = await verifier.pass_once()
    assert words[1].verdict is Verdict.OK
    assert words[1].verified == COUNT + 21
    assert words[0].verdict is Verdict.UNKNOWN  # a is not a neighbour of b any more, whatever is decided
    assert "is looked at again" in words[0].reason


async def grow(stores: dict[str, Store], count: int) -> None:
    first, *others = stores
    for start in range(0, count, 4096):
        events = [NewEvent("Placed", b"%d" % n) for n in range(start, min(start + 4096, count))]
        await stores[first].add("more", Expect.ANY, events)
    for upstream, name in zip((first, *others), others, strict=False):
        await copy(stores[upstream], stores[name], upstream)
