"""Ours, as an application uses it: the store, with its group commit."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from importlib.resources import files
from typing import Final

from bench.data import METADATA, payloads
from bench.nodes import CHAIN, EPOCH, Node, opened, promotion
from bench.servers import connected
from bench.workload import Tally, Workload, drive
from chain.errors import WrongRevision
from chain.event import Expect, Expected, NewEvent, Revision, new_id
from chain.store import Identity

NAME: Final = "geochain"
INSIDE: Final = "geochain, its lock held to the commit"

_SHIPPED: Final = files("chain.postgres").joinpath("sql", "functions", "append_one.sql")
_INSIDE: Final = "call public.append_inside($1, $2, $3, $4, $5, $6)"


async def prepare(dsn: str) -> None:
    async with opened(Node("alone", "alone", dsn)) as store:
        await store.prepare(Identity(CHAIN, "alone"))
        await store.promote(EPOCH, promotion())


async def prepare_inside(dsn: str) -> None:
    """Beside the shipped procedure, the same without its early commit and the flush that follows it."""
    await prepare(dsn)
    text = _SHIPPED.read_text("utf-8")
    first, behind = (
        text.index("    v_set := pg_catalog.set_config("),
        text.index("    v_set := pg_catalog.pg_notify("),
    )
    async with connected(dsn) as connection:
        await connection.execute(
            (text[:first] + text[behind:]).replace("chain.append_one(", "public.append_inside(")
        )


async def append(
    dsn: str, workload: Workload, process: int, wait_told: Callable[[], Awaitable[None]]
) -> Tally:
    """Each caller has a stream of its own, and expects the revision that it wrote last."""
    data = payloads(256, workload.data_bytes)
    last: dict[int, int] = {}
    async with AsyncExitStack() as stack:
        count = workload.callers_each if workload.connection_each else 1
        stores = [await stack.enter_async_context(opened(Node("alone", "alone", dsn))) for _ in range(count)]

        async def one(caller: int, number: int) -> bool:
            first = number * workload.batch
            events = [
                NewEvent("OrderPlaced", data[n % len(data)], METADATA)
                for n in range(first, first + workload.batch)
            ]
            at = last.get(caller, -1)
            expected: Expected = Revision(at) if at >= 0 else Expect.NO_STREAM
            if wants_conflict(number, workload.conflicts):
                expected = Revision(at + 1)
            try:
                stream = f"order-{process}-{caller}"
                answer = await stores[caller % count].add(stream, expected, events)
            except WrongRevision:
                return False
            last[caller] = answer.last_revision
            return True

        return await drive(one, workload, wait_told)


async def append_inside(
    dsn: str, workload: Workload, process: int, wait_told: Callable[[], Awaitable[None]]
) -> Tally:
    """The shipped append of one event, committed as usual: nobody else appends until the disk has it."""
    data = payloads(256, workload.data_bytes)
    async with AsyncExitStack() as stack:
        connections = [await stack.enter_async_context(connected(dsn)) for _ in range(workload.callers_each)]

        async def one(caller: int, number: int) -> bool:
            stream, body = f"order-{process}-{caller}", data[number % len(data)]
            row = await connections[caller].fetchrow(
                _INSIDE, stream, number - 1, new_id(), "OrderPlaced", body, METADATA
            )
            assert row is not None
            if row["r_position"] is None:
                raise RuntimeError(f"{stream} is not at revision {number - 1}")
            return True

        return await drive(one, workload, wait_told)


def wants_conflict(number: int, share: float) -> bool:
    """Whether an append is one of the share that is to conflict; spread evenly."""
    return int((number + 1) * share) > int(number * share)
