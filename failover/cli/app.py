"""The command tree of `chainctl`, and the one place where errors become words and exit codes."""

from __future__ import annotations

import sys

import typer

from chain.errors import ChainError

app = typer.Typer(
    name="chainctl",
    help="Carries an event-sourced system through the loss of a whole region.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """Runs a command. Ends with the exit codes of docs/reference.md."""
    from failover.cli import (
        automation,
        chains,
        configs,
        drills,
        events,
        ledgers,
        operations,
        playbooks,
        serve,
        views,
    )

    for module in (chains, views, operations, automation, serve):
        module.register(app)
    for group in (events.group, ledgers.group, playbooks.group, drills.group, configs.group):
        app.add_typer(group)
    try:
        app()
    except ChainError as error:
        fail(error)
    except BaseExceptionGroup as group:
        fail(_first(group))


def fail(error: BaseException) -> None:
    """Says what happened and what to do, and exits."""
    if not isinstance(error, ChainError):
        raise error
    print(f"chainctl: {error.message}", file=sys.stderr)  # noqa: T201
    if error.hint:
        print(f"  → {error.hint}", file=sys.stderr)  # noqa: T201
    for note in getattr(error, "__notes__", ()):
        print(note, file=sys.stderr)  # noqa: T201
    sys.exit(error.exit_code)


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
