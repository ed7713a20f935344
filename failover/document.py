"""Documents that people write, as YAML with a closed schema: read so that every fault names file and line.

What makes YAML explode is refused before anything is made of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

MAX_BYTES: Final = 64 * 1024
MAX_DEPTH: Final = 20


class Closed(BaseModel):
    """A part of a document: unknown keys are refused, and it never changes."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


At = tuple[str | int, ...]
"""A place in a document: keys and indexes from the top."""
Lines = Mapping[At, int]
Document = TypeVar("Document", bound=Closed)


@dataclass(frozen=True, slots=True)
class Flaw:
    """What is wrong with a document, and where."""

    where: str
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.where}:{self.line}: {self.reason}"


def read_document(
    kind: type[Document], text: str, where: str
) -> tuple[Document | None, Lines, tuple[Flaw, ...]]:
    """The document, the line of each of its places, and what is wrong with it by its schema."""
    try:
        content, lines = _load(text)
    except _BadYaml as error:
        return None, {}, (Flaw(where, error.line, error.reason),)
    try:
        return kind.model_validate(content), lines, ()
    except ValidationError as error:
        return None, lines, tuple(_faults(error, where, lines))


class _BadYaml(Exception):
    def __init__(self, line: int, reason: str) -> None:
        super().__init__(reason)
        self.line, self.reason = line, reason


def _load(text: str) -> tuple[Any, Lines]:
    """The content, and the line of each of its places. Raises _BadYaml."""
    if len(text.encode(errors="surrogatepass")) > MAX_BYTES:
        raise _BadYaml(1, f"a document has at most {MAX_BYTES:,} bytes")
    try:
        _check_plain(text)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        lines: dict[At, int] = {}
        if node is not None:
            _note_lines(node, (), lines)
        return yaml.safe_load(text), lines
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise _BadYaml(mark.line + 1 if mark else 1, f"not YAML: {error.problem or error.context}") from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        # ValueError: a date with a 13th month. OverflowError: an escape for no character.
        raise _BadYaml(1, f"not YAML: {error}") from error


def _check_plain(text: str) -> None:
    """Refuses, before anything is made of it, what makes YAML explode, or takes PyYAML very long."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        line = event.start_mark.line + 1 if event.start_mark else 1
        named = isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None)
        if named or getattr(event, "tag", None):  # PyYAML fails as it is at some tags: `!!int ""`
            raise _BadYaml(line, "anchors, aliases and tags are not read here")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise _BadYaml(line, f"nested more than {MAX_DEPTH} deep")


def _note_lines(node: yaml.Node, at: At, lines: dict[At, int]) -> None:
    lines[at] = node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        known: set[str] = set()
        for key, value in node.value:
            name = str(key.value)
            if name in known:
                raise _BadYaml(key.start_mark.line + 1, f"{name} is there twice")
            known.add(name)
            _note_lines(value, (*at, name), lines)
            lines[(*at, name)] = key.start_mark.line + 1
    elif isinstance(node, yaml.SequenceNode):
        for n, value in enumerate(node.value):
            _note_lines(value, (*at, n), lines)


def line_of(lines: Lines, at: At) -> int:
    while at and at not in lines:
        at = at[:-1]
    return lines.get(at, 1)


def _faults(error: ValidationError, where: str, lines: Lines) -> Iterator[Flaw]:
    for each in error.errors():
        at = tuple(each["loc"])
        field = ".".join(map(str, at)) or "the whole"
        yield Flaw(where, line_of(lines, at), f"{field}: {each['msg']}")
