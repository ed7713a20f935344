"""Runs a drill on a stage of its own, and makes its record: whatever happens, the stage is cleared.

The hypothesis is looked at before there is any fault, all the time, and when everything has been taken back;
then the workload ends, and what its callers were told is held against what all nodes hold.
"""

from __future__ import annotations

import asyncio
import logging
import platform
import time
from collections.abc import Awaitable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from chain.errors import ChainError
from chain.tasks import end
from failover.drills.aftermath import chain_state, start_everything, verified, wait_equal
from failover.drills.checker import Checked, check
from failover.drills.drill import Drill, text_hash
from failover.drills.final import read_final
from failover.drills.history import History
from failover.drills.method import Deviated, Method, look, result
from failover.drills.probes import (
    ChainWhole,
    HistoryConsistent,
    LedgerComplete,
    NothingLost,
    OneWritableHead,
    Probe,
    RecoveredInTime,
    VerifiedEqual,
    WritesFlow,
    name_of,
)
from failover.drills.record import (
    ChainState,
    DrillRecord,
    Entry,
    Moment,
    Outcome,
    Phase,
    ProbeResult,
    Rollback,
    Versions,
    to_json,
)
from failover.drills.scene import Scene
from failover.drills.score import scored
from failover.drills.stage import surely
from failover.drills.timeline import entries, longest_pause, recovery

log = logging.getLogger(__name__)

EVERY_S = 0.4
"""How often the hypothesis is looked at during the method."""
BEFORE_S = 60.0
"""How long a new chain may take until the hypothesis holds."""
ROLLBACK_S = 120.0
"""How long one of the drill's own rollbacks may take."""
STEADY: tuple[Probe, ...] = (ChainWhole(probe="chain-whole"), WritesFlow(probe="writes-flow"))
"""What holds before and after every drill."""
ALWAYS: tuple[Probe, ...] = (OneWritableHead(probe="one-writable-head"),)
"""What holds all the time."""
FINALLY: tuple[Probe, ...] = (
    VerifiedEqual(probe="verified"),
    NothingLost(probe="nothing-lost"),
    HistoryConsistent(probe="history-consistent"),
    LedgerComplete(probe="ledger-complete"),
    RecoveredInTime(probe="recovered-in-time"),
)
"""What holds at the end of every drill, when nobody writes any more."""


async def run_drill(
    drill: Drill,
    text: str,
    folder: Path,
    stage: AbstractAsyncContextManager[Scene],
    *,
    seed: int,
    stop: asyncio.Event,
) -> DrillRecord:
    """Runs it on `stage`, and writes `record.json` into `folder`. Ends early, in good order, on `stop`.

    Raises nothing that went wrong with the drill: that is in the record.
    """
    await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
    run = _Run(drill, text, seed, stop)
    try:
        async with stage as scene:
            await run.on(scene)
    except asyncio.CancelledError:
        run.failed(Outcome.INTERRUPTED, "cancelled")
        raise
    except Exception as error:
        run.failed(Outcome.NOT_RUN if run.scene is None else Outcome.FAILED, _said(error))
    finally:
        record = run.record()
        await asyncio.to_thread(_write, folder / "record.json", to_json(record))
    return record


