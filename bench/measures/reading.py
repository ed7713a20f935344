"""Reads: a stream of 10, 1,000 and 100,000 events, the whole log, and how soon a follower sees an append."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final
from uuid import UUID

from bench.copying import full_log
from bench.data import METADATA, ROWS, STREAMS, payloads
from bench.measure import Bench, Contender, Measure, Reading
from bench.nodes import new_head, opened
from bench.peers import event_sourcing, message_db
from bench.series import Comparison, Goal, Sense, percentile
from bench.servers import Connection, connected
from chain.errors import ChainError
from chain.event import Expect, NewEvent, Position, Revision
from chain.postgres import PostgresStore
from chain.tasks import end

_GET_GOAL_MS: Final = {1_000: 5.0}
_READS: Final = 5
"""Of a stream in one run; the median of them is its figure."""
_CHUNK: Final = 50_000
_FOLLOWED_PER_S: Final = 200
_FOLLOW_GOAL_MS: Final = 5.0
_SEEN_WITHIN_S: Final = 20.0

_MESSAGES: Final = f"""
    insert into message_store.messages
           (global_position, position, time, stream_name, type, data, metadata, id)
    select position - 1, revision, recorded_at at time zone 'utc', stream, type,
           convert_from(data, 'UTF8')::jsonb, convert_from(metadata, 'UTF8')::jsonb, id
      from ({ROWS}) as filled
"""
_STORED: Final = f"""
    insert into bench_events (originator_id, originator_version, topic, state, notification_id)
    select md5(stream)::uuid, revision, 'shop.domain:' || type, data || metadata, position - 1
      from ({ROWS}) as filled
"""


async def read(bench: Bench) -> Sequence[Comparison]:
    full = await full_log(bench)
    # A shorter log has shorter streams.
    sizes = {size * bench.scale.events // 1_000_000: name for size, name in STREAMS.items()}
    sizes = {max(1, size): name for size, name in sizes.items()}
    peers = [_message_db, _event_sourcing]
    async with opened(full.node) as store:
        contenders = [Contender("geochain", lambda: _ours(store, sizes))]
        for peer in peers:
            contenders.append(await peer(bench, sizes))
        found = await bench.side_by_side("read", contenders)
    comparisons = [
        found.compare(
            f"get {size}",
            f"get a stream of {size:,} events",
            "ms",
            Sense.AT_MOST,
            *((Goal(_GET_GOAL_MS[size]),) if size in _GET_GOAL_MS else ()),
        )
        for size in sizes
    ]
    return [*comparisons, found.compare("scan", "scan the whole log", "events/s", Sense.AT_LEAST)]


async def _ours(store: PostgresStore, sizes: dict[int, str]) -> Reading:
    async def get(stream: str) -> int:
        count = 0
        while (page := await store.get(stream, Revision(count), 10_000)).events:
            count += len(page.events)
            if page.at_tip:
                break
        return count

    async def scan() -> int:
        at, count = Position(0), 0
        while (page := await store.log(at)).events:
            at, count = Position(page.next), count + len(page.events)
        return count

    return await _timed(sizes, get, scan)


async def _message_db(bench: Bench, sizes: dict[int, str]) -> Contender:
    dsn = await bench.servers.new_database("peers")

    async def run() -> Reading:
        await _fill_once(bench, dsn, message_db.prepare, _MESSAGES, "message_store.messages")
        async with connected(dsn) as connection:

            async def get(stream: str) -> int:
                return len(await connection.fetch("select * from get_stream_messages($1, 0, -1)", stream))

            async def scan() -> int:
                return await _scan_messages(connection)

            return await _timed(sizes, get, scan)

    return Contender(message_db.NAME, run)


async def _scan_messages(connection: Connection) -> int:
    """It has no read of the whole log but by category, so this is its table's index, page by page."""
    at = count = 0
    query = "select * from messages where global_position > $1 order by global_position limit 1000"
    while rows := await connection.fetch(query, at):
        at, count = rows[-1]["global_position"], count + len(rows)
    return count


