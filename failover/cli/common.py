"""What the commands share: options, output, questions."""

from __future__ import annotations

import asyncio
import getpass
import json
import os
import shlex
import signal
import socket
import sys
from collections.abc import Coroutine, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from chain.errors import BadInput, Refused

T = TypeVar("T")


class Output(StrEnum):
    """How data is printed on stdout."""

    TABLE = "table"
    JSON = "json"
    JSONL = "jsonl"


ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config", "-c", envvar="CHAIN_CONFIG", help="chain.yaml; else ./chain.yaml, else the local chain."
    ),
]
OutputOption = Annotated[Output, typer.Option("--output", "-o", help="How data is printed.")]
StateOption = Annotated[Path, typer.Option("--state", help="Folder of the local chain.")]
YesOption = Annotated[bool, typer.Option("--yes", help="Do it without asking.")]
DryOption = Annotated[bool, typer.Option("--dry-run", help="Show the plan and change nothing.")]
ReasonOption = Annotated[str, typer.Option("--reason", help="Why; kept in the chain's history.")]

LOCAL = Path(".geochain")
CELL = 300
MOST = 2**63 - 1
"""The largest position and revision there can be."""


def run(work: Coroutine[Any, Any, T], *, interrupted: str = "interrupted") -> T:
    """Does it. Ctrl-C cancels it, and when it has ended says `interrupted`; the exit code is 130."""
    try:
        return asyncio.run(work)
    except KeyboardInterrupt:
        if interrupted:
            talk(interrupted)
        sys.exit(130)


def config_path(given: Path | None) -> Path:
    """Raises BadInput if there is none."""
    if given is not None:
        return given
    for path in (Path("chain.yaml"), LOCAL / "chain.yaml"):
        if path.exists():
            return path
    raise BadInput(
        "there is no chain.yaml here, and no local chain", hint="start one: chainctl up; or give --config"
    )


def load(given: Path | None) -> Any:
    from chain.config import load_config

    return load_config(config_path(given), os.environ)


def there(config: Path | None) -> str:
    """What a further command needs to find the same chain, if this one had to be told."""
    return "" if config is None else f" -c {shlex.quote(str(config))}"


def talk(text: str = "") -> None:
    """Says something to the person, on stderr."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201


def data(text: str) -> None:
    """Prints data, on stdout."""
    print(text, flush=True)  # noqa: T201


def print_json(value: Any) -> None:
    data(json.dumps(value, indent=2, default=str, ensure_ascii=False))


def print_rows(
    output: Output, columns: Sequence[str], rows: Sequence[Mapping[str, Any]], *, empty: str
) -> None:
    """Rows as a table, as one JSON array, or as a JSON object a line."""
    if output is Output.JSON:
        print_json(list(rows))
    elif output is Output.JSONL:
        for row in rows:
            data(json.dumps(row, default=str, ensure_ascii=False))
    elif not rows:
        talk(empty)
    else:
        from rich.box import SIMPLE_HEAD
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="bold")
        for column in columns:
            table.add_column(column, overflow="fold")
        for row in rows:
            table.add_row(*(Text(_cell(row.get(column))) for column in columns))
        Console(soft_wrap=False, width=None if sys.stdout.isatty() else 140).print(table)


def confirm(question: str, *, yes: bool) -> None:
    """Asks, unless told not to. Raises Refused on no, or when there is nobody to ask."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise Refused("there is nobody here to ask", hint="say --yes if you mean it")
    # Where a loop runs, Ctrl-C asks it to cancel its task, which is waiting for this answer.
    loops = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        confirmed = typer.confirm(question, err=True)
    except typer.Abort:
        talk()
        confirmed = False
    finally:
        signal.signal(signal.SIGINT, loops)
    if not confirmed:
        raise Refused("not confirmed; nothing was changed")


def who() -> str:
    """The operator, for the history."""
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (KeyError, OSError):
        return f"uid {os.getuid()}@{socket.gethostname()}"


def _cell(value: Any) -> str:
    if value is None:
        return "?"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return _printable(str(value))


def _printable(text: str) -> str:
    """Made harmless and short enough for a table: what is in an event, anyone may have written."""
    cut = "" if len(text) <= CELL else f"… ({len(text):,} characters; -o json shows all)"
    shown = text if not cut else text[:CELL]
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in shown) + cut
