"""Runs playbooks: step by step, journaled in the registry before and after each, so that any run can be
carried on by anyone from where it stopped.

A run carries the text of its playbook: it goes on with the steps that it began with, wherever it is resumed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, wait_random

from chain.commands import busy, finish_run, finish_step, start_run, start_step
from chain.errors import Busy, ChainError, NotApproved, Overtaken, Refused, TimedOut, Unavailable
from chain.tasks import end
from chain.topology import Run, Topology
from failover.fleet import Fleet
from failover.plan import may_end, plan, same
from failover.playbook import Playbook, Step
from failover.steps import STEPS, Context
from failover.steps.context import LOOK_S


@dataclass(frozen=True, slots=True)
class StepReport:
    """What a step did, for who watches the run."""

    step: str
    state: str
    """`begun`, `done`, `skipped` (an earlier runner did it), `failed`, `undone`."""
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


async def execute(
    fleet: Fleet,
    playbook: Playbook,
    given: Mapping[str, Any],
    *,
    by: str,
    why: str = "",
    watch: Watcher = lambda report: None,
    seen: Topology | None = None,
) -> Done:
    """Runs the playbook, or carries on the run of it that was left unfinished.

    `seen` is the chain that this was decided on; if it is another by now, raises Overtaken: what was right
    then may be a second failover now. Raises Busy if another is at work; else what a step raises, after
    undoing what can be undone.
    """
    parameters = playbook.arguments(given)
    async with _alone(fleet, urgent=playbook.urgent):
        topology = await fleet.registry.topology()
        if seen is not None and _ground(topology) != _ground(seen):
            raise Overtaken(
                f"the chain has changed since {playbook.name} was decided on",
                hint="look at it again: chainctl status",
            )
        unfinished = topology.run
        if unfinished is not None and not same(unfinished, playbook, parameters):
            if not may_end(playbook, unfinished):
                raise busy(unfinished)
            reason = f"{playbook.name} was more urgent"
            await fleet.registry.decide(finish_run(unfinished.id, "aborted", reason), by=by)
            unfinished = None
        run = unfinished or await _start(fleet, playbook, parameters, by, why)
        runner = _Runner(fleet, _playbook_of(run), run.id, by, why, watch)
        return await runner.run(resumed=unfinished is not None)


async def resume(
    fleet: Fleet, run: UUID | None = None, *, by: str, watch: Watcher = lambda report: None
) -> Done:
    """Carries on the unfinished run, whoever began it. Raises Busy, and Overtaken unless it is `run`."""
    unfinished = _unfinished((await fleet.registry.topology()).run, run)
    async with _alone(fleet, urgent=_playbook_of(unfinished).urgent):
        unfinished = _unfinished((await fleet.registry.topology()).run, run)
        runner = _Runner(fleet, _playbook_of(unfinished), unfinished.id, by, "", watch)
        return await runner.run(resumed=True)


async def abort(
    fleet: Fleet,
    run: UUID | None = None,
    *,
    by: str,
    why: str = "",
    watch: Watcher = lambda report: None,
) -> Run:
    """Undoes and ends the unfinished run. Raises Refused if it is past its point of no return; Busy."""
    unfinished = _unfinished((await fleet.registry.topology()).run, run)
    async with _alone(fleet, urgent=_playbook_of(unfinished).urgent):
        unfinished = _unfinished((await fleet.registry.topology()).run, run)
        runner = _Runner(fleet, _playbook_of(unfinished), unfinished.id, by, why, watch)
        await runner.abort(why or "aborted by the operator")
        return unfinished


@asynccontextmanager
async def _alone(fleet: Fleet, *, urgent: bool) -> AsyncIterator[None]:
    """Keeps others off the chain. Raises Busy, which names the run that is under way, if there is one yet."""
    async with AsyncExitStack() as stack:
        try:
            await stack.enter_async_context(fleet.registry.hold(urgent=urgent))
        except Busy:
            under_way = (await fleet.registry.topology()).run
            if under_way is None:
                raise
            raise busy(under_way) from None
        yield


def _ground(topology: Topology) -> tuple[object, ...]:
    """What a judgement rests on, of all that is decided."""
    return topology.epoch, topology.order, topology.paused, topology.failed_over_at


async def _start(fleet: Fleet, playbook: Playbook, parameters: Mapping[str, Any], by: str, why: str) -> Run:
    """Records the beginning of a run. Raises Refused if it needs an approval that it does not have."""
    approved = ""
    if any(step.approval for step in playbook.steps):
        approved = await _approved_plan(fleet, playbook, parameters)
    topology = await fleet.registry.decide(
        start_run(uuid4(), playbook.name, parameters, by, text=playbook.model_dump_json(), plan=approved),
        by=by,
        why=why,
    )
    assert topology.run is not None
    return topology.run


async def _approved_plan(fleet: Fleet, playbook: Playbook, parameters: Mapping[str, Any]) -> str:
    """The hash of the plan as it is now, if it is approved."""
    now = await plan(fleet, playbook, parameters)
    approvals = (await fleet.registry.topology()).approvals
    clock = await fleet.registry.clock()
    hint = f"look at it: chainctl playbook plan {playbook.name}; then: chainctl playbook approve"
    for approval in approvals:
        if approval.plan == now.hash:
            if approval.until < clock:
                raise NotApproved(f"the approval by {approval.by} has expired at {approval.until}", hint=hint)
            return now.hash
    others = ", ".join(f"{a.plan[:12]} (by {a.by})" for a in approvals) or "none"
    raise NotApproved(
        f"{playbook.name} needs an approval of plan {now.hash[:12]}, of the chain as it is now;"
        f" approved are: {others}",
        hint=hint,
    )


def _unfinished(run: Run | None, wanted: UUID | None) -> Run:
    if run is None:
        raise Overtaken("no run is unfinished", hint="see what was done: chainctl history")
    if wanted is not None and run.id != wanted:
        raise Overtaken(
            f"run {wanted} is not unfinished; {run.playbook} (run {run.id}) is",
            hint="see what was done: chainctl history",
        )
    return run


def _playbook_of(run: Run) -> Playbook:
    return Playbook.model_validate_json(run.text)


@dataclass(slots=True)
class _Runner:
    fleet: Fleet
    playbook: Playbook
    id: UUID
    by: str
    why: str
    watch: Watcher
    at: dict[str, float] = field(default_factory=dict)
    kept: dict[str, Any] = field(default_factory=dict)
    """What its steps keep for each other."""

    async def run(self, *, resumed: bool) -> Done:
        results: dict[str, Mapping[str, Any]] = {}
        run = await self._current()
        for step, following in zip(self.playbook.steps, (*self.playbook.steps[1:], None), strict=True):
            try:
                run = await self._do(step, run, following)
            except ChainError as error:
                self.watch(StepReport(step.step, "failed", error=error.message))
                await self._fail(step, error)
                raise
            results[step.step] = run.result(step.step) or {}
        topology = await self._finish("done", "")
        return Done(self.id, resumed, topology, results, self.at)

    async def _do(self, step: Step, run: Run, following: Step | None) -> Run:
        """Does a step, unless it was done before; returns the run with it."""
        before = run.result(step.step)
        if before is not None:
            self.at[step.step] = self._now()
            self.watch(StepReport(step.step, "skipped", result=before))
            return run
        if not run.has_begun(step.step):  # one that has begun may have changed what these ask
            if step.approval:
                await self._check_approval(step, run)
            for check in step.precheck:
                await self._bounded(check, step.timeout_s, run)
            run = self._of(await self.fleet.registry.decide(start_step(self.id, step.step), by=self.by))
        self.watch(StepReport(step.step, "begun"))
        start = self._now()
        result = await self._try(step, run)
        # The end of one and the beginning of the next are one decision: a move pauses the writes meanwhile.
        then = following.step if following and not (following.approval or following.precheck) else None
        finish = finish_step(self.id, step.step, result, then=then)
        run = self._of(await self.fleet.registry.decide(finish, by=self.by))
        self.at[step.step] = self._now()
        self.watch(StepReport(step.step, "done", self.at[step.step] - start, result))
        return run

    async def _try(self, step: Step, run: Run) -> Mapping[str, Any]:
        retrying = AsyncRetrying(
            retry=retry_if_exception(lambda e: isinstance(e, ChainError) and e.retriable),
            stop=stop_after_attempt(step.retry + 1),
            wait=wait_random(0.05, 0.25),
            reraise=True,
        )
        result: Mapping[str, Any] = await retrying(self._bounded, step.step, step.timeout_s, run)
        return result

    async def _bounded(self, name: str, timeout_s: float, run: Run) -> Mapping[str, Any]:
        """A check, a step or an undo; it is given up as soon as its run was ended by another."""
        kind = STEPS.get(name)
        if kind is None:
            raise Refused(
                f"{name} is no step that this geochain knows",
                hint="another version began the run: carry it on with that one, or: chainctl playbook abort",
            )
        work = kind.do(Context(self.fleet, run, self.by, self.why, self.kept))
        doing = asyncio.ensure_future(work)
        try:
            async with asyncio.timeout(timeout_s):
                while not (await asyncio.wait({doing}, timeout=LOOK_S))[0]:
                    with suppress(Unavailable):  # then nobody else ends it either
                        await self._current()
                return doing.result()
        except TimeoutError:
            raise TimedOut(
                f"{name} was not done within {timeout_s:g} s",
                hint="see why: chainctl status",
            ) from None
        finally:
            await end(doing)

    async def _check_approval(self, step: Step, run: Run) -> None:
        if run.approval is None:
            raise NotApproved(f"{step.step} needs an approval, and this run has none")
        if run.approval.until < await self.fleet.registry.clock():
            raise NotApproved(
                f"the approval by {run.approval.by} has expired at {run.approval.until}",
                hint=f"begin again: chainctl playbook plan {self.playbook.name}",
            )

    async def _fail(self, step: Step, error: ChainError) -> None:
        failing = self.playbook.failing(step)
        # What a guard refuses was not done, so that even a point of no return has not been passed.
        if step.point_of_no_return and not isinstance(error, Refused) and step.on_failure is None:
            failing = "stop"
        if failing == "stop":
            return
        if failing == "undo":
            await self._undo()
        await self._finish("failed", error.message)

    async def abort(self, reason: str) -> None:
        """Undoes and ends a run that nobody carries on. Raises Refused past the point of no return."""
        point = self.playbook.steps[self.playbook.point_of_no_return].step
        if point in {step.name for step in (await self._current()).steps}:
            raise Refused(
                f"{self.playbook.name} is past its point of no return",
                hint="carry it on: chainctl playbook resume",
            )
        await self._undo()
        await self._finish("aborted", reason)

    async def _undo(self) -> None:
        """Takes back, in reverse, what was begun and has an undo."""
        names = {step.name for step in (await self._current()).steps}
        for step in reversed(self.playbook.steps):
            if step.undo is not None and step.step in names:
                await self._bounded(step.undo, step.timeout_s, await self._current())
                self.watch(StepReport(step.undo, "undone"))

    async def _current(self) -> Run:
        return self._of(await self.fleet.registry.topology())

    def _of(self, topology: Topology) -> Run:
        """The run, if it is still the one that is under way. Raises Overtaken."""
        if topology.run is None or topology.run.id != self.id:
            raise Overtaken(
                f"run {self.id} was ended by another", hint="see by whom and why: chainctl history"
            )
        return topology.run

    async def _finish(self, outcome: str, reason: str) -> Topology:
        finish = finish_run(self.id, outcome, reason)
        return await self.fleet.registry.decide(finish, by=self.by, why=self.why)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()
