"""One process of a workload: `python -m bench.worker PEER DSN WORKLOAD NUMBER`; see bench.workload."""

from __future__ import annotations

import asyncio
import gc
import json
import sys
from dataclasses import asdict

from bench.measure import NotMeasured
from bench.peers.appending import PEERS
from bench.workload import Workload


def main() -> None:
    peer, dsn, workload, number = sys.argv[1:]
    asyncio.run(_work(peer, dsn, Workload(**json.loads(workload)), int(number)))


async def _work(peer: str, dsn: str, workload: Workload, number: int) -> None:
    async def wait_told() -> None:
        gc.collect()
        _say({"ready": number})
        await asyncio.to_thread(sys.stdin.readline)

    try:
        tally = await PEERS[peer](dsn, workload, number, wait_told)
    except NotMeasured as error:
        _say({"missing": str(error)})
    else:
        _say(asdict(tally))


def _say(what: object) -> None:
    print(json.dumps(what), flush=True)  # noqa: T201


main()
