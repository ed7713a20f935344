"""A TCP fault proxy: stands between two parties, on loopback, and does to their bytes what it is told.

What is added holds for connections that are open, too, from the next chunk on. Order is always kept. A flow
that is slow or held stops reading after `_MOST_CHUNKS`, so memory is bounded, and the sender feels it. Its
port is the proxy's own from `start` to `stop`, also while it refuses connections.
"""

from __future__ import annotations

import asyncio
import logging
import random
import socket
import struct
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, TypeVar

from chain.tasks import end
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
    Toxic,
)

log = logging.getLogger(__name__)

CHUNK: Final = 32 * 1024
_MOST_CHUNKS: Final = 512
"""Under way on a connection, in one direction: 16 MiB, the product of 200 ms and 80 MB/s."""
_BACKLOG_S: Final = 0.1
"""How much may be queued for a limited bandwidth: as in a router with a queue of sensible length."""
_CONNECT_S: Final = 5.0
_NO_LINGER: Final = struct.pack("ii", 1, 0)

Address = tuple[str, int]
T = TypeVar("T")


class Proxy:
    """Listens on a port of loopback and forwards to `upstream`, which may be changed at any time."""

    def __init__(self, upstream: Address, *, seed: int = 0) -> None:
        self.upstream = upstream
        self._lanes = {flow: _Lane(random.Random(f"{seed}/{flow.value}")) for flow in Flow}
        self._reserved: socket.socket | None = None
        self._server: asyncio.Server | None = None
        self._links: dict[asyncio.Task[None], _Link] = {}
        self._down = False

    @property
    def address(self) -> Address:
        """Where it listens. Only between `start` and `stop`."""
        assert self._reserved is not None
        host, port = self._reserved.getsockname()
        return str(host), int(port)

    @property
    def connections(self) -> int:
        return len(self._links)

    def carried_bytes(self, flow: Flow) -> int:
        """How much it has passed on in this direction, on all connections together."""
        return self._lanes[flow].carried

    async def start(self) -> None:
        """Listens; idempotent."""
        if self._reserved is None:
            self._reserved = _bound(("127.0.0.1", 0))
        if self._server is None and not self._down:
            self._server = await asyncio.start_server(self._serve, sock=_bound(self.address))

    async def stop(self) -> None:
        """Resets all connections and gives up the port; idempotent. Nothing of it is left."""
        await self._stop_listening()
        if self._reserved is not None:
            self._reserved.close()
            self._reserved = None

    async def __aenter__(self) -> Proxy:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    # Faults.

    def toxics(self, flow: Flow) -> tuple[Toxic, ...]:
        return tuple(self._lanes[flow].toxics)

    def add(self, flow: Flow, toxic: Toxic) -> None:
        """From now on, until it is removed. One of a kind may be there more than once."""
        self._lanes[flow].add(toxic)

    def remove(self, flow: Flow, toxic: Toxic) -> None:
        """Takes back one that was added; nothing happens if it is not there."""
        self._lanes[flow].remove(toxic)
        if isinstance(toxic, Timeout):
            self._reset(lambda link: link.tainted)

    async def set_down(self, down: bool) -> None:
        """Refuses connections, and resets those that are open; or takes them again. Idempotent."""
        self._down = down
        if down:
            await self._stop_listening()
        elif self._reserved is not None:
            await self.start()

    def reset_all(self) -> None:
        """Resets every connection that is open now; new ones are taken."""
        self._reset(lambda link: True)

    def _reset(self, which: Callable[[_Link], bool]) -> None:
        for link in self._links.values():
            if which(link):
                link.reset()

    async def _stop_listening(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.close()
        self.reset_all()
        for task in list(self._links):
            await end(task)
        if server is not None:
            await server.wait_closed()

    # Connections.

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        link = _Link(reader, writer, self._lanes)
        self._links[task] = link
        try:
            await link.run(self.upstream)
        except (asyncio.CancelledError, Exception) as error:  # a connection's end is nobody's fault but ours
            if not isinstance(error, (asyncio.CancelledError, OSError)):
                log.exception("a connection through a fault proxy failed")
        finally:
            self._links.pop(task, None)
            link.close()


class _Lane:
    """One direction of a proxy: its toxics, and what they remember for all its connections together."""

    def __init__(self, chance: random.Random) -> None:
        self.toxics: list[Toxic] = []
        self.chance = chance
        self.free_at = 0.0
        """When the bandwidth is free again."""
        self.carried = 0
        """Bytes that were passed on."""
        self._changed = asyncio.Event()

    def add(self, toxic: Toxic) -> None:
        self.toxics.append(toxic)
        self._tell()

    def remove(self, toxic: Toxic) -> None:
        with suppress(ValueError):
            self.toxics.remove(toxic)
        self._tell()

    def of(self, kind: type[T]) -> Iterator[T]:
        return (toxic for toxic in self.toxics if isinstance(toxic, kind))

    def has(self, kind: type[Toxic]) -> bool:
        return any(self.of(kind))

    async def wait_open(self) -> bool:
        """Returns while nothing is held: whether it had to be waited for."""
        waited = False
        while self.has(Hold):
            waited = True
            await self._changed.wait()
        return waited

    def delay_s(self) -> float:
        return sum(
            max(0.0, t.delay_s + self.chance.uniform(-t.jitter_s, t.jitter_s)) for t in self.of(Latency)
        )

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


class _Link:
    """One connection through the proxy: two streams, and a pipe in each direction."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        lanes: dict[Flow, _Lane],
    ) -> None:
        self._reader, self._writer = reader, writer
        self._lanes = lanes
        self._writers = [writer]
        self.tainted = False
        """Something that it carried has vanished, so it can't go on."""

    async def run(self, upstream: Address) -> None:
        there = _Pipe(self, self._lanes[Flow.REQUESTS], self._reader)
        reading = asyncio.create_task(there.read(), name="read ahead")
        try:
            if await self._held() and reading.done():
                return  # who connected has given up; packets that were never let through connect nobody
            reader, writer = await asyncio.wait_for(asyncio.open_connection(*upstream), _CONNECT_S)
            self._writers.append(writer)
            back = _Pipe(self, self._lanes[Flow.ANSWERS], reader)
            await _all_or_none(reading, there.write(writer), back.read(), back.write(self._writer))
        except (OSError, TimeoutError):
            self.reset()
        finally:
            await end(reading)

    async def _held(self) -> bool:
        """A connection costs a round trip, and none comes about where nothing gets through."""
        held = False
        for lane in self._lanes.values():
            if delay_s := lane.delay_s():
                await asyncio.sleep(delay_s)
            held |= await lane.wait_open()
        return held

    def reset(self) -> None:
        """As a peer that is gone answers: RST on both sides."""
        for writer in self._writers:
            with suppress(OSError):
                sock = writer.get_extra_info("socket")
                if sock is not None:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
            writer.transport.abort()

    def close(self) -> None:
        for writer in self._writers:
            writer.close()


@dataclass(slots=True)
class _Pipe:
    """One direction of one connection: read, give each chunk its time, write at that time."""

    link: _Link
    lane: _Lane
    reader: asyncio.StreamReader
    written: int = 0
    _since: float | None = None
    _last_due: float = 0.0
    _queue: asyncio.Queue[tuple[float, bytes]] = field(default_factory=lambda: asyncio.Queue(_MOST_CHUNKS))

    async def read(self) -> None:
        while chunk := await self.reader.read(CHUNK):
            await self._leave_room()
            for piece in self._shaped(chunk):
                await self._queue.put((self._due(len(piece)), piece))
        end_s = sum(toxic.delay_s for toxic in self.lane.of(SlowClose))
        await self._queue.put((self._due(0) + end_s, b""))

    async def write(self, writer: asyncio.StreamWriter) -> None:
        open_at = _now() + self.lane.delay_s()  # what was read before there was a connection sets out now
        while True:
            due, piece = await self._queue.get()
            if (early_s := max(due, open_at) - _now()) > 0:
                await asyncio.sleep(early_s)
            await self.lane.wait_open()
            if not piece:
                writer.write_eof()
                return
            if self.lane.has(Timeout):
                await self._vanish()
                continue
            most = min((toxic.bytes for toxic in self.lane.of(LimitData)), default=None)
            writer.write(piece if most is None else piece[: max(0, most - self.written)])
            await writer.drain()
            self.written += len(piece)
            self.lane.carried += len(piece)
            if most is not None and self.written >= most:
                self.link.close()
                return
            self._reset_if_asked()

    async def _leave_room(self) -> None:
        backlog_s = self.lane.free_at - _now() - _BACKLOG_S
        if backlog_s > 0 and self.lane.has(Bandwidth):
            await asyncio.sleep(backlog_s)

    def _shaped(self, chunk: bytes) -> Iterator[bytes]:
        for corrupt in self.lane.of(Corrupt):
            chunk = _corrupted(chunk, corrupt.every_bytes, self.lane.chance)
        size = min((slicer.size for slicer in self.lane.of(Slicer)), default=len(chunk))
        return (chunk[at : at + size] for at in range(0, len(chunk), size))

    def _due(self, size: int) -> float:
        now = _now()
        due = now + self.lane.delay_s()
        for bandwidth in self.lane.of(Bandwidth):
            self.lane.free_at = max(self.lane.free_at, now) + size / bandwidth.bytes_per_s
            due = max(due, self.lane.free_at + self.lane.delay_s())
        for slicer in self.lane.of(Slicer):
            due = max(due, self._last_due + slicer.delay_s)
        self._last_due = max(self._last_due, due)
        return self._last_due

    async def _vanish(self) -> None:
        self.link.tainted = True
        for timeout in self.lane.of(Timeout):
            if timeout.after_s is not None:
                await asyncio.sleep(timeout.after_s)
                self.link.reset()

    def _reset_if_asked(self) -> None:
        self._since = self._since or _now()
        if any(_now() - self._since >= toxic.after_s for toxic in self.lane.of(ResetPeer)):
            self.link.reset()


def _corrupted(chunk: bytes, every_bytes: int, chance: random.Random) -> bytes:
    changed = bytearray(chunk)
    at = int(chance.expovariate(1 / every_bytes))
    while at < len(changed):
        changed[at] ^= 1 << chance.randrange(8)
        at += 1 + int(chance.expovariate(1 / every_bytes))
    return bytes(changed)


async def _all_or_none(*work: Awaitable[None]) -> None:
    """All of it to its end; the first that fails ends the others, and what it raised is raised."""
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            await end(task)


def _bound(address: Address) -> socket.socket:
    """Bound and not listening yet: the port is ours, and who connects is refused."""
    # Told that it is TCP, asyncio sends small answers at once instead of waiting for an acknowledgement.
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind(address)
    return bound


def _now() -> float:
    return asyncio.get_running_loop().time()