@dataclass(slots=True)
class _Run:
    drill: Drill
    text: str
    seed: int
    stop: asyncio.Event
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    outcome: Outcome = Outcome.FAILED
    errors: list[str] = field(default_factory=list)
    scene: Scene | None = None
    method: Method | None = None
    probes: list[ProbeResult] = field(default_factory=list)
    rollbacks: list[Rollback] = field(default_factory=list)
    before: ChainState | None = None
    after: ChainState | None = None
    deviated: bool = False
    postgres: dict[str, str] = field(default_factory=dict)
    method_s: float = 0.0
    """When the method began."""
    healthy_s: float | None = None

    def failed(self, outcome: Outcome, why: str) -> None:
        """Notes why it could not be carried through, unless it was ended before."""
        self.errors.append(why)
        if self.outcome is not Outcome.INTERRUPTED:
            self.outcome = outcome

    async def on(self, scene: Scene) -> None:
        """The whole drill on a stage. What was done is taken back, however it ends."""
        self.scene, self.method = scene, Method(self.drill, scene)
        assert scene.workload is not None
        sampling = asyncio.create_task(scene.sample(), name="sample")
        history: History | None = None
        try:
            await scene.workload.start()
            why = await self._why_not_begun(scene)
            if self.stop.is_set():
                self.failed(Outcome.INTERRUPTED, "interrupted")
                return
            if why:
                self.failed(Outcome.NOT_RUN, why)
                return
            await self._live(scene, self.method)
            history = await scene.workload.stop()
            await end(sampling)
            await self._judge(scene, self.method, history)
        finally:
            await surely(self._leave(scene, self.method, sampling))

    async def _leave(self, scene: Scene, method: Method, sampling: asyncio.Task[None]) -> None:
        """Whatever happened: nothing of ours goes on, nothing stays injected."""
        await end(sampling)
        self.rollbacks += await method.undo()
        if scene.workload is not None:
            try:
                await scene.workload.stop(settle_s=0.0)
            except Exception as error:
                self.errors.append(f"the workload failed: {error}")

    # Before.

    async def _why_not_begun(self, scene: Scene) -> str:
        """What of the hypothesis does not hold before there is a fault; empty if all does."""
        hypothesis = self.drill.hypothesis
        results = await self._settled(scene, _once(STEADY, hypothesis.before), Phase.BEFORE, BEFORE_S)
        self.before = await chain_state(scene)
        scene.ground.first = await scene.topology()
        for node in scene.ground.config.nodes:
            async with scene.ground.sql(node.name) as connection:
                self.postgres[node.name] = str(await connection.fetchval("show server_version"))
        wrong = [f"{r.probe}: {r.value}" for r in results if not r.ok]
        return f"the hypothesis did not hold before: {'; '.join(wrong)}" if wrong else ""

    async def _settled(
        self, scene: Scene, probes: Sequence[Probe], phase: Phase, within_s: float
    ) -> list[ProbeResult]:
        """Looks until all hold at once, for `within_s` at most, and notes what was seen last."""
        until, takes = scene.now_s() + within_s, 0
        while True:
            takes += 1
            results = [result(p, await look(p, scene), phase, scene, takes) for p in probes]
            if all(r.ok for r in results) or scene.now_s() >= until or self.stop.is_set():
                self.probes += results
                return results
            await asyncio.sleep(0.2)

    # During.

    async def _live(self, scene: Scene, method: Method) -> None:
        """The method, until it ends or is to be stopped; then everything is taken back, and awaited."""
        self.method_s = scene.now_s()
        watching = asyncio.create_task(self._watch(scene), name="watch")
        working = asyncio.create_task(method.run(self.drill.method), name="method")
        stopped = asyncio.create_task(self.stop.wait(), name="stop")
        try:
            await asyncio.wait(
                {watching, working, stopped},
                timeout=self.drill.limit_s,
                return_when=asyncio.FIRST_COMPLETED,
            )
            self._note_end(scene, working, watching)
        finally:
            for task in (working, stopped):
                await end(task)
            await surely(self._take_back(scene, method))
            if not watching.done():
                await end(watching)
        await self._settle(scene)

    def _note_end(self, scene: Scene, working: asyncio.Task[None], watching: asyncio.Task[str]) -> None:
        """Why the method ended."""
        if self.stop.is_set():
            self.failed(Outcome.INTERRUPTED, "interrupted")
        elif working.done():
            self.outcome = Outcome.HELD
            error = working.exception()
            if isinstance(error, Deviated):
                self.deviated = True
                scene.note(Moment.NOTE, f"deviated: {error}")
                self.errors.append(str(error))
            elif error is not None:
                self.failed(Outcome.FAILED, f"the method failed: {_said(error)}")
        elif watching.done():
            self.failed(Outcome.INTERRUPTED, f"stopped: {watching.result()}")
        else:
            self.deviated = True
            self.outcome = Outcome.HELD
            self.errors.append(f"the method took longer than {self.drill.limit_s:g} s")

    async def _watch(self, scene: Scene) -> str:
        """Looks at the hypothesis again and again; returns why the drill is to be stopped."""
        kept: dict[Probe, tuple[ProbeResult | None, ProbeResult]] = {}
        takes = 0
        try:
            while True:
                takes += 1
                for probe in _once(ALWAYS, self.drill.hypothesis.during):
                    seen = result(probe, await look(probe, scene), Phase.DURING, scene, takes)
                    worst = kept[probe][0] if probe in kept else None
                    if seen.ok is False and worst is None:
                        worst = seen
                    kept[probe] = worst, seen
                for probe in self.drill.stop_when_not:
                    seen_now = await look(probe, scene)
                    if seen_now.ok is False:
                        return f"{name_of(probe)} does not hold: {seen_now.value}"
                await asyncio.sleep(EVERY_S)
        finally:
            for worst, latest in kept.values():
                self.probes += [worst] if worst is not None and worst is not latest else []
                self.probes.append(latest)

    async def _take_back(self, scene: Scene, method: Method) -> None:
        """Faults first, then whatever does not run is started, then the drill's own rollbacks."""
        self.rollbacks += method.rollbacks
        self.rollbacks += await method.undo()
        await self._roll_back("start everything that does not run", start_everything(scene))
        for step in self.drill.rollbacks:
            await self._roll_back(step.model_dump_json(exclude_unset=True), method.run((step,)))

    async def _roll_back(self, what: str, work: Awaitable[None]) -> None:
        start, error = time.monotonic(), ""
        try:
            async with asyncio.timeout(ROLLBACK_S):
                await work
        except Exception as failure:
            error = _said(failure)
        self.rollbacks.append(Rollback(what, not error, time.monotonic() - start, error))

    # After.

    async def _settle(self, scene: Scene) -> None:
        live = _once(STEADY, [probe for probe in self.drill.hypothesis.after if not probe.final])
        results = await self._settled(scene, live, Phase.AFTER, self.drill.settle_s)
        if all(r.ok for r in results):
            self.healthy_s = scene.now_s()
            scene.note(Moment.HEALTHY, "all is in its place, and the hypothesis holds")

    async def _judge(self, scene: Scene, method: Method, history: History) -> None:
        """What was told against what is there, when nobody writes any more."""
        await wait_equal(scene)
        topology = await scene.topology()
        scene.findings.verifier = await verified(scene)
        stores = {n.name: scene.ground.fleet.store(n.name) for n in scene.ground.config.nodes}
        checked: Checked = check(history, await read_final(stores, topology, history.start))
        targets = self.drill.targets
        scene.findings.check = checked.result()
        scene.findings.loss = checked.loss(target_lost=targets.lost, target_in_ledger=targets.in_ledger)
        await self._add_books(scene)
        self._measure(scene, method, history)
        self.after = await chain_state(scene)
        for probe in _once(FINALLY, [probe for probe in self.drill.hypothesis.after if probe.final]):
            self.probes.append(result(probe, await look(probe, scene), Phase.AFTER, scene))

    def _measure(self, scene: Scene, method: Method, history: History) -> None:
        first_s = min((f.from_s for f in method.faults), default=self.method_s)
        last_s = self.healthy_s or scene.now_s()
        pause = longest_pause(history, scene.began, first_s, last_s)
        targets = self.drill.targets
        scene.findings.recovery = recovery(
            scene.timeline,
            pause,
            first_s,
            self.healthy_s,
            target_s=targets.pause_s,
            healthy_target_s=targets.healthy_s,
        )
        if pause is not None and pause[1] - pause[0] > 0.5:
            text = f"writes are acknowledged again, after {pause[1] - pause[0]:.2f} s"
            scene.timeline.append(Entry(pause[1], Moment.FIRST_WRITE, text))
            scene.timeline.sort(key=lambda entry: entry.at_s)

    async def _add_books(self, scene: Scene) -> None:
        registry = scene.ground.fleet.registry
        scene.timeline += entries(await registry.history(), await registry.notes(), scene.began)
        scene.timeline.sort(key=lambda entry: entry.at_s)

    def record(self) -> DrillRecord:
        """Everything that is known now."""
        scene, method = self.scene, self.method
        made = DrillRecord(
            name=self.drill.name,
            title=self.drill.title,
            text_hash=text_hash(self.text),
            versions=Versions(
                version("geochain"), platform.python_version(), self.postgres, platform.platform()
            ),
            seed=self.seed,
            command=f"chainctl drill run {self.drill.name} --seed {self.seed}",
            started_at=self.started_at,
            ended_at=datetime.now(UTC),
            outcome=self._outcome(),
            chain="" if scene is None else scene.ground.config.chain,
            text=self.text,
            workload="" if scene is None or scene.workload is None else str(scene.workload.load),
            hypothesis=(*self.probes, *(method.results if method else ())),
            timeline=tuple(scene.timeline) if scene else (),
            faults=method.faults if method else (),
            samples=tuple(scene.samples) if scene else (),
            recovery=scene.findings.recovery if scene else None,
            loss=scene.findings.loss if scene else None,
            before=self.before,
            after=self.after,
            checker=scene.findings.check if scene else None,
            verifier=scene.findings.verifier if scene else None,
            rollbacks=tuple(self.rollbacks),
            errors=tuple(self.errors),
        )
        return replace(made, score=scored(made))

    def _outcome(self) -> Outcome:
        if self.outcome is not Outcome.HELD:
            return self.outcome
        if any(not r.ok for r in self.rollbacks) or (self.method and not self.method.undone):
            return Outcome.FAILED
        held = not self.deviated and all(_held(r) for r in self.probes)
        return Outcome.HELD if held and self._within_targets() else Outcome.DEVIATED

    def _within_targets(self) -> bool:
        """The targets are met, and the checker, which looked at all, found nothing."""
        findings = self.scene.findings if self.scene else None
        if findings is None or findings.check is None or findings.loss is None or findings.recovery is None:
            return False
        met = (findings.loss.met, findings.recovery.met)
        return bool(findings.check.ok) and all(each is not False for each in met)


def _once(always: Sequence[Probe], given: Sequence[Probe]) -> list[Probe]:
    return list(dict.fromkeys((*always, *given)))


def _held(probe: ProbeResult) -> bool:
    """What can't be found out while there are faults is no deviation; afterwards it is."""
    return bool(probe.ok) or (probe.ok is None and probe.phase is Phase.DURING)


def _said(error: BaseException) -> str:
    """An error for the record; one that is not of ours goes to the log, too, with where it came from."""
    if isinstance(error, ChainError):
        return f"{error.message}{error.hint and f' ({error.hint})'}"
    log.error("a drill failed", exc_info=error)
    return f"{type(error).__name__}: {error}"


def _write(path: Path, text: str) -> None:
    """Whole or not at all."""
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)
