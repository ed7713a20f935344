"""Probes: what a hypothesis says of a chain, from a closed list. A probe looks, and changes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Final, Literal, get_args

from pydantic import Discriminator, Field

from chain.acks import Ack
from chain.decisions import EpochGranted
from chain.errors import ChainError
from chain.event import EMPTY
from chain.store import NodeState, Role, Store
from failover import ledger_desk
from failover.document import Closed
from failover.drills.faults.base import Party
from failover.drills.scene import Scene
from failover.fleet import Seen
from replicator.verify import Verdict, Verified, verify_chain

Count = Annotated[int, Field(ge=0, le=10**9)]


@dataclass(frozen=True, slots=True)
class Look:
    """What a probe saw."""

    ok: bool | None
    """None if it could not be found out."""
    value: str


class Probe(Closed):
    """Something that is to hold."""

    final: ClassVar[bool] = False
    """It is known only when the workload has ended and the nodes have been compared."""

    async def look(self, scene: Scene) -> Look:
        raise NotImplementedError

    @property
    def tolerance(self) -> str:
        """What it may be, as written in the drill."""
        given = self.model_dump(mode="json", exclude={"probe"}, exclude_defaults=True)
        return ", ".join(f"{key} {value}" for key, value in given.items())


class OneWritableHead(Probe):
    """At most one node takes writes; it is looked at a second time before two are told."""

    probe: Literal["one-writable-head"]

    async def look(self, scene: Scene) -> Look:
        writable = await self._writable(scene, None)
        if len(writable) > 1:  # the first may have stopped before the second was asked
            writable = await self._writable(scene, writable)
        return Look(len(writable) <= 1, ", ".join(writable) or "none")

    async def _writable(self, scene: Scene, among: list[str] | None) -> list[str]:
        fleet = scene.ground.fleet
        names = among or [n.name for n in scene.ground.config.nodes]
        states = await asyncio.gather(*(_state(fleet.store(n)) for n in names))
        return [n for n, s in zip(names, states, strict=True) if s is not None and s.writable]


class ChainWhole(Probe):
    """Every node is a member, in its place, and copies; nothing is under way."""

    probe: Literal["chain-whole"]
    nodes: Annotated[int, Field(ge=1)] | None = None
    """How many members there are to be; else all of chain.yaml."""

    async def look(self, scene: Scene) -> Look:
        seen = await scene.ground.fleet.observe()
        wanted = self.nodes or len(scene.ground.config.nodes)
        topology = seen.topology
        if topology.run is not None:
            return Look(False, f"{topology.run.playbook} is under way")
        if len(topology.order) != wanted or topology.joining:
            return Look(False, f"members are {', '.join(topology.order)}")
        for node in topology.order:
            trouble = _trouble(seen.nodes[node], topology.upstream(node), topology.epoch)
            if trouble:
                return Look(False, f"{node} {trouble}")
        return Look(True, " ─▶ ".join(topology.order))


def _trouble(seen: Seen, upstream: str | None, epoch: int) -> str:
    state = seen.state
    if state is None:
        return f"does not answer: {seen.trouble}"
    if seen.daemon is None:
        return "has no daemon that answers"
    if upstream is None:
        right = state.role is Role.HEAD and state.writable and state.reign == epoch
        return "" if right else "takes no writes"
    if (state.upstream, state.epoch) != (upstream, epoch):
        return f"does not follow {upstream} in epoch {epoch}"
    link = seen.daemon.get("link")
    return "" if link and link["state"] == "streaming" else f"does not copy: {link and link['last_error']}"


class HeadIs(Probe):
    """The head is this node, another than that one, in this region; and its reign has begun."""

    probe: Literal["head-is"]
    node: Party | None = None
    other_than: Party | None = None
    region: str | None = None

    async def look(self, scene: Scene) -> Look:
        topology = await scene.topology()
        head = topology.head
        ok = topology.began is not None
        if self.node is not None:
            ok = ok and head == await scene.ground.node(self.node)
        if self.other_than is not None:
            ok = ok and head != await scene.ground.node(self.other_than)
        if self.region is not None:
            wanted = topology.home if self.region == "home" else self.region
            ok = ok and topology.regions[head] == wanted
        return Look(
            ok, f"{head}, epoch {topology.epoch}{'' if topology.began is not None else ', not begun'}"
        )


class Member(Probe):
    """A node is a member of the chain, or, `state: out`, it is not."""

    probe: Literal["member"]
    node: Party
    state: Literal["in", "out"] = "in"

    async def look(self, scene: Scene) -> Look:
        topology = await scene.topology()
        is_in = await scene.ground.node(self.node) in topology.order
        return Look(is_in == (self.state == "in"), f"members are {', '.join(topology.order)}")


class NoHead(Probe):
    """No node takes writes."""

    probe: Literal["no-writable-head"]

    async def look(self, scene: Scene) -> Look:
        fleet, names = scene.ground.fleet, [n.name for n in scene.ground.config.nodes]
        states = await asyncio.gather(*(_state(fleet.store(n)) for n in names))
        writable = [n for n, s in zip(names, states, strict=True) if s is not None and s.writable]
        return Look(not writable, ", ".join(writable) or "none")


class WritesFlow(Probe):
    """Writes are acknowledged: over the last 2 s, at least so many a second."""

    probe: Literal["writes-flow"]
    at_least_per_s: Annotated[float, Field(gt=0)] = 1.0

    async def look(self, scene: Scene) -> Look:
        latest = [s.acknowledged_per_s for s in scene.samples if s.at_s > scene.now_s() - 2.0]
        if not latest:
            return Look(None, "not measured yet")
        rate = sum(latest) / len(latest)
        return Look(rate >= self.at_least_per_s, f"{rate:.0f}/s")


class WritesFail(Probe):
    """At most so many writes had no answer that says whether the event is stored."""

    final = True
    probe: Literal["failed-writes"]
    at_most: Count = 0

    async def look(self, scene: Scene) -> Look:
        return Look(scene.failed_writes <= self.at_most, str(scene.failed_writes))


class LagBelow(Probe):
    """Every follower lags at most so many events."""

    probe: Literal["lag-below"]
    events: Count

    async def look(self, scene: Scene) -> Look:
        seen = await scene.ground.fleet.observe()
        lags = {n: seen.nodes[n].lag_events for n in seen.topology.order}
        known = [lag for lag in lags.values() if lag is not None]
        if len(known) < len(lags):
            return Look(None, f"unknown of {', '.join(n for n, lag in lags.items() if lag is None)}")
        return Look(max(known) <= self.events, f"{max(known):,} events")


class LagAbove(Probe):
    """A follower lags at least so many events."""

    probe: Literal["lag-above"]
    node: Party
    events: Count

    async def look(self, scene: Scene) -> Look:
        seen = await scene.ground.fleet.observe()
        lag = seen.nodes[await scene.ground.node(self.node)].lag_events
        return Look(None if lag is None else lag >= self.events, f"{lag} events")


class EpochsGranted(Probe):
    """So many epochs were granted since the method began: no failover that nobody needed, none missing."""

    probe: Literal["epochs-granted"]
    at_least: Count = 0
    at_most: Count | None = None

    async def look(self, scene: Scene) -> Look:
        first = scene.ground.first
        history = await scene.ground.fleet.registry.history()
        since = first.epoch if first else 1
        count = sum(isinstance(r.decision, EpochGranted) and r.decision.epoch > since for r in history)
        high = self.at_most is not None and count > self.at_most
        return Look(count >= self.at_least and not high, str(count))


class StepBegun(Probe):
    """A run has begun this step."""

    probe: Literal["step-begun"]
    step: str

    async def look(self, scene: Scene) -> Look:
        run = (await scene.topology()).run
        begun = [s.name for s in run.steps] if run else []
        return Look(self.step in begun, begun[-1] if begun else "no run")


class Judged(Probe):
    """Some controller's latest judgement is by this rule."""

    probe: Literal["judged"]
    rule: str

    async def look(self, scene: Scene) -> Look:
        latest = {n.what["by"]: str(n.what["rule"]) for n in await scene.ground.fleet.registry.notes()}
        return Look(self.rule in latest.values(), ", ".join(f"{by}: {rule}" for by, rule in latest.items()))