async def _event_sourcing(bench: Bench, sizes: dict[int, str]) -> Contender:
    dsn = await bench.servers.new_database("peers")

    async def run() -> Reading:
        await _fill_once(bench, dsn, event_sourcing.prepare, _STORED, "bench_events")
        recorder = event_sourcing.recorder(dsn)

        async def get(stream: str) -> int:
            return len(recorder.select_events(_uuid(stream)))

        async def scan() -> int:
            at = count = 0
            while found := recorder.select_notifications(at + 1, 1000):
                at, count = found[-1].id, count + len(found)
            return count

        try:
            return await _timed(sizes, get, scan)
        finally:
            recorder.datastore.close()

    return Contender(event_sourcing.NAME, run)


def _uuid(stream: str) -> UUID:
    from hashlib import md5

    return UUID(bytes=md5(stream.encode(), usedforsecurity=False).digest())


async def _fill_once(
    bench: Bench, dsn: str, prepare: Callable[[str], Awaitable[None]], rows: str, table: str
) -> None:
    async with connected(dsn) as connection:
        if await connection.fetchval("select to_regclass($1) is not null", table):
            return
        await prepare(dsn)
        for first in range(0, bench.scale.events, _CHUNK):
            last = min(first + _CHUNK, bench.scale.events) - 1
            await connection.execute(rows, first, last, timeout=600)
        await connection.execute(f"vacuum (analyze) {table}", timeout=600)


async def _timed(
    sizes: dict[int, str], get: Callable[[str], Awaitable[int]], scan: Callable[[], Awaitable[int]]
) -> Reading:
    reading: dict[str, float] = {}
    for size, stream in sizes.items():
        taken = []
        for _ in range(_READS):
            start = time.perf_counter()
            count = await get(stream)
            taken.append((time.perf_counter() - start) * 1000)
        if count < size:
            raise RuntimeError(f"{stream} has {count} events instead of {size}")
        reading[f"get {size}"] = percentile(taken, 0.5)
    start = time.perf_counter()
    count = await scan()
    reading["scan"] = count / (time.perf_counter() - start)
    return reading


async def follow(bench: Bench) -> Sequence[Comparison]:
    async def once() -> Reading:
        async with new_head(bench.servers, "alone") as node, opened(node) as writer, opened(node) as reader:
            return await _followed(writer, reader, round(_FOLLOWED_PER_S * bench.scale.seconds * 2))

    found = await bench.side_by_side("follow", [Contender("geochain", once)])
    note = f"From the call of add to the event in follow's hands, at {_FOLLOWED_PER_S} appends/s."
    return [
        found.compare("p50", "follow: p50", "ms", Sense.AT_MOST, note=note),
        found.compare("p99", "follow: p99", "ms", Sense.AT_MOST, Goal(_FOLLOW_GOAL_MS), note=note),
        found.compare("add p50", "follow: p50 of the add alone", "ms", Sense.AT_MOST),
    ]


async def _followed(writer: PostgresStore, reader: PostgresStore, count: int) -> Reading:
    data = payloads(64)
    called: dict[UUID, float] = {}
    seen: list[float] = []
    adds: list[float] = []
    start = (await writer.tip()).position

    async def watch() -> None:
        async for page in reader.follow(start):
            now = time.perf_counter()
            seen.extend(now - called[event.id] for event in page.events)
            if len(seen) >= count:
                return

    watching: asyncio.Task[Any] = asyncio.create_task(watch())
    try:
        for number in range(count):
            event = NewEvent("OrderPlaced", data[number % len(data)], METADATA)
            called[event.id] = began = time.perf_counter()
            await writer.add(f"order-{number % 50}", Expect.ANY, [event])
            adds.append(time.perf_counter() - began)
            await asyncio.sleep(max(0.0, 1 / _FOLLOWED_PER_S - adds[-1]))
        await asyncio.wait_for(watching, _SEEN_WITHIN_S)
    except ChainError as error:
        raise RuntimeError(f"an append failed: {error}") from error
    finally:
        await end(watching)
    return {
        "p50": percentile(seen, 0.5) * 1000,
        "p99": percentile(seen, 0.99) * 1000,
        "add p50": percentile(adds, 0.5) * 1000,
    }


MEASURES: Final = (
    Measure("read", "Streams of 10, 1,000 and 100,000 events, and the whole log.", read),
    Measure("follow", "From an append to a follower of the same node.", follow),
)
