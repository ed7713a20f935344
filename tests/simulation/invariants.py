"""What must hold at every moment, looked at whenever something changes that could break it.

An event is checked when it enters a log, a writer when it gets the right to write, an acknowledgement when it
is given. So nothing is missed between two looks, and it costs little.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from uuid import UUID

from chain.acks import Ack
from chain.decisions import (
    ChainCreated,
    Decision,
    EpochGranted,
    RunFinished,
    RunStarted,
    StepFinished,
    StepStarted,
    decode,
    evolve,
)
from chain.errors import ChainError, Corrupt, Fenced, LeaseExpired, Promised, Restarted, StaleLink
from chain.event import EPOCH_STREAM, LEDGER_STREAM, Appended, Epoch, Event, Position, Revision, Tip
from chain.ledger import KEPT
from chain.store import DeadEvent
from chain.topology import Topology
from tests.simulation.stores import Watch

if TYPE_CHECKING:
    from tests.simulation.world import World


class Violation(AssertionError):
    """An invariant does not hold."""


@dataclass(frozen=True, slots=True)
class Acked:
    """What a client was told: these events are where `ack` says."""

    ids: tuple[UUID, ...]
    answer: Appended
    ack: Ack


@dataclass(slots=True)
class Invariants(Watch):
    """Watches the stores of `world`. The first thing that does not hold ends the life."""

    world: World
    broken: str = ""
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    met: Counter[str] = field(default_factory=Counter)
    given: dict[tuple[Position, Epoch], tuple[Event, Epoch]] = field(default_factory=dict)
    """Every place that a head ever gave to an event, with the epoch of the event before it."""
    held: dict[str, dict[Epoch, Position]] = field(default_factory=dict)
    """How far each node ever had the events of each epoch."""
    reigns: dict[Epoch, tuple[str, UUID]] = field(default_factory=dict)
    knew: dict[str, Epoch] = field(default_factory=dict)
    acked: list[Acked] = field(default_factory=list)
    excused: set[UUID] = field(default_factory=set)
    """Events that no disk has any more, since every disk that had them went back."""

    def fail(self, text: str) -> None:
        if not self.broken:
            self.broken = text
            self.world.say("VIOLATION", text)
            self.ended.set()

    def check(self, holds: bool, text: str) -> None:
        if not holds:
            self.fail(text)

    # Stores.

    def wrote(self, node: str, before: Tip, events: Sequence[Event]) -> None:
        self._one_writer(f"{node} wrote")
        epoch = before.epoch
        for event in events:
            place = (event.position, event.epoch)
            first, _ = self.given.setdefault(place, (event, epoch))
            if first is not event and first == event and event.stream == EPOCH_STREAM:
                # Its store went back before the registry knew of the reign: the same once more.
                self.met["a promotion written again"] += 1
            elif first is not event:
                self.fail(f"{node} gave {place} to {_name(event)}, which was {_name(first)}'s")
            epoch = event.epoch
            if event.stream == LEDGER_STREAM:
                self.met["an entry in the ledger"] += 1
        self.world.say("wrote", node, before, events[-1].position, events[-1].stream)
        self.world.doom(node)

    def flushed(self, node: str, events: Sequence[Event]) -> None:
        self._hold(node, events)

    def lost(self, node: str, events: Sequence[Event]) -> None:
        """A server crashed before it had flushed these: nobody may have them, or have been told of them."""
        self.world.say("lost", node, events[0].position, events[-1].position)
        if not self.world.machines[node].store.leads:  # its source has them; `told` sees to the rest
            self.met["a follower's crash before the flush"] += 1
            return
        self.met["a crash before the flush"] += 1
        for event in events:
            for other, held in self.held.items():
                if other != node and held.get(event.epoch, 0) >= event.position:
                    self.fail(f"{other} was handed {_name(event)}, which {node} had not flushed, and lost")
        for acked in self.acked:  # by place: an event may be acknowledged elsewhere, after another try
            first, last, epoch = acked.answer.first_position, acked.answer.last_position, acked.answer.epoch
            if any(e.epoch == epoch and first <= e.position <= last for e in events):
                self.fail(f"{node} lost what was acknowledged and not flushed: {acked}")

    def applied(self, node: str, before: Tip, events: Sequence[Event], upstream: str) -> None:
        epoch = before.epoch
        for event in events:
            place = (event.position, event.epoch)
            known = self.given.get(place)
            if known is None:
                self.fail(f"{node} applied {_name(event)} at {place}, which no head ever wrote")
            elif known[0] != event:
                self.fail(f"L4: {node} holds {_name(event)} at {place}, where {_name(known[0])} was written")
            elif known[1] != epoch:
                self.fail(
                    f"L4: {node} has {event.position}@{event.epoch} behind epoch {epoch}, not {known[1]}:"
                    " equal places, other logs"
                )
            epoch = event.epoch
        self.met["applied"] += 1
        self.world.say("applied", node, before, events[-1].position, upstream)

    def gave_up(self, node: str, gone: Sequence[Event]) -> None:
        if not gone:
            return
        store = self.world.machines[node].store
        for event in gone:
            if (event.epoch, event.position, event.id) not in store.dead:
                self.fail(f"L7: {node} dropped {_name(event)} without keeping it")
        self.met["a dead branch"] += 1
        if len({e.epoch for e in gone}) > 1:
            self.met["a dead branch of more than one epoch"] += 1
        if any(e.stream == LEDGER_STREAM for e in gone):
            self.met["a dead branch with ledger entries"] += 1
        self.world.say("gave up", node, gone[0].position, gone[-1].position, gone[-1].epoch)

    def released(self, node: str, dead: Sequence[DeadEvent]) -> None:
        self.met["a dead branch let go of"] += 1

    def promoted(self, node: str, epoch: Epoch, promotion: UUID) -> None:
        self.world.say("promoted", node, epoch)
        first = self.reigns.setdefault(epoch, (node, promotion))
        self.check(
            first == (node, promotion), f"L5: {node} and {first[0]} were both promoted in epoch {epoch}"
        )
        self._grew(node)
        self._one_writer(f"{node} was promoted")

    def fenced(self, node: str, epoch: Epoch) -> None:
        self.world.say("fenced", node, epoch)
        self._grew(node)

    def changed(self, node: str, what: str) -> None:
        if what == "promised":
            self.met["a promise"] += 1
        elif what == "renewed":
            self._one_writer(f"{node} renewed")
        elif what == "left a batch unflushed":
            self.world.doom(node)
        elif what == "loading":
            self.met["a load"] += 1
        elif what == "fenced while loading":
            self.met["a fence in a load"] += 1
        self.world.say("changed", node, what)
        self._grew(node)

    def told(self, node: str, progress: Mapping[str, Tip]) -> None:
        for name, tip in progress.items():
            if tip.position and self.held.get(name, {}).get(tip.epoch, 0) < tip.position:
                self.fail(f"{node} was told that {name} is at {tip}, where {name} never was")

    def refused(self, node: str, verb: str, error: ChainError) -> None:
        if verb == "append":
            if isinstance(error, Fenced):
                self.met["a fenced append"] += 1
            elif isinstance(error, LeaseExpired):
                self.met["an append after the lease"] += 1
            elif isinstance(error, Restarted):
                self.met["an append after a restart"] += 1
        elif verb == "apply" and isinstance(error, StaleLink):
            self.met["a stale batch"] += 1
        elif verb == "promote" and isinstance(error, Promised):
            self.met["a promotion against a promise"] += 1
        elif verb == "promote" and isinstance(error, StaleLink):
            self.met["a stale promotion"] += 1
        self.world.say("refused", node, verb, type(error).__name__)

    def went_back(self, node: str, lost: Sequence[Event]) -> None:
        """A disk has lost what was on it. What no other disk has is nobody's fault now."""
        store = self.world.machines[node].store
        self.knew[node] = store.knows
        self.met["a disk that went back"] += 1
        if lost:
            self.met["a disk that lost events"] += 1
        others = [m.store for m in self.world.machines.values() if m.name != node]
        for event in lost:
            kept = any(
                s.has(event.id) or any(d.event.id == event.id for d in s.dead.values()) for s in others
            )
            if not kept and not self.world.in_ledger(event.id):
                self.excused.add(event.id)
        # A ledger entry that is lost takes with it what it was about, unless somebody still keeps that.
        entries = [e for e in lost if e.id in self.excused and e.type == KEPT]
        for entry in entries:
            ident = UUID(json.loads(entry.metadata)["id"])
            if not any(m.store.has(ident) for m in self.world.machines.values()) and not any(
                d.event.id == ident for m in self.world.machines.values() for d in m.store.dead.values()
            ):
                self.excused.add(ident)

    def _hold(self, node: str, events: Sequence[Event]) -> None:
        held = self.held.setdefault(node, {})
        for event in events:
            if held.get(event.epoch, 0) < event.position:
                held[event.epoch] = event.position

    def _grew(self, node: str) -> None:
        knows = self.world.machines[node].store.knows
        before = self.knew.get(node, Epoch(0))
        self.check(knows >= before, f"{node} knew epoch {before} and knows {knows} now")
        self.knew[node] = knows

    def _one_writer(self, why: str) -> None:
        writers = self.world.writable()
        if len(writers) > 1:
            self.fail(f"{' and '.join(writers)} both take writes ({why})")

    def clocks_changed(self) -> None:
        self._one_writer("a clock was set")

    # Clients.

    def acknowledged(self, acked: Acked, began_s: float) -> None:
        """A client was answered: what it was told must be true now, or have been true since it asked."""
        token = acked.answer.token
        self.acked.append(acked)
        self.met[f"acknowledged by {acked.ack.value}"] += 1
        machines = self.world.machines
        having = {n for n, held in self.held.items() if held.get(token.epoch, 0) >= token.position}
        place = self.given.get((token.position, token.epoch))
        self.check(
            place is not None and place[0].id == acked.ids[-1],
            f"a client was told that its event is at {token}, where it never was",
        )
        if acked.ack is Ack.REGION:
            regions = {machines[n].region for n in having}
            self.check(len(regions) > 1, f"{token} was acknowledged by region, and only {having} had it")
        elif acked.ack is Ack.CHAIN:
            # A client knows the members as of a second ago at the most; members may change after the answer.
            orders = self.world.decided.orders(since_s=began_s - 1.5)
            self.check(
                any(set(order) <= having for order in orders),
                f"{token} was acknowledged by chain, and only {sorted(having)} of {orders[-1]} had it",
            )

    def final(self, log: Sequence[Event], ledger: set[UUID]) -> None:
        """After everything has healed: whatever was acknowledged is in the log or in the ledger, once."""
        ids = {e.id for e in log}
        for acked in self.acked:
            for ident in acked.ids:
                if ident in ids or ident in self.excused:
                    continue
                self.check(ident in ledger, f"L7: {acked} is neither in the log nor in the ledger")
                if acked.ack is Ack.CHAIN and not self.world.disks_lied:
                    self.met["acknowledged by chain, and in the ledger"] += 1
        payloads = Counter(e.data for e in log if e.type == "Tested")
        twice = [data for data, count in payloads.items() if count > 1]
        self.check(not twice, f"{twice[:3]} are in the log twice")


