"""The fault proxy does to a connection what its toxics say, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import pytest_asyncio

from chain.tasks import end
from failover.drills.proxy import Proxy
from failover.drills.toxics import (
    Bandwidth,
    Corrupt,
    Flow,
    Hold,
    Latency,
    LimitData,
    ResetPeer,
    Slicer,
    SlowClose,
    Timeout,
)

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


@asynccontextmanager
async def proxied(serve: Serve = echo) -> AsyncIterator[Proxy]:
    """A proxy before a server; both are gone afterwards."""
    talks: set[asyncio.Task[None]] = set()

    async def tracked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        talks.add(task)
        try:
            await serve(reader, writer)
        except (asyncio.CancelledError, OSError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(tracked, "127.0.0.1", 0)
    try:
        async with Proxy(server.sockets[0].getsockname()) as proxy:
            yield proxy
    finally:
        server.close()
        for task in talks:
            await end(task)
        await server.wait_closed()


_opened: list[asyncio.StreamWriter] = []


@pytest_asyncio.fixture(autouse=True, loop_scope="session")
async def _close_what_was_opened() -> AsyncIterator[None]:
    yield
    for writer in _opened:
        writer.transport.abort()
    _opened.clear()


async def connect(proxy: Proxy) -> Streams:
    streams = await asyncio.open_connection(*proxy.address)
    _opened.append(streams[1])
    return streams


async def say(streams: Streams, data: bytes) -> bytes:
    """Sends it, and reads as much."""
    reader, writer = streams
    writer.write(data)
    await writer.drain()
    return await asyncio.wait_for(reader.readexactly(len(data)), 10)


async def assert_silent(reader: asyncio.StreamReader, for_s: float = 0.15) -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(1), for_s)


def elapsed_since(start: float) -> float:
    return asyncio.get_running_loop().time() - start


def now() -> float:
    return asyncio.get_running_loop().time()


async def test_without_toxics_every_byte_arrives_and_the_end_is_told() -> None:
    async with proxied() as proxy:
        reader, writer = await connect(proxy)
        data = bytes(range(256)) * 20_000
        writer.write(data)
        writer.write_eof()
        assert await reader.read(-1) == data
        writer.close()


async def test_latency_delays_each_way_and_a_connection_costs_a_round_trip() -> None:
    async with proxied() as proxy:
        for flow in Flow:
            proxy.add(flow, Latency(0.05))
        start = now()
        streams = await connect(proxy)
        await say(streams, b"first")
        assert elapsed_since(start) >= 0.2
        start = now()
        await say(streams, b"second")
        assert 0.1 <= elapsed_since(start) < 0.5
        streams[1].close()


async def test_latency_does_not_serialise_what_is_under_way() -> None:
    """2,000 chunks, 50 ms each way: one after the other they would take 200 s."""
    async with proxied() as proxy:
        for flow in Flow:
            proxy.add(flow, Latency(0.05, jitter_s=0.02))
        reader, writer = await connect(proxy)
        start = now()
        data = b"".join(n.to_bytes(4, "big") * 1024 for n in range(2000))
        writer.write(data)
        assert (
            await asyncio.wait_for(reader.readexactly(len(data)), 10) == data
        )  # in order, for all its jitter
        assert elapsed_since(start) < 5
        writer.close()


async def test_bandwidth_is_shared_by_all_connections_and_makes_the_sender_wait() -> None:
    async with proxied() as proxy:
        proxy.add(Flow.REQUESTS, Bandwidth(1_000_000))
        one, two = await connect(proxy), await connect(proxy)
        start = now()
        await asyncio.gather(say(one, b"x" * 150_000), say(two, b"y" * 150_000))
        assert elapsed_since(start) >= 0.2
        one[1].close()
        two[1].close()


async def test_a_slow_drip_arrives_in_pieces() -> None:
    async with proxied() as proxy:
        proxy.add(Flow.ANSWERS, Slicer(10, 0.02))
        start = now()
        assert await say(await connect(proxy), b"0123456789" * 10) == b"0123456789" * 10
        assert elapsed_since(start) >= 0.15


async def test_what_was_held_arrives_when_it_is_let_go() -> None:
    async with proxied() as proxy:
        reader, writer = streams = await connect(proxy)
        await say(streams, b"before")
        proxy.add(Flow.ANSWERS, Hold())
        writer.write(b"held")
        await assert_silent(reader)
        proxy.remove(Flow.ANSWERS, Hold())
        assert await asyncio.wait_for(reader.readexactly(4), 5) == b"held"
        writer.close()


async def test_who_gave_up_while_held_never_reaches_the_server() -> None:
    reached = 0

    async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal reached
        reached += 1
        await echo(reader, writer)

    async with proxied(count) as proxy:
        proxy.add(Flow.REQUESTS, Hold())
        reader, writer = await connect(proxy)
        writer.write(b"hello?")
        await assert_silent(reader)
        writer.close()
        await writer.wait_closed()
        await asyncio.sleep(0.05)
        proxy.remove(Flow.REQUESTS, Hold())
        await say(await connect(proxy), b"here I am")
        assert reached == 1


async def test_a_black_hole_swallows_and_breaks_what_it_has_swallowed_of() -> None:
    async with proxied() as proxy:
        proxy.add(Flow.REQUESTS, Timeout())
        reader, writer = await connect(proxy)
        writer.write(b"gone")
        await assert_silent(reader)
        proxy.remove(Flow.REQUESTS, Timeout())
        with pytest.raises(ConnectionError):
            await asyncio.wait_for(reader.read(1), 5)
        assert await say(await connect(proxy), b"new") == b"new"


async def test_a_reset_breaks_the_connection_and_takes_new_ones() -> None:
    async with proxied() as proxy:
        streams = await connect(proxy)
        await say(streams, b"hello")
        proxy.reset_all()
        with pytest.raises(ConnectionError):
            await asyncio.wait_for(streams[0].read(1), 5)
        assert await say(await connect(proxy), b"again") == b"again"
        proxy.add(Flow.ANSWERS, ResetPeer())
        reader, writer = await connect(proxy)
        writer.write(b"x")
        with pytest.raises(ConnectionError):
            await asyncio.wait_for(reader.readexactly(2), 5)


async def test_down_refuses_and_up_takes_connections_on_the_same_port() -> None:
    async with proxied() as proxy:
        address = proxy.address
        streams = await connect(proxy)
        await say(streams, b"up")
        await proxy.set_down(True)
        await proxy.set_down(True)
        with pytest.raises(ConnectionError):
            await asyncio.wait_for(streams[0].read(1), 5)
        with pytest.raises(ConnectionRefusedError):
            await connect(proxy)
        await proxy.set_down(False)
        await proxy.set_down(False)
        assert proxy.address == address
        assert await say(await connect(proxy), b"up again") == b"up again"


async def test_limited_data_ends_the_connection_at_that_byte() -> None:
    async with proxied() as proxy:
        proxy.add(Flow.ANSWERS, LimitData(10))
        reader, writer = await connect(proxy)
        writer.write(b"0123456789abcdef")
        assert await asyncio.wait_for(reader.read(-1), 5) == b"0123456789"


async def test_corruption_turns_bits_and_keeps_the_length() -> None:
    async with proxied() as proxy:
        proxy.add(Flow.ANSWERS, Corrupt(1000))
        data = bytes(100_000)
        answer = await say(await connect(proxy), data)
        assert 50 <= sum(byte != 0 for byte in answer) <= 200


async def test_a_slow_close_is_told_later() -> None:
    async with proxied() as proxy:
        proxy.add(Flow.ANSWERS, SlowClose(0.2))
        reader, writer = await connect(proxy)
        writer.write(b"x")
        writer.write_eof()
        start = now()
        assert await asyncio.wait_for(reader.read(-1), 5) == b"x"
        assert elapsed_since(start) >= 0.2


async def test_a_held_flow_makes_the_sender_wait_and_holds_little_memory() -> None:
    async with proxied() as proxy:
        streams = await connect(proxy)
        await say(streams, b"open")
        proxy.add(Flow.REQUESTS, Hold())
        sent = 0

        async def flood() -> None:
            nonlocal sent
            while True:
                streams[1].write(bytes(1_000_000))
                await streams[1].drain()
                sent += 1_000_000

        flooding = asyncio.create_task(flood())
        last = -1
        while sent != last:
            last = sent
            await asyncio.sleep(0.2)
        await end(flooding)
        assert sent < 64_000_000
        streams[1].transport.abort()


async def test_start_and_stop_may_be_given_twice_and_leave_nothing() -> None:
    async with proxied() as proxy:
        await proxy.start()
        address = proxy.address
        streams = await connect(proxy)
        await say(streams, b"x")
        assert proxy.connections == 1
        await proxy.stop()
        await proxy.stop()
        assert proxy.connections == 0
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(*address)


async def test_the_upstream_may_be_changed_to_another() -> None:
    async def other(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"other")
        await writer.drain()

    async with proxied() as proxy, proxied(other) as there:
        proxy.upstream = there.upstream
        reader, _ = await connect(proxy)
        assert await asyncio.wait_for(reader.readexactly(5), 5) == b"other"


async def test_an_upstream_that_refuses_resets_who_connects() -> None:
    async with proxied() as proxy:
        async with proxied() as gone:
            proxy.upstream = gone.address
        reader, _ = await connect(proxy)
        with pytest.raises(ConnectionError):
            await asyncio.wait_for(reader.read(1), 5)
