"""A verifier beside a living chain says nothing that is not so, and finds what is."""

from __future__ import annotations

import json
import subprocess
from asyncio import to_thread
from pathlib import Path

import pytest

from failover.local import processes
from failover.local.chain import LocalChain
from tests.support import append, chainctl, fleet_of, operate, operator, wait_equal, wait_until
from tests.verifier_soak import find_altered, prepare, soak


async def test_status_and_a_move_say_how_much_is_verified(chain: LocalChain) -> None:
    config = ("-c", str(chain.config_path), "-o", "json")
    async with fleet_of(chain) as fleet:
        await append(fleet.store("east-1"), 50)
        await wait_equal([fleet.store(n) for n in ("east-1", "west-1", "east-2")])
        tip = (await fleet.store("east-1").tip()).position

        async def said() -> list[tuple[str, int, str]]:
            status = json.loads((await chainctl("status", *config)).out)
            return [(p["result"], p["verified"], p["why"]) for p in status["verified"]]

        address = chain.config().verify.http
        silent = f"no verifier answers at {address}: start one: chainctl serve verifier"
        assert await said() == [("UNKNOWN", 0, silent)] * 2
        async with operator("serve", "verifier", *config[:2]):

            async def verified() -> bool:
                return await said() == [("OK", tip, "")] * 2

            await wait_until("everything is verified", verified, every_s=0.5)
        # The verifier is gone; what it brought about is on the nodes.
        assert await said() == [("UNKNOWN", tip, silent)] * 2
        new = await chainctl("verify", "--new", *config)
        assert (new.code, {(p["result"], p["from"], p["to"]) for p in json.loads(new.out)}) == (
            0,
            {("OK", tip, tip)},
        )
        done = await operate(fleet, "switchover", node="west-1")
        chosen = done.results["choose-candidate"]
        assert (chosen["verified"], chosen["unverified"]) == (tip, 0)


@pytest.mark.long
@pytest.mark.timeout(400)
async def test_no_false_report_under_full_load_through_a_move_and_a_lost_head(
    prepared: LocalChain, tmp_path: Path
) -> None:
    chain = LocalChain(tmp_path / "chain")
    try:
        await to_thread(subprocess.run, ["cp", "-a", str(prepared.folder), str(chain.folder)], check=True)
        await prepare(chain, processes.free_port())
        seen = await soak(chain, 15)
        await find_altered(chain, seen)
        assert seen.differences == []
        assert seen.verified >= seen.written
    finally:
        await chain.wipe()
