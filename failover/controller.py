"""The controller: observe, diagnose, decide, act - level-triggered, for ever.

Any number of them may run, anywhere; none is needed for safety, and no leader among them: an action is a
playbook run, of which there is one at a time, and every epoch and every lease is given once.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from chain.config import AutomationConfig
from chain.errors import Busy, ChainError, Overtaken
from chain.tasks import end
from chain.topology import Topology
from failover.diagnosis import Diagnosis, Head, diagnose
from failover.fleet import Fleet
from failover.observer import Observer
from failover.playbook import load_playbook
from failover.rules import Action, Judgement, judge
from failover.runner import StepReport, execute, resume

log = logging.getLogger(__name__)

REST_S: Final = 15.0
"""How long something that failed is left alone, at the most."""
BUSY_S: Final = 1.0
"""How long a controller waits when another is at work, or when a failover has failed for the first time."""
_KEPT: Final = 100


@dataclass(frozen=True, slots=True)
class Said:
    """A judgement that a controller came to, when it came to another one than before."""

    at: datetime
    by: str
    number: int
    rule: str
    action: str
    sentence: str
    seen: Mapping[str, Any]


@dataclass(slots=True)
class Controller:
    """A controller, called `name`. `run` ends by cancellation."""

    fleet: Fleet
    policy: AutomationConfig
    name: str
    judgement: Judgement | None = None
    diagnosis: Diagnosis | None = None
    said: deque[Said] = field(default_factory=lambda: deque(maxlen=_KEPT))
    turned_at: float = 0.0
    """When it last went round its loop, by its monotonic clock."""
    last_error: str = ""
    runs: int = 0
    """Runs that it began or carried on."""
    _observer: Observer = field(init=False)
    _acting: asyncio.Task[None] | None = None
    _urgent: bool = False
    _resting: dict[str, float] = field(default_factory=dict)
    """What failed, by rule and by node, and until when it is left alone."""
    _failures: int = 0
    """Of runs, one after the other."""
    _recorded: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self._observer = Observer(self.fleet, self.policy.every)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._observer.run(), name="observe")
            tasks.create_task(self._conduct(), name="decide")

    async def _conduct(self) -> None:
        try:
            while True:
                await self._turn()
                await self._observer.wait_news(self.policy.every)
        finally:
            if self._acting is not None:
                await end(self._acting)

    async def _turn(self) -> None:
        now = self.turned_at = asyncio.get_running_loop().time()
        self._resting = {what: until for what, until in self._resting.items() if until > now}
        picture = self._observer.picture()
        if picture.topology is None and picture.registry_lost_since is None:
            return  # nothing was looked at yet
        if picture.topology is not None and picture.topology.head not in picture.sights:
            return
        self.diagnosis = diagnose(picture, self.policy, self._resting)
        self.judgement = judge(self.diagnosis, self.policy.never)
        await self._say(self.judgement, self.diagnosis)
        if self.judgement.rule.action in (Action.RUN, Action.RESUME):
            assert picture.topology is not None
            await self._act(self.judgement, picture.topology)

    async def _act(self, judgement: Judgement, seen: Topology) -> None:
        """Begins what the rule says, beside the loop. What is urgent ends what is not."""
        if judgement.rule.name in self._resting:
            return
        urgent = judgement.playbook == "failover"
        if self._acting is not None and not self._acting.done():
            if not urgent or self._urgent:
                return
            await end(self._acting)
        self._urgent = urgent
        self._acting = asyncio.create_task(self._do(judgement, seen), name=judgement.rule.name)

    async def _do(self, judgement: Judgement, seen: Topology) -> None:
        """Does what was judged right for the chain as `seen`, and only for that."""
        by = f"controller {self.name}"
        why = f"rule {judgement.number}, {judgement.rule.name}: {judgement.sentence}"
        try:
            if judgement.rule.action is Action.RESUME:
                await resume(self.fleet, seen.run.id if seen.run else None, by=by, watch=_log)
            else:
                playbook, given = load_playbook(judgement.playbook), dict(judgement.parameters)
                await execute(self.fleet, playbook, given, by=by, why=why, watch=_log, seen=seen)
            self.runs += 1
            self._failures = 0
            self.last_error = ""
        except (Busy, Overtaken) as error:
            self._rest(judgement, BUSY_S, error)
        except ChainError as error:
            self._failures += 1
            lost = self.diagnosis is not None and self.diagnosis.signs.head is Head.LOST
            self._rest(judgement, min(REST_S, BUSY_S * 2**self._failures) if lost else REST_S, error)

    def _rest(self, judgement: Judgement, rest_s: float, error: ChainError) -> None:
        self.last_error = f"{judgement.rule.name}: {error.message}"
        log.warning("%s", self.last_error)
        until = asyncio.get_running_loop().time() + rest_s
        self._resting[judgement.rule.name] = until
        for name, value in judgement.parameters:
            if name == "node" and rest_s == REST_S:
                self._resting[str(value)] = until

    async def _say(self, judgement: Judgement, diagnosis: Diagnosis) -> None:
        """Notes a judgement that is another than the one before, and records it for everyone, if it can."""
        key = (judgement.rule.name, diagnosis.head, judgement.playbook, str(judgement.parameters))
        if key == self._recorded:
            return
        self._recorded = key
        log.info("rule %d, %s: %s", judgement.number, judgement.rule.name, judgement.sentence)
        said = Said(
            datetime.now(UTC),
            self.name,
            judgement.number,
            judgement.rule.name,
            judgement.rule.action.value,
            judgement.sentence,
            _seen(diagnosis),
        )
        self.said.append(said)
        try:
            async with asyncio.timeout(1.0):
                await self.fleet.registry.note(_as_json(said))
        except (ChainError, TimeoutError) as error:
            log.debug("the judgement is not recorded: %s", error)


def _seen(diagnosis: Diagnosis) -> dict[str, Any]:
    signs = diagnosis.signs
    return {
        "head": signs.head.value,
        "candidate": signs.candidate.value,
        "unfinished": signs.unfinished.value,
        "lost": signs.lost.value,
        "registry": signs.registry,
        "paused": signs.paused,
        "automatic": signs.automatic,
        "cooling": signs.cooling,
        "returning": diagnosis.returning,
        "homesick": signs.homesick,
        "loss_events": diagnosis.loss_events,
        "behind_s": diagnosis.behind_s,
        "lease_left_s": diagnosis.lease_left_s,
        "why": diagnosis.why,
    }


def _as_json(said: Said) -> dict[str, Any]:
    return {
        "by": said.by,
        "number": said.number,
        "rule": said.rule,
        "action": said.action,
        "sentence": said.sentence,
        "seen": dict(said.seen),
    }


def _log(report: StepReport) -> None:
    if report.state == "failed":
        log.warning("%s failed: %s", report.step, report.error)
    elif report.state != "begun":
        log.info("%s %s (%.0f ms)", report.step, report.state, report.seconds * 1000)
