"""Playbooks: operations as data. A closed list of steps, each typed, idempotent and bounded in time.

A playbook is refused when it is read, with file, line and reason, or it can be run: nothing that can be found
out beforehand is left to be found out in the middle of an operation.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from chain.errors import BadFile, BadInput
from failover.document import At, Closed, Flaw, line_of, read_document
from failover.steps import STEPS

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,62}$")]
ParameterName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,62}$")]
StepName = Annotated[str, Field(json_schema_extra={"enum": sorted(STEPS)})]
Seconds = Annotated[float, Field(gt=0, le=86400, allow_inf_nan=False)]


class Step(Closed):
    """One step of a playbook."""

    step: StepName
    """The kind of step, from a closed list: `chainctl playbook steps`."""
    precheck: tuple[StepName, ...] = ()
    """Steps that only look, done again right before this one; what they refuse, it does not begin."""
    timeout_s: Seconds = 30.0
    """How long one try may take."""
    retry: Annotated[int, Field(ge=0, le=20)] = 0
    """How often it is tried again after an error that may pass."""
    approval: bool = False
    """It begins only if a person has approved of the plan, and the approval has not expired."""
    undo: StepName | None = None
    """The step that takes this one back, if the run fails before the point of no return."""
    point_of_no_return: bool = False
    """Once this step is done, the run is carried on, not undone."""
    on_failure: Literal["undo", "end", "stop"] | None = None
    """`undo` what was done, and end; `end`, and what was done stands; `stop`: leave the run to be resumed.
    By default `undo` before the point of no return, and `end` from there on."""


class Parameter(Closed):
    """Something that a run is told."""

    type: Literal["node", "region", "text", "count", "flag"]
    """What it is: the name of a node or a region, a text, a whole number, yes or no."""
    required: bool = False
    """Whether a run needs it."""
    default: str | int | bool | None = None
    """What it is if not given."""


class Playbook(Closed):
    """An operation."""

    name: Name
    """As its file is called."""
    title: Annotated[str, Field(min_length=1, max_length=200)]
    """What it does, in a sentence for the operator."""
    urgent: bool = False
    """May be begun while a run of a playbook that is not urgent is unfinished, and ends that one."""
    parameters: dict[ParameterName, Parameter] = Field(default={})
    """What a run can be told."""
    use: Name | None = None
    """Another playbook, whose steps these are."""
    steps: Annotated[tuple[Step, ...], Field(max_length=100)] = ()
    """What is done, in this order. Either steps or `use`."""

    @model_validator(mode="after")
    def _steps_or_use(self) -> Playbook:
        if bool(self.steps) == (self.use is not None):
            raise ValueError("a playbook has either steps or `use`")
        return self

    @property
    def point_of_no_return(self) -> int:
        """The index of the first step that is not undone any more."""
        return next(n for n, step in enumerate(self.steps) if step.point_of_no_return)

    def failing(self, step: Step) -> Literal["undo", "end", "stop"]:
        """What happens when a step fails."""
        early = self.steps.index(step) <= self.point_of_no_return
        return step.on_failure or ("undo" if early else "end")

    def arguments(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The parameters of a run, with defaults, in their types. Raises BadInput."""
        for name in given:
            if name not in self.parameters:
                known = ", ".join(self.parameters) or "none"
                raise BadInput(f"{self.name} takes no parameter {name!r}", hint=f"it takes: {known}")
        found: dict[str, Any] = {}
        for name, parameter in self.parameters.items():
            value = given.get(name)
            value = parameter.default if value is None else value
            if value is None and parameter.required:
                raise BadInput(f"{self.name} needs to be told: {name}", hint=f"say {name}=…")
            found[name] = None if value is None else _typed(self.name, name, parameter, value)
        return found


def _typed(playbook: str, name: str, parameter: Parameter, value: Any) -> str | int | bool:
    match parameter.type:
        case "flag":
            if isinstance(value, bool):
                return value
            if str(value) in ("yes", "true", "no", "false"):
                return str(value) in ("yes", "true")
        case "count":
            digits = str(value)
            if not isinstance(value, bool) and re.fullmatch("[0-9]{1,18}", digits):
                return int(digits)
        case _:
            if isinstance(value, str) and 0 < len(value) <= 512 and value.isprintable():
                return value
    raise BadInput(f"{playbook}: {name} is a {parameter.type}, which {value!r} is not")


def load_playbook(name: str) -> Playbook:
    """A playbook that geochain ships. Raises BadInput if there is none, BadFile if it breaks a rule."""
    return parse_playbook(shipped_text(name), f"{name}.yaml")


def shipped_text(name: str) -> str:
    """The text of a playbook that geochain ships. Raises BadInput if there is none."""
    text = _shipped(name)
    if text is None:
        raise BadInput(f"there is no playbook {name!r}", hint=f"there are: {', '.join(playbook_names())}")
    return text


def playbook_names() -> tuple[str, ...]:
    return tuple(sorted(entry.name.removesuffix(".yaml") for entry in _entries()))


