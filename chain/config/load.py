"""From a file and an environment to a Config, or to one BadConfig with everything that is wrong.

Order: read the YAML, expand `${NAME}`, lay the `CHAIN_…` variables over it, read the password files,
compare the nodes with each other, validate. Each step goes on past the faults of the one before.
"""

from __future__ import annotations

import difflib
import os
import stat
from collections.abc import Callable, Hashable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from chain.config.document import Loc, Problem, Tree, key_name, read_document
from chain.config.dsn import Dsn
from chain.config.expand import expand, is_text
from chain.config.models import (
    AutomationConfig,
    ClientConfig,
    Config,
    LeaseConfig,
    LinksConfig,
    NodeConfig,
    RegistryConfig,
    Section,
    VerifyConfig,
    show,
)
from chain.errors import BadConfig

MAX_FILE_BYTES = 1024**2
MAX_EXPANDED_CHARS = 1024**2
MAX_PASSWORD_BYTES = 4096
MAX_REPORTED = 50

_SECTIONS: dict[str, type[Section]] = {
    "registry": RegistryConfig,
    "nodes": NodeConfig,
    "links": LinksConfig,
    "client": ClientConfig,
    "lease": LeaseConfig,
    "automation": AutomationConfig,
    "verify": VerifyConfig,
}
OVERRIDES: dict[str, tuple[str, ...]] = {
    f"CHAIN_{section}_{key}".upper(): (section, key)
    for section in ("registry", "links", "client", "lease", "automation", "verify")
    for key in _SECTIONS[section].model_fields
    if key != "never"  # a list
} | {"CHAIN_DRILLS": ("drills",)}

_Holder = TypeVar("_Holder", RegistryConfig, NodeConfig)


def load_config(path: Path, env: Mapping[str, str]) -> Config:
    """Read chain.yaml. A variable `CHAIN_<SECTION>_<KEY>` that is set and not empty wins over it.

    BadConfig has one line for each fault, in the order of the file.
    """
    document = read_document(_read_text(path))
    if document.tree is None:
        raise bad_config(path, document.problems)
    return _Loading(path, env, document.tree, document.lines, document.problems).run()


def bad_config(path: Path, problems: list[Problem]) -> BadConfig:
    ordered = sorted(problems, key=lambda problem: (bool(problem.env), problem.line))
    lines = []
    for problem in ordered[:MAX_REPORTED]:
        place = f"env {problem.env}" if problem.env else str(path)
        if problem.line and not problem.env:
            place += f":{problem.line}"
        lines.append(": ".join(part for part in (place, problem.key, problem.message) if part))
    if len(ordered) > MAX_REPORTED:
        lines.append(f"{path}: and {len(ordered) - MAX_REPORTED} more")
    hints = dict.fromkeys(problem.hint for problem in ordered if problem.hint)
    hint = "; ".join(hints) if len(hints) in (1, 2) else "correct these lines"
    return BadConfig("\n".join(lines), hint=f"{hint}, then check: chainctl config lint")


