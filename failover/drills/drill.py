"""Drills: playbooks with faults and a hypothesis, as data. Closed lists of faults, probes and steps.

A drill is refused when it is read, with file, line and reason, or it can be run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from chain.acks import Ack
from chain.errors import BadFile, BadInput
from failover.document import At, Closed, Flaw, line_of, read_document
from failover.drills.faults import AnyFault, Fault, kind_of
from failover.drills.faults.base import Party, Seconds
from failover.drills.probes import AnyProbe, Probe
from failover.playbook import Name, load_playbook

Positive = Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)]


class End(Closed):
    """A fault is taken back now."""

    end: Name
    """Its name, or its kind."""


class Run(Closed):
    """An operator runs a playbook."""

    run: Name
    """A playbook that geochain ships."""
    given: dict[str, str | int | bool] = Field(default={})
    """Its parameters. Of a node, also its place: head, middle, tail, outside, first-head, …"""
    expect: Literal["done", "refused", "failed", "any"] = "done"
    """What it is to come to."""
    beside: bool = False
    """It goes on beside the steps that follow, and is awaited at the end of the method."""
    killed_at: Name | None = None
    """It is run by a process of its own, which is killed as soon as this step has begun."""
    timeout_s: Positive = 60.0
    """How long it may take."""


class Until(Closed):
    """Waits until a probe holds; if it does not in time, the hypothesis has not held."""

    until: AnyProbe
    """What is awaited."""
    within_s: Positive = 30.0
    """For how long."""


class Pause(Closed):
    """Lets time pass."""

    pause_s: Positive
    """How much."""


class Do(Closed):
    """A word of the operator's."""

    do: Literal["pause-automation", "resume-automation", "acknowledge-failover", "start-everything"]
    """What is said, or done: `start-everything` starts whatever of the chain does not run."""


def _which(value: Any) -> str | None:
    keys = value if isinstance(value, Mapping) else type(value).model_fields
    return next((key for key in ("fault", "end", "run", "until", "pause_s", "do") if key in keys), None)


Step = Annotated[
    Annotated[AnyFault, Tag("fault")]
    | Annotated[End, Tag("end")]
    | Annotated[Run, Tag("run")]
    | Annotated[Until, Tag("until")]
    | Annotated[Pause, Tag("pause_s")]
    | Annotated[Do, Tag("do")],
    Discriminator(
        _which,
        custom_error_type="step",
        custom_error_message="a step is one of: fault, end, run, until, pause_s, do",
    ),
]


class Hypothesis(Closed):
    """What is to hold beside what holds for every drill (`failover.drills.runner.ALWAYS`)."""

    before: tuple[AnyProbe, ...] = ()
    """Before there is a fault."""
    during: tuple[AnyProbe, ...] = ()
    """Looked at again and again."""
    after: tuple[AnyProbe, ...] = ()
    """Awaited for `settle_s`; those on content and history are known when the workload has ended."""


class Targets(Closed):
    """How much may be lost, and how long it may take."""

    pause_s: Positive | None = None
    """The longest time without an acknowledged write."""
    healthy_s: Positive | None = None
    """From the first fault until everything is well."""
    lost: Annotated[int, Field(ge=0)] = 0
    """Acknowledged events neither in the log nor in the ledger."""
    in_ledger: Annotated[int, Field(ge=0)] | None = None
    """Acknowledged events that a failover took out of the log."""


class Workload(Closed):
    """What applications do meanwhile."""

    writers: Annotated[int, Field(ge=1, le=100)] = 4
    """How many write."""
    writes_per_s: Positive = 80.0
    """All of them together."""
    readers: Annotated[int, Field(ge=0, le=100)] = 2
    """How many read."""
    follow_tail: bool = True
    """Whether somebody follows the tail, as a projection does."""
    acks: Annotated[tuple[Ack, ...], Field(min_length=1)] = (Ack.HEAD, Ack.HEAD, Ack.REGION, Ack.CHAIN)
    """The levels they ask for, evenly."""
    call_s: Positive = 20.0
    """How long a call waits, through a failover or not."""


class Chain(Closed):
    """The chain that is brought up for the drill, where it is not as usual."""

    controllers: tuple[Name, ...] = ("one",)
    """Automatic controllers; none: everything is left to the operator."""
    nodes: dict[Name, Name] = Field(default={"east-1": "east", "west-1": "west", "east-2": "east"})
    """Node to region: head, middles, tail."""
    lease: dict[str, str | bool] = Field(default={"duration": "5s"})
    """As in chain.yaml; longer than by default, for all machines of a drill are one."""
    automation: dict[str, str | int | bool] = Field(default={})
    """As in chain.yaml, over `policy: automatic, lost_after: 8s, cool_down: 1m`."""
    links: dict[str, str | int] = Field(default={})
    """As in chain.yaml."""