class RegistryAnswers(Probe):
    """The registry can be read."""

    probe: Literal["registry-answers"]

    async def look(self, scene: Scene) -> Look:
        try:
            topology = await scene.ground.fleet.registry.topology()
        except ChainError as error:
            return Look(False, error.message)
        return Look(True, f"version {topology.version}")


class VerifiedEqual(Probe):
    """Every event on every node, compared by content, is the same."""

    probe: Literal["verified"]

    async def look(self, scene: Scene) -> Look:
        found = await verify(scene)
        text = "; ".join(f"{v.source} → {v.target}: {said(v)}" for v in found)
        if any(v.verdict is Verdict.DIFF for v in found):
            return Look(False, text)
        return Look(None if any(v.verdict is Verdict.UNKNOWN for v in found) else True, text)


class DifferenceFound(Probe):
    """Verification finds a difference: what was planted is not overlooked."""

    probe: Literal["difference-found"]

    async def look(self, scene: Scene) -> Look:
        found = [v for v in await verify(scene) if v.verdict is Verdict.DIFF]
        return Look(bool(found), "; ".join(said(v) for v in found) or "no difference")


class NothingLost(Probe):
    """No acknowledged event is neither in the log nor in the ledger, at its ack level or any."""

    final = True
    probe: Literal["nothing-lost"]
    acks: tuple[Ack, ...] = tuple(Ack)

    async def look(self, scene: Scene) -> Look:
        loss = scene.findings.loss
        if loss is None or loss.lost is None:
            return Look(None, "not checked")
        lost = {ack.value: loss.lost.get(ack.value, 0) for ack in self.acks}
        return Look(not any(lost.values()), ", ".join(f"{ack} {n}" for ack, n in lost.items()))


