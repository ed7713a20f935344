"""Appends from a process of its own: write.py CHAIN_YAML NAME WRITERS EVENTS."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from chain.config import load_config
from chain.connect import open_client
from chain.event import Expect, NewEvent


async def main(path: str, name: str, writers: int, events: int) -> None:
    config = load_config(Path(path), {})
    client = open_client(config)

    async def write(writer: int) -> None:
        for number in range(events):
            data = f"{name}/{writer}/{number}".encode()
            await client.add(f"shared-{writer % 3}", Expect.ANY, [NewEvent("Tested", data)])

    await asyncio.gather(*(write(n) for n in range(writers)))
    await client.close()


asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