def parse_playbook(text: str, where: str) -> Playbook:
    """A playbook that can be run, `use` resolved. Raises BadFile, naming file, line and reason."""
    playbook, faults = _read(text, where)
    if playbook is None or faults:
        raise BadFile(str(faults[0]), hint="see all that is wrong: chainctl playbook lint")
    return playbook


def lint(text: str, where: str) -> tuple[Flaw, ...]:
    """Everything that is wrong with a playbook; empty if it can be run."""
    return _read(text, where)[1]


def _read(text: str, where: str, within: tuple[str, ...] = ()) -> tuple[Playbook | None, tuple[Flaw, ...]]:
    """`within` are the names of those that use it, each by the next."""
    playbook, lines, faults = read_document(Playbook, text, where)
    if playbook is None:
        return None, faults
    if playbook.use is not None:
        used, fault = _use(playbook.use, within or (playbook.name,))
        if used is None:
            return None, (Flaw(where, line_of(lines, ("use",)), fault),)
        parameters = {**used.parameters, **playbook.parameters}
        playbook = playbook.model_copy(update={"use": None, "steps": used.steps, "parameters": parameters})
    return playbook, tuple(Flaw(where, line_of(lines, at), reason) for at, reason in _rules(playbook))


def _use(name: str, within: tuple[str, ...]) -> tuple[Playbook | None, str]:
    if name in within:
        return None, f"use goes in a circle: {' → '.join((*within, name))}"
    text = _shipped(name)
    if text is None:
        return None, f"there is no playbook {name!r} to use"
    playbook, faults = _read(text, f"{name}.yaml", (*within, name))
    return playbook, str(faults[0]) if faults else ""


def _rules(playbook: Playbook) -> Iterator[tuple[At, str]]:
    """What the schema can't say: what a default may be, and where in a playbook a step may stand."""
    for told, parameter in playbook.parameters.items():
        if parameter.default is not None:
            try:
                _typed(playbook.name, told, parameter, parameter.default)
            except BadInput as error:
                yield ("parameters", told, "default"), error.message
    points = [n for n, step in enumerate(playbook.steps) if step.point_of_no_return]
    if len(points) != 1:
        yield ("steps",), f"a playbook has one point of no return, not {len(points)}"
    point = points[0] if points else len(playbook.steps)
    before: set[str] = set()
    for n, step in enumerate(playbook.steps):
        for field, reason in (*_names(step), *_place(step, n, point, before), *_told(step, playbook)):
            yield ("steps", n, field), reason
        before.add(step.step)


def _names(step: Step) -> Iterator[tuple[str, str]]:
    named = [("step", step.step), ("undo", step.undo), *(("precheck", name) for name in step.precheck)]
    for field, name in named:
        if name is not None and name not in STEPS:
            yield field, f"there is no step {name!r}"


def _place(step: Step, n: int, point: int, before: set[str]) -> Iterator[tuple[str, str]]:
    """Whether a step may stand at `n`, behind those `before`, with this point of no return."""
    kind = STEPS.get(step.step)
    if kind is None:
        return
    if step.step in before:
        yield "step", f"{step.step} comes twice; the journal knows a step by its name"
    yield from _lacks("step", step.step, before)
    if kind.changes and n < point and step.undo is None:
        yield "step", f"{step.step} changes the chain before the point of no return, without an undo"
    if step.undo is not None and n >= point:
        yield "undo", "nothing is undone from the point of no return on"
    if step.on_failure == "undo" and n > point:
        yield "on_failure", "nothing is undone behind the point of no return"
    for name in step.precheck:
        if name in STEPS and not STEPS[name].looks:
            yield "precheck", f"{name} does more than look, so it is no precheck"
        yield from _lacks("precheck", name, before)
    if step.undo is not None:
        if step.undo in STEPS and not STEPS[step.undo].changes:
            yield "undo", f"{step.undo} changes nothing, so it can't undo anything"
        yield from _lacks("undo", step.undo, before | {step.step})


def _told(step: Step, playbook: Playbook) -> Iterator[tuple[str, str]]:
    for field, name in (("step", step.step), *(("precheck", each) for each in step.precheck)):
        told = STEPS[name].told if name in STEPS else ""
        if told and not (told in playbook.parameters and playbook.parameters[told].required):
            yield field, f"{name} has to be told {told}, so the playbook has to require that parameter"


def _lacks(field: str, name: str, before: set[str]) -> Iterator[tuple[str, str]]:
    kind = STEPS.get(name)
    if kind is not None and kind.needs and not before & set(kind.needs):
        yield field, f"{name} needs {' or '.join(kind.needs)} before it"


def _shipped(name: str) -> str | None:
    return next((e.read_text() for e in _entries() if e.name == f"{name}.yaml"), None)


def _entries() -> Iterator[Traversable]:
    shipped = files("failover").joinpath("playbooks")
    folder = shipped if shipped.is_dir() else Path(__file__).parent.parent / "playbooks"
    return (entry for entry in folder.iterdir() if entry.name.endswith(".yaml"))