@dataclass(slots=True)
class Decided(Watch):
    """The truth about what is decided: the registry's stream, folded as it grows."""

    world: World
    stream: str
    topology: Topology | None = None
    _orders: list[tuple[float, tuple[str, ...]]] = field(default_factory=list)
    _finished: set[tuple[UUID, str]] = field(default_factory=set)
    _runs: dict[UUID, tuple[str, str]] = field(default_factory=dict)

    def orders(self, *, since_s: float) -> list[tuple[str, ...]]:
        """The order of the chain at `since_s`, and all that it has had since."""
        before = [order for at, order in self._orders if at <= since_s][-1:]
        return before + [order for at, order in self._orders if at > since_s]

    def wrote(self, node: str, before: Tip, events: Sequence[Event]) -> None:
        for event in events:
            if event.stream == self.stream:
                decision = decode(event)
                self._check(decision, json.loads(event.metadata)["by"])
                try:
                    self.topology = evolve(
                        self.topology, decision, Revision(event.revision), event.recorded_at
                    )
                except Corrupt as error:
                    self.world.invariants.fail(f"the decisions make no sense: {error}")
                    return
                self._orders.append((asyncio.get_running_loop().time(), self.topology.order))

    def _check(self, decision: Decision, by: str) -> None:
        topology, met = self.topology, self.world.invariants.met
        match decision:
            case EpochGranted():
                self.world.say("granted", decision.epoch, decision.order, by)
                assert topology is not None
                if decision.epoch != topology.epoch + 1:
                    self.world.invariants.fail(
                        f"epoch {decision.epoch} was granted after epoch {topology.epoch}"
                    )
                head = decision.order[0]
                self.world.at_grant[head] = self.world.machines[head].store.snapshot()
                met["an epoch for a restarted head"] += by.startswith("daemon of")
            case RunStarted():
                self.world.say("run", decision.playbook, decision.parameters, by)
                self._runs[decision.run] = (decision.playbook, by)
                if topology is not None and topology.run is not None:
                    self.world.invariants.fail("a run was begun while another was unfinished")
            case StepStarted():
                self.world.say("step", decision.step, by)
            case StepFinished():
                self.world.say("done", decision.step, by, decision.result)
                if (decision.run, decision.step) in self._finished:
                    self.world.invariants.fail(f"step {decision.step} was finished twice in one run")
                self._finished.add((decision.run, decision.step))
                met["a resumed run"] += self._runs[decision.run][1] != by
            case RunFinished():
                playbook, _ = self._runs[decision.run]
                met[f"{playbook} {decision.outcome}"] += 1
                self.world.say("run ended", playbook, decision.outcome, decision.reason, by)
            case ChainCreated():
                pass
            case _:
                self.world.say("decided", type(decision).__name__, by)


def _name(event: Event) -> str:
    what = event.data.decode(errors="replace") if event.type == "Tested" else event.type
    return f"{event.stream}/{event.revision} {what!r}"
