"""A YAML file as text values with the line of each, refusing what a configuration has no use for.

Every scalar stays the text that was written; its model gives it a type. So a region named `no` is
not False and `1:30` not 90. Anchors, aliases, tags, duplicate keys, more than one document and deep
nesting are refused: they are how YAML files explode, run code or say two things at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NoReturn, TypeAlias

import yaml
from yaml.composer import ComposerError
from yaml.reader import ReaderError

from chain.config.expand import is_text
from chain.config.values import quoted

MAX_DEPTH = 20

Loc: TypeAlias = tuple[str | int, ...]
Tree: TypeAlias = "str | list[Tree] | dict[str, Tree] | None"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong. `line` counts from 1; 0 means the file as a whole."""

    line: int
    key: str
    message: str
    hint: str = ""
    env: str = ""  # the variable at fault, where the value did not come from the file


@dataclass(slots=True)
class Document:
    """`tree` is None if the file could not be read to its end; then `problems` says why."""

    tree: Tree = None
    lines: dict[Loc, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


def key_name(loc: Loc) -> str:
    """`nodes[1].region`"""
    name = ""
    for part in loc:
        if isinstance(part, int):
            name += f"[{part}]"
        else:
            plain = re.fullmatch(r"[\w-]{1,60}", part)
            name += ("." if name else "") + (part if plain else quoted(part))
    return name


def read_document(text: str) -> Document:
    reader = _Reader()
    document = reader.document
    try:
        document.tree = reader.read(text)
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        document.problems.append(Problem(line, "", "has a character that YAML does not allow"))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        message = error.problem or error.context or "is not YAML"
        hint = "indent with spaces, never with tabs" if "'\\t'" in message else error.note or ""
        document.problems.append(Problem(mark.line + 1 if mark else 0, "", message, hint))
    except (yaml.YAMLError, ValueError, OverflowError):
        # PyYAML lets int() and chr() fail as they are on absurd versions and escapes.
        document.problems.append(Problem(reader.line, "", "has an escape or number beyond YAML"))
    return document


class _Reader:
    def __init__(self) -> None:
        self.document = Document()
        self.line = 1  # of the last event read

    def read(self, text: str) -> Tree:
        events = self._events(text)
        next(events)  # the stream starts
        start = next(events)
        if isinstance(start, yaml.StreamEndEvent):
            _refuse("is empty", start)
        tree = self._node(next(events), events, (), 1)
        next(events)  # the document ends
        more = next(events)
        if not isinstance(more, yaml.StreamEndEvent):
            _refuse("has a second document; keep one", more)
        return tree if tree is not None else {}

    def _events(self, text: str) -> Iterator[yaml.Event]:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            self.line = _line(event)
            yield event

    def _node(self, event: yaml.Event, events: Iterator[yaml.Event], loc: Loc, depth: int) -> Tree:
        self.document.lines.setdefault(loc, _line(event))
        if depth > MAX_DEPTH:
            _refuse(f"is nested more than {MAX_DEPTH} deep", event)
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            _refuse("has an anchor or alias (& or *)", event, "write the value out, or quote it")
        if getattr(event, "tag", None) is not None:
            _refuse("has a tag (!)", event, "leave the tag out, or quote the value")
        if isinstance(event, yaml.MappingStartEvent):
            return self._mapping(events, loc, depth)
        if isinstance(event, yaml.SequenceStartEvent):
            items: list[Tree] = []
            while not isinstance(item := next(events), yaml.SequenceEndEvent):
                items.append(self._node(item, events, (*loc, len(items)), depth + 1))
            return items
        assert isinstance(event, yaml.ScalarEvent)
        return self._scalar(event)

    def _mapping(self, events: Iterator[yaml.Event], loc: Loc, depth: int) -> Tree:
        mapping: dict[str, Tree] = {}
        while not isinstance(event := next(events), yaml.MappingEndEvent):
            key = self._node(event, events, (*loc, "?"), depth + 1)
            self.document.lines.pop((*loc, "?"))
            if isinstance(key, list | dict):
                _refuse("has a key that is not text", event)
            assert isinstance(event, yaml.ScalarEvent)
            name, line = event.value, _line(event)
            here = (*loc, name)
            if name in mapping:
                first = self.document.lines[here]
                message = f"is written twice; the first is on line {first}"
                self.document.problems.append(Problem(line, key_name(here), message))
                # Read on, below a name of its own, for the sake of the lines of the first.
                self._node(next(events), events, (*here, line), depth + 1)
            else:
                self.document.lines[here] = line
                mapping[name] = self._node(next(events), events, here, depth + 1)
        return mapping

    def _scalar(self, event: yaml.ScalarEvent) -> str | None:
        if not is_text(event.value):
            _refuse("has an escape that is no character", event)
        plain = event.implicit[0]
        return None if plain and event.value in ("", "~", "null", "Null", "NULL") else event.value


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 1


def _refuse(problem: str, event: yaml.Event, hint: str = "") -> NoReturn:
    mark = event.start_mark
    assert mark is None or isinstance(mark, yaml.Mark)  # the pure Python reader's
    raise ComposerError(None, None, problem, mark, hint or None)
