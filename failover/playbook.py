"""Playbooks: operations as data. A closed list of steps, each typed, idempotent and bounded in time."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from chain.errors import BadFile


class Step(BaseModel):
    """One step of a playbook."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    step: str
    """The kind of step: one of `failover.steps.STEPS`."""
    timeout_s: float = Field(default=30.0, gt=0, le=86400)
    point_of_no_return: bool = False
    """Once this step has begun, the run is carried on, not undone."""
    undo: str | None = None
    """The step that takes this one back, if the run fails before the point of no return."""


class Playbook(BaseModel):
    """An operation."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    title: str
    """What it does, in a sentence for the operator."""
    urgent: bool = False
    """May be begun while a run of another playbook is unfinished, and ends that one, if nobody is at it."""
    steps: tuple[Step, ...] = Field(min_length=1)


def load_playbook(name: str) -> Playbook:
    """A playbook that geochain ships. Raises BadFile if there is none, or it breaks the schema."""
    known = {entry.name.removesuffix(".yaml"): entry for entry in _entries()}
    if name not in known:
        raise BadFile(f"there is no playbook {name!r}", hint=f"there are: {', '.join(sorted(known))}")
    return parse_playbook(known[name].read_text(), f"{name}.yaml")


def playbook_names() -> tuple[str, ...]:
    return tuple(sorted(entry.name.removesuffix(".yaml") for entry in _entries()))


def parse_playbook(text: str, where: str) -> Playbook:
    """Raises BadFile, naming file and field."""
    try:
        content = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date with a 13th month
        raise BadFile(f"{where} is not YAML: {error}") from error
    try:
        return Playbook.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "the whole"
        raise BadFile(f"{where}: {field}: {first['msg']}") from error


def _entries() -> Iterator[Traversable]:
    shipped = files("failover").joinpath("playbooks")
    folder = shipped if shipped.is_dir() else Path(__file__).parent.parent / "playbooks"
    return (entry for entry in folder.iterdir() if entry.name.endswith(".yaml"))
