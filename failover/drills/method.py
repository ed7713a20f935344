"""Carries out the method of a drill, step by step, and takes back what it did."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Final

from chain.commands import acknowledge_failover, pause_automation, resume_automation
from chain.errors import ChainError, Refused, Unavailable
from chain.tasks import end
from failover.drills.drill import Do, Drill, End, Pause, Run, Step, Until
from failover.drills.faults import Fault, kind_of
from failover.drills.ground import Undos
from failover.drills.leftovers import BY
from failover.drills.probes import Look, Probe, name_of
from failover.drills.record import ActiveFault, Entry, Moment, Phase, ProbeResult, Rollback
from failover.drills.scene import Scene
from failover.local import processes
from failover.playbook import load_playbook
from failover.runner import execute

log = logging.getLogger(__name__)

PLACES: Final = frozenset({"head", "middle", "tail", "outside", "first-head", "first-middle", "first-tail"})
LOOK_S: Final = 10.0
"""How long one look of a probe may take."""


class Deviated(Exception):
    """The chain did not do what the drill says it does."""


@dataclass(slots=True)
class Active:
    """A fault that was injected."""

    fault: ActiveFault
    undos: Undos
    timer: asyncio.Task[None] | None = None


@dataclass(slots=True)
class Method:
    """The steps of a drill, and the faults that are active. `undo` may be called at any time, and again."""

    drill: Drill
    scene: Scene
    results: list[ProbeResult] = field(default_factory=list)
    """Of what was awaited."""
    rollbacks: list[Rollback] = field(default_factory=list)
    _faults: list[Active] = field(default_factory=list)
    _names: dict[str, Active] = field(default_factory=dict)
    _beside: list[asyncio.Task[None]] = field(default_factory=list)

    @property
    def faults(self) -> tuple[ActiveFault, ...]:
        return tuple(active.fault for active in self._faults)

    async def run(self, steps: Iterable[Step]) -> None:
        """Raises Deviated; ChainError if a step can't be done."""
        try:
            for step in steps:
                await self._do(step)
            for task in self._beside:
                await task
        finally:
            for task in self._beside:
                await end(task)
            self._beside.clear()

    async def _do(self, step: Step) -> None:
        if isinstance(step, Fault):
            await self._inject(step)
        elif isinstance(step, End):
            await self._end(step.end)
        elif isinstance(step, Run) and step.beside:
            self._beside.append(asyncio.create_task(self._operate(step), name=step.run))
        elif isinstance(step, Run):
            await self._operate(step)
        elif isinstance(step, Until):
            await self._await(step)
        elif isinstance(step, Pause):
            await asyncio.sleep(step.pause_s)
        else:
            await self._say(step)

    async def undo(self) -> tuple[Rollback, ...]:
        """Takes every fault back, the latest first; none that fails keeps the others. Idempotent."""
        results: list[Rollback] = []
        for active in reversed(self._faults):
            if active.timer is not None and active.timer is not asyncio.current_task():
                await end(active.timer)
            results += await self._take_back(active)
        network = self.scene.ground.network
        if network is not None:
            await network.heal()
        return tuple(results)

    @property
    def undone(self) -> bool:
        return all(active.undos.done() for active in self._faults)

    # Faults.

    async def _inject(self, fault: Fault) -> None:
        called, undos = fault.name or kind_of(fault), Undos()
        active = Active(ActiveFault(kind_of(fault), "", self.scene.now_s(), None), undos)
        self._faults.append(active)
        self._names[called] = active
        target = await fault.inject(self.scene.ground, undos)
        active.fault = replace(active.fault, target=target)
        self.scene.timeline.append(Entry(active.fault.from_s, Moment.FAULT, f"{kind_of(fault)}: {target}"))
        if active.undos.done():  # it was over at once
            active.fault = replace(active.fault, to_s=self.scene.now_s())
        if fault.for_s is not None:
            active.timer = asyncio.create_task(self._later(active, fault.for_s), name=f"end of {called}")

    async def _later(self, active: Active, for_s: float) -> None:
        await asyncio.sleep(for_s)
        self.rollbacks += await self._take_back(active)

    async def _end(self, name: str) -> None:
        active = self._names[name]
        if active.timer is not None:
            await end(active.timer)
        results = await self._take_back(active)
        self.rollbacks += results
        failed = [r for r in results if not r.ok]
        if failed:
            raise Refused(f"{failed[0].action} failed: {failed[0].error}")

    async def _take_back(self, active: Active) -> tuple[Rollback, ...]:
        if active.undos.done():
            return ()
        results = await active.undos.run()
        if active.undos.done():
            active.fault = replace(active.fault, to_s=self.scene.now_s())
            self.scene.note(Moment.UNDONE, f"{active.fault.kind}: {active.fault.target}")
        return results

    # What an operator does.

    async def _operate(self, step: Run) -> None:
        given = {name: await self._resolved(value) for name, value in step.given.items()}
        said = " ".join([step.run, *(f"{k}={v}" for k, v in given.items())])
        if step.killed_at is not None:
            self.scene.note(Moment.OPERATOR, f"{said}, by a process that is killed at {step.killed_at}")
            await self._run_and_kill(step, given)
            return
        self.scene.note(Moment.OPERATOR, said)
        came_to, why = "done", ""
        try:
            async with asyncio.timeout(step.timeout_s):
                await self._execute(step.run, given)
        except TimeoutError:
            came_to, why = "failed", f"not done within {step.timeout_s:g} s"
        except ChainError as error:
            came_to, why = ("refused" if isinstance(error, Refused) else "failed"), error.message
        self.scene.note(Moment.NOTE, f"{step.run}: {came_to}{why and f' ({why})'}")
        if step.expect not in (came_to, "any"):
            raise Deviated(f"{said} was to be {step.expect}, and {came_to}{why and f': {why}'}")

    async def _execute(self, name: str, given: dict[str, Any]) -> None:
        """As a person does: what got no answer is given again, and carries on."""
        operator, why = self.scene.ground.operator, f"drill {self.drill.name}"
        while True:
            try:
                await execute(operator, load_playbook(name), given, by=BY, why=why)
            except Unavailable as error:
                self.scene.note(Moment.NOTE, f"{name}: {error.message}; given again")
                await asyncio.sleep(1.0)
            else:
                return

    async def _run_and_kill(self, step: Run, given: dict[str, Any]) -> None:
        ground = self.scene.ground
        folder = ground.chain.folder.resolve() / "operators"
        folder.mkdir(exist_ok=True)
        config = str(ground.chain.config_path_of("operator").resolve())
        told = [f"{name}={value}" for name, value in given.items()]
        argv = [sys.executable, "-m", "failover", "playbook", "run", step.run, *told]
        version = (await ground.fleet.registry.topology()).version
        await asyncio.to_thread(
            processes.spawn, [*argv, "--yes", "--config", config], cwd=folder, log=folder / "operator.log"
        )
        try:
            async with asyncio.timeout(step.timeout_s):
                while True:
                    topology = await ground.fleet.registry.topology()
                    if topology.run is not None and topology.run.has_begun(step.killed_at or ""):
                        break
                    if topology.run is None and topology.version > version + 1:
                        raise Refused(f"{step.run} was over before it could be killed")
                    await asyncio.sleep(0.002)
        except TimeoutError:
            raise Refused(f"{step.run} did not come to {step.killed_at}") from None
        finally:
            await asyncio.to_thread(processes.kill_all, folder)

    async def _resolved(self, value: str | int | bool) -> str | int | bool:
        return await self.scene.ground.node(value) if value in PLACES else value

    async def _say(self, step: Do) -> None:
        ground = self.scene.ground
        self.scene.note(Moment.OPERATOR, step.do)
        registry = ground.operator.registry
        why = f"drill {self.drill.name}"
        if step.do == "pause-automation":
            await registry.decide(pause_automation(BY, why), by=BY, why=why)
        elif step.do == "resume-automation":
            await registry.decide(resume_automation(), by=BY, why=why)
        elif step.do == "acknowledge-failover":
            await registry.decide(acknowledge_failover(), by=BY, why=why)
        else:
            await ground.chain.start_registry()
            await ground.chain.start(*(n.name for n in ground.config.nodes))

    # Waiting.

    async def _await(self, step: Until) -> None:
        probe, looks, until = step.until, 0, self.scene.now_s() + step.within_s
        while True:
            seen = await look(probe, self.scene)
            looks += 1
            if seen.ok:
                break
            if self.scene.now_s() >= until:
                break
            await asyncio.sleep(0.15)
        self.results.append(
            result(probe, seen, Phase.DURING, self.scene, looks, f"within {step.within_s:g} s")
        )
        if not seen.ok:
            raise Deviated(
                f"not within {step.within_s:g} s: {name_of(probe)} {probe.tolerance}; it was {seen.value}"
            )


async def look(probe: Probe, scene: Scene) -> Look:
    """One look; what can't be found out is unknown."""
    try:
        async with asyncio.timeout(LOOK_S):
            return await probe.look(scene)
    except TimeoutError:
        return Look(None, f"no answer within {LOOK_S:g} s")
    except ChainError as error:
        return Look(None, error.message)


def result(
    probe: Probe, seen: Look, phase: Phase, scene: Scene, takes: int = 1, bound: str = ""
) -> ProbeResult:
    tolerance = ", ".join(part for part in (probe.tolerance, bound) if part)
    return ProbeResult(phase, name_of(probe), tolerance, seen.value, seen.ok, scene.now_s(), takes)
