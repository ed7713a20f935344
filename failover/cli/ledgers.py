"""`ledger list|show|requeue|discard`: what became of events on dead branches."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from failover.cli.common import (
    ConfigOption,
    DryOption,
    Output,
    OutputOption,
    YesOption,
    confirm,
    load,
    print_json,
    print_rows,
    run,
    talk,
    who,
)

if TYPE_CHECKING:
    from chain.client import Client
    from chain.ledger import Entry
    from chain.store import Store

group = typer.Typer(
    name="ledger", help="Events that a failover took away: see them, put them back.", no_args_is_help=True
)


@group.command("list")
def list_(config: ConfigOption = None, output: OutputOption = Output.TABLE) -> None:
    """List the ledger."""

    async def work() -> list[dict[str, Any]]:
        async with _desk(config) as (_, _, entries):
            return [_row(entry) for entry in entries]

    columns = ["entry", "state", "stream", "revision", "type", "position", "epoch", "node", "now_at"]
    print_rows(output, columns, run(work()), empty="the ledger is empty: no event was ever on a dead branch")


@group.command()
def show(entry: Annotated[str, typer.Argument()], config: ConfigOption = None) -> None:
    """Show an entry whole."""

    async def work() -> dict[str, Any]:
        from chain.ledger import find

        async with _desk(config) as (_, _, entries):
            found = find(entries, entry)
        return {
            **_row(found),
            "data": found.event.data.decode(errors="backslashreplace"),
            "metadata": found.event.metadata.decode(errors="backslashreplace"),
            "recorded_at": found.event.recorded_at.isoformat(),
            "kept_at": found.kept_at.isoformat(),
        }

    print_json(run(work()))


@group.command()
def requeue(
    entry: Annotated[str, typer.Argument(help="An entry, or `all` that are open.")],
    config: ConfigOption = None,
    at_end: Annotated[
        bool, typer.Option("--at-end", help="Append even if the stream has moved on since.")
    ] = False,
    dry_run: DryOption = False,
    yes: YesOption = False,
) -> None:
    """Append a dead event again, under its own id."""

    async def work() -> int:
        from chain.errors import Refused
        from chain.ledger import EntryState, find
        from failover import ledger_desk

        async with _desk(config) as (client, head, entries):
            if entry == "all":
                chosen = [e for e in entries if e.state is EntryState.OPEN and not e.is_system]
            else:
                chosen = [find(entries, entry)]
            talk(f"{len(chosen)} events to append again")
            if dry_run:
                return 0
            confirm("do it?", yes=yes)
            refused = 0
            for one in chosen:
                try:
                    done, answer = await ledger_desk.requeue(client, head, one, by=who(), at_end=at_end)
                except Refused as error:
                    if entry != "all":
                        raise
                    refused += 1
                    talk(f"{str(one.id)[:8]} stays open: {error.message}")
                else:
                    was = "was in the log already" if answer.repeated else "is in the log again"
                    talk(f"{str(one.id)[:8]} {was}, at position {done.position:,}")
            return refused

    if run(work(), interrupted="interrupted; give it again: nothing is appended twice"):
        raise typer.Exit(3)


@group.command()
def discard(
    entry: Annotated[str, typer.Argument()],
    reason: Annotated[str, typer.Option("--reason", help="Why; it is kept.")],
    config: ConfigOption = None,
    dry_run: DryOption = False,
    yes: YesOption = False,
) -> None:
    """Let a dead event go, with a reason."""

    async def work() -> None:
        from chain.ledger import find
        from failover import ledger_desk

        async with _desk(config) as (_, head, entries):
            found = find(entries, entry)
            talk(
                f"{found.event.type} on {found.event.stream}, position {found.event.position:,}"
                f" of {found.node}"
            )
            if dry_run:
                return
            confirm("let it go?", yes=yes)
            await ledger_desk.discard(head, found, by=who(), reason=reason)
            talk("discarded")

    run(work())


@asynccontextmanager
async def _desk(config: Any) -> AsyncIterator[tuple[Client, Store, list[Entry]]]:
    from failover import ledger_desk
    from failover.cli.events import _client
    from failover.fleet import open_fleet

    settings = load(config)
    client = _client(settings)
    try:
        async with open_fleet(settings) as fleet:
            head = fleet.store((await fleet.registry.topology()).head)
            yield client, head, await ledger_desk.entries(head)
    finally:
        await client.close()


def _row(entry: Entry) -> dict[str, Any]:
    return {
        "entry": str(entry.id),
        "state": entry.state.value,
        "event": str(entry.event.id),
        "stream": entry.event.stream,
        "revision": entry.event.revision,
        "type": entry.event.type,
        "position": entry.event.position,
        "epoch": entry.event.epoch,
        "node": entry.node,
        "fork": entry.fork,
        "now_at": entry.position if entry.position is not None else "-",
        "reason": entry.reason,
    }
