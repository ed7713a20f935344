"""Runs playbooks: step by step, journaled in the registry before and after each, so that any run can be
carried on by anyone from where it stopped."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID, uuid4

from chain.commands import busy, finish_run, finish_step, start_run, start_step
from chain.errors import ChainError, Refused, TimedOut
from chain.event import Epoch
from chain.topology import Run, RunStep, Topology
from failover.fleet import Fleet
from failover.playbook import Playbook, Step, load_playbook
from failover.steps import CHECKS, STEPS, Context, Result


@dataclass(frozen=True, slots=True)
class StepReport:
    """What a step did, for who watches the run."""

    step: str
    state: str
    """`begun`, `done`, `skipped` (an earlier runner did it), `failed`."""
    seconds: float = 0.0
    result: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""


@dataclass(frozen=True, slots=True)
class Done:
    """A finished run."""

    run: UUID
    resumed: bool
    topology: Topology
    results: Mapping[str, Mapping[str, Any]]
    at: Mapping[str, float]
    """When each step ended, by this machine's monotonic clock."""


Watcher = Callable[[StepReport], None]


async def plan(fleet: Fleet, playbook: Playbook, parameters: Mapping[str, Any]) -> dict[str, Result]:
    """What a run would find now: does the steps that only look. Changes nothing. Raises what they raise."""
    topology = await fleet.registry.topology()
    unfinished = topology.run
    if unfinished is not None and not _same(unfinished, playbook, parameters):
        if not playbook.urgent:
            raise busy(unfinished)
        unfinished = None
    run = unfinished or Run(uuid4(), playbook.name, parameters, "", Epoch(topology.epoch + 1))
    found: dict[str, Result] = {}
    for step in playbook.steps:
        if step.step in CHECKS:
            result = run.result(step.step)
            if result is None:
                async with asyncio.timeout(step.timeout_s):
                    result = await STEPS[step.step](Context(fleet, run, "", ""))
            found[step.step] = dict(result)
            run = _with_result(run, step.step, result)
    return found


async def execute(
    fleet: Fleet,
    playbook: Playbook,
    parameters: Mapping[str, Any],
    *,
    by: str,
    why: str = "",
    watch: Watcher = lambda report: None,
) -> Done:
    """Runs the playbook, or carries on the run of it that was left unfinished.

    Raises Busy if another is at work; else what a step raises, after undoing what can be undone.
    """
    async with fleet.registry.hold():
        topology = await fleet.registry.topology()
        resumed = topology.run is not None
        if topology.run is not None and not _same(topology.run, playbook, parameters):
            if not playbook.urgent:
                raise busy(topology.run)
            reason = f"{playbook.name} was more urgent"
            topology = await fleet.registry.decide(finish_run(topology.run.id, "aborted", reason), by=by)
            resumed = False
        if topology.run is None:
            topology = await fleet.registry.decide(
                start_run(uuid4(), playbook.name, parameters, by), by=by, why=why
            )
        assert topology.run is not None
        runner = _Runner(fleet, playbook, topology.run.id, by, why, watch)
        return await runner.run(resumed=resumed)


async def abort(fleet: Fleet, *, by: str, why: str = "", watch: Watcher = lambda report: None) -> Run:
    """Undoes and ends the unfinished run. Raises Refused if there is none, Busy if somebody is at it."""
    async with fleet.registry.hold():
        run = (await fleet.registry.topology()).run
        if run is None:
            raise Refused("no run is unfinished")
        runner = _Runner(fleet, load_playbook(run.playbook), run.id, by, why, watch)
        await runner.abort(why or "aborted by the operator")
        return run


@dataclass(slots=True)
class _Runner:
    fleet: Fleet
    playbook: Playbook
    id: UUID
    by: str
    why: str
    watch: Watcher
    at: dict[str, float] = field(default_factory=dict)

    async def run(self, *, resumed: bool) -> Done:
        results: dict[str, Mapping[str, Any]] = {}
        begun: list[Step] = []
        for step in self.playbook.steps:
            begun.append(step)
            try:
                results[step.step] = await self._do(step)
            except ChainError as error:
                self.watch(StepReport(step.step, "failed", error=error.message))
                await self._fail(begun, error)
                raise
        await self._decide_finish("done", "")
        topology = await self.fleet.registry.topology()
        return Done(self.id, resumed, topology, results, self.at)

    async def _do(self, step: Step) -> Mapping[str, Any]:
        run = await self._current()
        before = run.result(step.step)
        if before is not None:
            self.at[step.step] = time.monotonic()
            self.watch(StepReport(step.step, "skipped", result=before))
            return before
        await self.fleet.registry.decide(start_step(self.id, step.step), by=self.by)
        self.watch(StepReport(step.step, "begun"))
        start = time.monotonic()
        try:
            async with asyncio.timeout(step.timeout_s):
                result = await STEPS[step.step](Context(self.fleet, run, self.by, self.why))
        except TimeoutError:
            raise TimedOut(
                f"{step.step} was not done within {step.timeout_s:g} s",
                hint="see why: chainctl status; then give the same command again",
            ) from None
        await self.fleet.registry.decide(finish_step(self.id, step.step, result), by=self.by)
        self.at[step.step] = time.monotonic()
        self.watch(StepReport(step.step, "done", self.at[step.step] - start, result))
        return result

    async def _fail(self, begun: list[Step], error: ChainError) -> None:
        """Undoes and ends the run; behind the point of no return, what may yet succeed is left open."""
        if not any(step.point_of_no_return for step in begun):
            await self.undo(begun)
        elif error.retriable or isinstance(error, TimedOut):
            return
        await self._decide_finish("failed", error.message)

    async def abort(self, reason: str) -> None:
        """Undoes and ends a run that nobody carries on. Raises Refused behind the point of no return."""
        names = {step.name for step in (await self._current()).steps}
        begun = [step for step in self.playbook.steps if step.step in names]
        if any(step.point_of_no_return for step in begun):
            raise Refused(
                f"{self.playbook.name} is behind its point of no return",
                hint="carry it on: give the same command again",
            )
        await self.undo(begun)
        await self._decide_finish("aborted", reason)

    async def undo(self, begun: list[Step]) -> None:
        """Takes back, in reverse, what has an undo."""
        for step in reversed(begun):
            if step.undo is not None:
                run = await self._current()
                await STEPS[step.undo](Context(self.fleet, run, self.by, self.why))
                self.watch(StepReport(step.undo, "done"))

    async def _current(self) -> Run:
        run = (await self.fleet.registry.topology()).run
        assert run is not None
        return run

    async def _decide_finish(self, outcome: str, reason: str) -> None:
        await self.fleet.registry.decide(finish_run(self.id, outcome, reason), by=self.by, why=self.why)


def _same(run: Run, playbook: Playbook, parameters: Mapping[str, Any]) -> bool:
    return run.playbook == playbook.name and dict(run.parameters) == dict(parameters)


def _with_result(run: Run, step: str, result: Mapping[str, Any]) -> Run:
    return replace(run, steps=(*run.steps, RunStep(step, result)))