class _Loading:
    def __init__(
        self,
        path: Path,
        env: Mapping[str, str],
        tree: Tree,
        lines: Mapping[Loc, int],
        problems: list[Problem],
    ) -> None:
        self.path = path
        self.env = env
        self.tree = tree
        self.lines = lines
        self.problems = problems
        self.overridden: dict[Loc, str] = {}
        self.settled: set[Loc] = set()  # places whose fault is told already
        self.passwords: dict[Loc, str] = {}
        self.expanded_chars = 0

    def run(self) -> Config:
        self.tree = self._expand(self.tree, ())
        self._override()
        for loc, holder in self._holders():
            self._read_password(loc, holder)
        if isinstance(self.tree, dict) and isinstance(section := self.tree.get("verify"), dict):
            self._read_password(("verify",), section)
        self._compare_nodes()
        config = self._validate()
        if config is None or self.problems:
            raise bad_config(self.path, self.problems) from None
        registry = self._with_password(config.registry, ("registry",))
        nodes = tuple(self._with_password(node, ("nodes", i)) for i, node in enumerate(config.nodes))
        verify = config.verify
        if (password := self.passwords.get(("verify",))) is not None:
            verify = verify.with_password(password)
        config = config.model_copy(update={"registry": registry, "nodes": nodes, "verify": verify})
        return config.with_origins({key_name(loc): self._origin(loc) for loc in _leaves(show(config), ())})

    # -- the environment

    def _expand(self, tree: Tree, loc: Loc) -> Tree:
        if isinstance(tree, dict):
            values = {key: self._expand(value, (*loc, key)) for key, value in tree.items()}
            return {key: value for key, value in values.items() if (*loc, key) not in self.settled}
        if isinstance(tree, list):
            return [self._expand(item, (*loc, i)) for i, item in enumerate(tree)]
        if tree is None or "${" not in tree:
            return tree
        try:
            text = expand(tree, self.env)
        except ValueError as error:
            self._fault(loc, str(error))
            return None
        self.expanded_chars += len(text)
        if self.expanded_chars > MAX_EXPANDED_CHARS:
            self._fault(loc, f"variables expand to more than {MAX_EXPANDED_CHARS:,} characters")
            raise bad_config(self.path, self.problems)
        return text

    def _override(self) -> None:
        if not isinstance(self.tree, dict):
            return
        for variable, loc in OVERRIDES.items():
            value = self.env.get(variable)
            if not value:
                continue
            holder: Tree = self.tree
            if len(loc) == 2:
                if self.tree.get(loc[0]) is None:
                    self.tree[loc[0]] = {}
                holder = self.tree[loc[0]]
            if isinstance(holder, dict):
                self.overridden[loc] = variable
                holder[loc[-1]] = value
                if not is_text(value):
                    del holder[loc[-1]]
                    self._fault(loc, "is not UTF-8")

    # -- passwords

    def _holders(self) -> Iterator[tuple[Loc, dict[str, Tree]]]:
        """The sections that name a database: the registry's, then each node's."""
        if not isinstance(self.tree, dict):
            return
        registry = self.tree.get("registry")
        if isinstance(registry, dict):
            yield ("registry",), registry
        nodes = self.tree.get("nodes")
        for i, node in enumerate(nodes if isinstance(nodes, list) else []):
            if isinstance(node, dict):
                yield ("nodes", i), node

    def _read_password(self, loc: Loc, holder: dict[str, Tree]) -> None:
        name = holder.get("password_file")
        if not isinstance(name, str) or not name:
            return
        here, dsn = (*loc, "password_file"), _dsn(holder.get("dsn"))
        if dsn is not None and dsn.password is not None:
            # Of two passwords the environment's wins, as for every other value.
            from_env = ((*loc, "dsn") in self.overridden, here in self.overridden)
            if from_env == (True, False):
                return
            if from_env != (False, True):
                self._fault(here, "the dsn has a password too; keep one of them")
        try:
            self.passwords[loc] = read_password(self.path.parent / name)
        except ValueError as error:
            self._fault(here, str(error))

    def _with_password(self, holder: _Holder, loc: Loc) -> _Holder:
        password = self.passwords.get(loc)
        if password is None:
            return holder
        return holder.model_copy(update={"dsn": holder.dsn.with_password(password)})

    # -- what only two places together get wrong

    def _compare_nodes(self) -> None:
        self._distinct("name", "is the name of", _word)
        self._distinct("http", "is the address of", _word)
        self._distinct("dsn", "is the database of", _database)

    def _distinct(self, key: str, what: str, identity: Callable[[Tree], Hashable | None]) -> None:
        first: dict[Hashable, Loc] = {}
        for loc, holder in self._holders():
            here, value = (*loc, key), identity(holder.get(key))
            if value is None or (key != "dsn" and loc == ("registry",)):
                continue
            other = first.setdefault(value, here)
            if other != here:
                where = self._env_or_line(other)
                self._fault(here, f"{what} {key_name(other[:-1])} already ({where})")

    # -- the models

    def _validate(self) -> Config | None:
        try:
            return Config.model_validate(self.tree)
        except ValidationError as error:
            details = error.errors(include_url=False, include_input=False)
        meant: set[Loc] = set()
        for detail in details:
            if detail["type"] == "extra_forbidden":
                meant.add(self._unknown_key(detail["loc"]))
        for detail in details:
            loc = detail["loc"]
            if detail["type"] == "extra_forbidden" or loc in self.settled or loc in meant:
                continue
            if detail["type"] == "too_short" and _items(self.tree, loc):
                continue  # its items are wrong, not missing: pydantic counts the good ones
            self._fault(loc, self._in_words(detail))
        return None

    def _unknown_key(self, loc: Loc) -> Loc:
        """Report it; the place that was probably meant, which is then not reported as missing."""
        model = _SECTIONS[str(loc[0])] if len(loc) > 1 else Config
        known, key = list(model.model_fields), str(loc[-1])
        close = difflib.get_close_matches(key, known, n=1)
        if close:
            self._fault(loc, f"is not a key here; did you mean {close[0]!r}?")
            return (*loc[:-1], close[0])
        self._fault(loc, f"is not a key here; the keys are {', '.join(known)}")
        return loc

    def _in_words(self, detail: ErrorDetails) -> str:
        match detail["type"]:
            case "missing":
                return "has no value" if detail["loc"] in self.lines else "is missing"
            case "value_error":
                return str(detail["ctx"]["error"])
            case "model_type" | "model_attributes_type" | "dict_type":
                return "should be a section of 'key: value' lines"
            case "tuple_type" | "list_type":
                return "should be a list: each item begins with '- '"
            case "too_short":
                return "should have at least one item"
            case _:
                return detail["msg"].replace("Input should be", "should be")

    # -- places

    def _fault(self, loc: Loc, message: str) -> None:
        self.settled.add(loc)
        env = self.overridden.get(loc, "")
        self.problems.append(Problem(self._line(loc), key_name(loc), message, env=env))

    def _line(self, loc: Loc) -> int:
        """Its own line, or that of the nearest thing around it that was written."""
        while loc not in self.lines and loc:
            loc = loc[:-1]
        return self.lines.get(loc, 1)

    def _env_or_line(self, loc: Loc) -> str:
        return f"env {self.overridden[loc]}" if loc in self.overridden else f"line {self._line(loc)}"

    def _origin(self, loc: Loc) -> str:
        if loc in self.overridden:
            return f"env {self.overridden[loc]}"
        written: Any = self.tree
        for part in loc:
            if isinstance(written, dict) and written.get(part) is None:
                return "default"
            written = written[part]
        return f"{self.path.name}:{self.lines[loc]}"