class HistoryConsistent(Probe):
    """What callers were told fits what is there: nothing lost, doubled, reordered, unwritten or too old."""

    final = True
    probe: Literal["history-consistent"]

    async def look(self, scene: Scene) -> Look:
        check = scene.findings.check
        if check is None:
            return Look(None, "not checked")
        first = check.findings[0].text if check.findings else check.incomplete or "nothing found"
        return Look(check.ok, f"{len(check.findings) + check.left_out} findings: {first}")


class LedgerComplete(Probe):
    """What was acknowledged and is not in the log is in the ledger; no dead branch waits for its entries."""

    final = True
    probe: Literal["ledger-complete"]

    async def look(self, scene: Scene) -> Look:
        topology = await scene.topology()
        waiting = {}
        for node in topology.order:
            waiting[node] = len(await scene.ground.fleet.store(node).dead_branch(EMPTY, 100))
        entries = await ledger_desk.entries(scene.ground.fleet.store(topology.head))
        loss = scene.findings.loss
        complete = not any(waiting.values()) and loss is not None and loss.total_lost == 0
        return Look(complete, f"{len(entries)} entries; waiting: {sum(waiting.values())}")


class RecoveredInTime(Probe):
    """The longest pause of writes, and the time until all is well, are within the drill's targets."""

    final = True
    probe: Literal["recovered-in-time"]

    async def look(self, scene: Scene) -> Look:
        recovery = scene.findings.recovery
        if recovery is None:
            return Look(None, "not measured")
        pause = "no write came back" if recovery.actual_s is None else f"pause {recovery.actual_s:.2f} s"
        well = "" if recovery.healthy_actual_s is None else f", well after {recovery.healthy_actual_s:.1f} s"
        return Look(recovery.met is not False, pause + well)


AnyProbe = Annotated[
    OneWritableHead
    | ChainWhole
    | HeadIs
    | Member
    | NoHead
    | WritesFlow
    | WritesFail
    | LagBelow
    | LagAbove
    | EpochsGranted
    | StepBegun
    | Judged
    | RegistryAnswers
    | VerifiedEqual
    | DifferenceFound
    | NothingLost
    | HistoryConsistent
    | LedgerComplete
    | RecoveredInTime,
    Discriminator("probe"),
]


def name_of(probe: Probe | type[Probe]) -> str:
    """What a probe is called in a drill."""
    kind = probe if isinstance(probe, type) else type(probe)
    return str(get_args(kind.model_fields["probe"].annotation)[0])


PROBES: Final[Mapping[str, type[Probe]]] = {name_of(kind): kind for kind in get_args(get_args(AnyProbe)[0])}
"""By what they are called."""


async def verify(scene: Scene) -> tuple[Verified, ...]:
    topology = await scene.topology()
    return await verify_chain({n: scene.ground.fleet.store(n) for n in topology.order})


def said(verified: Verified) -> str:
    """A pair of nodes compared, in a line."""
    why = str(verified.findings[0]) if verified.findings else verified.reason
    return f"{verified.verdict.value} up to {verified.last}{why and f': {why}'}"


async def _state(store: Store) -> NodeState | None:
    try:
        async with asyncio.timeout(1.0):
            return await store.state()
    except (ChainError, TimeoutError):
        return None
