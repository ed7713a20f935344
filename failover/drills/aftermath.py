"""What is done and looked at when the faults of a drill are over."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterable
from pathlib import Path

from chain.errors import ChainError
from failover.drills.probes import said, verify
from failover.drills.record import ChainState, VerifierResult
from failover.drills.scene import Scene
from replicator.verify import Verdict

EQUAL_S = 60.0
"""How long the followers may take to come to the head's tip, when nobody writes any more."""


async def start_everything(scene: Scene) -> None:
    """Starts whatever of a local chain does not run. Idempotent."""
    ground = scene.ground
    if ground.local is None:
        return
    await ground.local.start_registry()
    await ground.local.start(*(n.name for n in ground.config.nodes))
    for name in ground.controllers:
        await asyncio.to_thread(ground.local.start_controller, name)


async def wait_equal(scene: Scene) -> None:
    """Waits until every member has the head's tip, or `EQUAL_S`: the verifier says what is missing."""
    try:
        async with asyncio.timeout(EQUAL_S):
            while True:
                order = (await scene.topology()).order
                tips = await asyncio.gather(*(_tip(scene, node) for node in order))
                if None not in tips and len(set(tips)) == 1:
                    return
                await asyncio.sleep(0.05)
    except TimeoutError:
        return


async def chain_state(scene: Scene) -> ChainState:
    """The chain as it is decided, and how far each node is."""
    topology = await scene.topology()
    nodes = [n.name for n in scene.ground.config.nodes]
    tips = await asyncio.gather(*(_tip(scene, node) for node in nodes))
    return ChainState(
        topology.order,
        dict(topology.regions),
        topology.epoch,
        {node: tip for node, tip in zip(nodes, tips, strict=True) if tip is not None},
        topology.detached,
    )


async def verified(scene: Scene) -> VerifierResult:
    """Every member compared with the one before it, by content."""
    found = await verify(scene)
    verdicts = {v.verdict for v in found}
    verdict = Verdict.OK
    if Verdict.DIFF in verdicts:
        verdict = Verdict.DIFF
    elif Verdict.UNKNOWN in verdicts or not found:
        verdict = Verdict.UNKNOWN
    return VerifierResult(
        verdict.value,
        "; ".join(f"{v.source} → {v.target}: {said(v)}" for v in found),
        min((v.last for v in found), default=None),
        tuple(f"{v.source} → {v.target}: {finding}" for v in found for finding in v.findings),
    )


def keep_logs(chain: Path, target: Path) -> None:
    """Copies what the processes said to where it is not cleared away."""
    patterns = ("nodes/*/*.log", "controllers/*/*.log", "registry/*.log", "operators/*.log", "twins/*/*.log")
    for log in _found(chain, patterns):
        copy = target / f"{log.parent.name}-{log.name}"
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(log, copy)


def _found(folder: Path, patterns: Iterable[str]) -> Iterable[Path]:
    return (path for pattern in patterns for path in sorted(folder.glob(pattern)))


async def _tip(scene: Scene, node: str) -> str | None:
    try:
        async with asyncio.timeout(2.0):
            return str(await scene.ground.fleet.store(node).tip())
    except (ChainError, TimeoutError):
        return None