class Drill(Closed):
    """A drill."""

    name: Name
    """As its file is called."""
    title: Annotated[str, Field(min_length=1, max_length=200)]
    """What goes wrong, and what is expected, in a sentence."""
    quick: bool = False
    """One of the few that are run with every change."""
    hypothesis: Hypothesis = Hypothesis()
    """What is to hold beside what holds for every drill."""
    method: Annotated[tuple[Step, ...], Field(min_length=1, max_length=100)]
    """What is done, in this order."""
    rollbacks: tuple[Step, ...] = ()
    """Done at the end in any case, when all faults have been taken back and everything was started."""
    stop_when_not: tuple[AnyProbe, ...] = ()
    """If one of these does not hold, the drill is stopped at once."""
    targets: Targets = Targets()
    """How much may be lost, and how long it may take."""
    settle_s: Positive = 90.0
    """How long what is to hold afterwards is awaited."""
    limit_s: Positive = 240.0
    """How long the method may take."""
    workload: Workload = Workload()
    """What applications do meanwhile."""
    chain: Chain = Chain()
    """The chain that is brought up."""

    @property
    def faults(self) -> tuple[Fault, ...]:
        return tuple(step for step in self.method if isinstance(step, Fault))


def load_drill(name: str) -> tuple[Drill, str]:
    """A drill that geochain ships, or one in a .yaml file, and its text. Raises BadInput, BadFile."""
    text, where = drill_text(name)
    drill, _, flaws = _read(text, where)
    if drill is None or flaws:
        raise BadFile(str(flaws[0]), hint="see all that is wrong: chainctl drill lint")
    return drill, text


def drill_text(name: str) -> tuple[str, str]:
    """The text of a drill, and what to call it. Raises BadInput, BadFile."""
    if name.endswith((".yaml", ".yml")):
        try:
            return Path(name).read_text(), name
        except (OSError, UnicodeDecodeError) as error:
            raise BadFile(f"{name} can't be read: {error}") from error
    text = next((e.read_text() for e in _entries() if e.name == f"{name}.yaml"), None)
    if text is None:
        raise BadInput(f"there is no drill {name!r}", hint="see what there is: chainctl drill list")
    return text, f"{name}.yaml"


def drill_names() -> tuple[str, ...]:
    return tuple(sorted(entry.name.removesuffix(".yaml") for entry in _entries()))


def lint(text: str, where: str) -> tuple[Flaw, ...]:
    """Everything that is wrong with a drill; empty if it can be run."""
    return _read(text, where)[2]


def text_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _read(text: str, where: str) -> tuple[Drill | None, Mapping[At, int], tuple[Flaw, ...]]:
    drill, lines, flaws = read_document(Drill, text, where)
    if drill is None:
        return None, lines, flaws
    return drill, lines, tuple(Flaw(where, line_of(lines, at), reason) for at, reason in _rules(drill))


def _rules(drill: Drill) -> Iterator[tuple[At, str]]:
    """What the schema can't say."""
    for phase in ("before", "during"):
        probes: tuple[Probe, ...] = getattr(drill.hypothesis, phase)
        for n, probe in enumerate(probes):
            if probe.final:
                yield ("hypothesis", phase, n), "this is known only at the end: it belongs to `after`"
    active: set[str] = set()
    for n, step in enumerate(drill.method):
        for field, reason in _step(step, active):
            yield ("method", n, field), reason
    for n, step in enumerate(drill.rollbacks):
        if isinstance(step, Fault):
            yield ("rollbacks", n, "fault"), "a rollback is no fault"
        elif not isinstance(step, End):
            for field, reason in _step(step, active):
                yield ("rollbacks", n, field), reason


def _step(step: Any, active: set[str]) -> Iterator[tuple[str, str]]:
    """What is wrong with a step after faults that bear these names."""
    if isinstance(step, Fault):
        called = step.name or kind_of(step)
        if called in active:
            yield "fault", f"{called} is there already: give one of them a name"
        active.add(called)
    elif isinstance(step, End):
        if step.end not in active:
            yield "end", f"no fault before it is called {step.end!r}"
        active.discard(step.end)
    elif isinstance(step, Until) and step.until.final:
        yield "until", "this is known only at the end: it can't be awaited"
    elif isinstance(step, Run):
        yield from _run(step)


def _run(step: Run) -> Iterator[tuple[str, str]]:
    try:
        playbook = load_playbook(step.run)
        playbook.arguments(step.given)
    except BadInput as error:
        yield "run", error.message
        return
    if step.killed_at is not None and step.killed_at not in {s.step for s in playbook.steps}:
        yield "killed_at", f"{step.run} has no step {step.killed_at!r}"


def _entries() -> Iterator[Traversable]:
    shipped = files("failover").joinpath("playbooks", "drills")
    folder = shipped if shipped.is_dir() else Path(__file__).parent.parent.parent / "playbooks" / "drills"
    return (entry for entry in folder.iterdir() if entry.name.endswith(".yaml"))


__all__ = ["Drill", "Party", "Seconds", "Step", "drill_names", "lint", "load_drill", "text_hash"]