def read_password(path: Path) -> str:
    """The content of a password file less one newline at its end. ValueError says what is wrong."""
    try:
        # Not blocking: a pipe would otherwise be waited on for ever.
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise ValueError(f"can't read {path}: {error.strerror}") from None
    except ValueError:
        raise ValueError("is not the name of a file") from None
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError(f"{path} is not a file")
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise ValueError(f"others may write to {path}; chmod go-w {path}")
        content = os.read(file, MAX_PASSWORD_BYTES + 1)
    except OSError as error:
        raise ValueError(f"can't read {path}: {error.strerror}") from None
    finally:
        os.close(file)
    if len(content) > MAX_PASSWORD_BYTES:
        raise ValueError(f"{path} is larger than {MAX_PASSWORD_BYTES:,} bytes")
    try:
        password = content.decode()
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8") from None
    password = password.removesuffix("\n").removesuffix("\r")
    if not password or "\0" in password:
        raise ValueError(f"{path} {'holds a zero byte' if password else 'is empty'}")
    return password


def _read_text(path: Path) -> str:
    def refuse(message: str, line: int = 0, hint: str = "") -> NoReturn:
        raise bad_config(path, [Problem(line, "", message, hint)]) from None

    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        refuse(f"can't be read: {error.strerror}", hint="name the file in CHAIN_CONFIG")
    except ValueError:
        refuse("is not the name of a file")
    if len(content) > MAX_FILE_BYTES:
        refuse(f"is larger than {MAX_FILE_BYTES:,} bytes")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        refuse("is not UTF-8", line, "save the file as UTF-8")


def _dsn(value: Tree) -> Dsn | None:
    try:
        return Dsn.parse(value) if isinstance(value, str) else None
    except ValueError:
        return None  # its model says what is wrong with it


def _database(value: Tree) -> Hashable | None:
    dsn = _dsn(value)
    return dsn.place if dsn else None


def _word(value: Tree) -> Hashable | None:
    return value.lower() if isinstance(value, str) and value else None


def _items(tree: Tree, loc: Loc) -> Tree:
    return tree.get(str(loc[0])) if isinstance(tree, dict) and len(loc) == 1 else None


def _leaves(value: Any, loc: Loc) -> Iterator[Loc]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(item, (*loc, key))
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            yield from _leaves(item, (*loc, i))
    else:
        yield loc
