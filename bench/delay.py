"""A process that stands before a server and makes the way to it long: `python -m bench.delay HOST PORT`.

It prints its port. A line on its input is a round trip in milliseconds from then on; it prints how many bytes
it has carried so far, requests and answers. It ends with its input. `Delay` is its handle.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from bench.programs import environment
from failover.drills.proxy import Proxy
from failover.drills.toxics import Flow, Latency

_ANSWERS_WITHIN_S: Final = 20.0


@dataclass(frozen=True, slots=True)
class Delay:
    """A long way to one server."""

    process: asyncio.subprocess.Process
    port: int

    def through(self, dsn: str) -> str:
        """The same server by the long way."""
        return dsn.replace(f":{urlsplit(dsn).port}/", f":{self.port}/")

    async def set_round_trip(self, milliseconds: float) -> int:
        """From now on, also for connections that are open. Gives the bytes that were carried so far."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{milliseconds}\n".encode())
        return int((await _word(self.process))["carried"])


@asynccontextmanager
async def delay(folder: Path, dsn: str) -> AsyncIterator[Delay]:
    """A way to the server of `dsn` that is as short as it was, until it is told a round trip."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "bench.delay",
        "127.0.0.1",
        str(urlsplit(dsn).port),
        cwd=folder,
        env=environment(folder),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        yield Delay(process, int((await _word(process))["port"]))
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _word(process: asyncio.subprocess.Process) -> dict[str, Any]:
    assert process.stdout is not None
    async with asyncio.timeout(_ANSWERS_WITHIN_S):
        found: dict[str, Any] = json.loads(await process.stdout.readline())
    return found


async def _stand(host: str, port: int) -> None:
    async with Proxy((host, port)) as proxy:
        _say({"port": proxy.address[1]})
        while line := await asyncio.to_thread(sys.stdin.readline):
            for flow in Flow:
                for toxic in proxy.toxics(flow):
                    proxy.remove(flow, toxic)
                if float(line):
                    proxy.add(flow, Latency(float(line) / 2000))
            _say({"carried": sum(proxy.carried_bytes(flow) for flow in Flow)})


def _say(what: object) -> None:
    print(json.dumps(what), flush=True)  # noqa: T201


if __name__ == "__main__":
    asyncio.run(_stand(sys.argv[1], int(sys.argv[2])))
