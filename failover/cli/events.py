"""`events import|append|read|follow`: the log, from the command line."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from failover.cli.common import (
    MOST,
    ConfigOption,
    Output,
    OutputOption,
    load,
    print_json,
    print_rows,
    run,
    talk,
)

if TYPE_CHECKING:
    from chain.client import Client
    from chain.event import Event

group = typer.Typer(name="events", help="Append to the log, and read it.", no_args_is_help=True)

COLUMNS = ["position", "epoch", "stream", "revision", "type", "recorded_at", "data"]


@group.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="JSON lines or CSV.")],
    config: ConfigOption = None,
    stream: Annotated[str, typer.Option(help="For CSV: the stream's name, from its columns.")] = (
        "customer-{customer_id}"
    ),
    type_: Annotated[str, typer.Option("--type", help="For CSV: the type of the events.")] = "Imported",
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave bad lines out, and count them.")
    ] = False,
    writers: Annotated[int, typer.Option(min=1, max=1024, help="Appends under way at once.")] = 64,
) -> None:
    """Append a file's events. Interrupted, it can be run again: no line is stored twice."""
    from failover.purchases import Line, Skipped, read_events

    settings = load(config)
    skipped = Skipped()
    lines = list(read_events(file, stream=stream, type_=type_, skipped=skipped if skip_bad else None))
    by_stream: dict[str, list[Line]] = {}
    for line in lines:
        by_stream.setdefault(line.stream, []).append(line)

    async def work() -> tuple[int, int]:
        from chain.event import Expect

        client = _client(settings)
        queue = iter(by_stream.values())
        stored = repeated = 0

        async def write() -> None:
            nonlocal stored, repeated
            for batch in queue:
                for line in batch:  # one after another: a stream keeps the order of the file
                    answer = await client.add(line.stream, Expect.ANY, [line.event])
                    stored += not answer.repeated
                    repeated += answer.repeated

        try:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(writers):
                    tasks.create_task(write())
        finally:
            await client.close()
            talk(
                f"{stored:,} events stored, {repeated:,} were there already, {skipped.count:,} lines skipped"
            )
        return stored, repeated

    stored, repeated = run(work(), interrupted="interrupted; run it again: no line is stored twice")
    if skipped.count:
        talk(f"the first bad line: {skipped.first}")
    print_json({"stored": stored, "repeated": repeated, "skipped": skipped.count})


@group.command()
def append(
    stream: Annotated[str, typer.Argument()],
    type_: Annotated[str, typer.Argument(metavar="TYPE")],
    payload: Annotated[str, typer.Argument(metavar="DATA", help="The data; - reads it from stdin.")] = "",
    config: ConfigOption = None,
    metadata: Annotated[str, typer.Option(help="The metadata.")] = "",
    expected: Annotated[str, typer.Option(help="The stream's last revision, `none`, or `any`.")] = "any",
    id_: Annotated[str | None, typer.Option("--id", help="The event's id, to make a retry safe.")] = None,
) -> None:
    """Append one event."""
    from uuid import UUID

    from chain.errors import BadInput
    from chain.event import Expect, Expected, NewEvent, Revision, new_id

    names = {"any": Expect.ANY, "none": Expect.NO_STREAM}
    if expected not in names and not (expected.isdecimal() and len(expected) < 19):
        raise BadInput(f"--expected {expected}: give a revision, `none` or `any`")
    wanted: Expected = names[expected] if expected in names else Revision(int(expected))
    try:
        ident = UUID(id_) if id_ else new_id()
    except ValueError as error:
        raise BadInput(f"--id {id_}: {error}") from error
    body = sys.stdin.buffer.read() if payload == "-" else os.fsencode(payload)
    event = NewEvent(type_, body, os.fsencode(metadata), ident)

    async def work() -> dict[str, Any]:
        client = _client(load(config))
        try:
            done = await client.add(stream, wanted, [event])
        finally:
            await client.close()
        return {
            "position": done.first_position,
            "epoch": done.epoch,
            "revision": done.last_revision,
            "id": str(ident),
            "repeated": done.repeated,
        }

    print_json(run(work()))


@group.command()
def read(
    stream: Annotated[str | None, typer.Argument(help="A stream; else the whole log.")] = None,
    config: ConfigOption = None,
    output: OutputOption = Output.TABLE,
    node: Annotated[str | None, typer.Option(help="The node to read; else the tail.")] = None,
    after: Annotated[int, typer.Option(min=0, max=MOST, help="Skip so many: positions, or revisions.")] = 0,
    limit: Annotated[int, typer.Option(min=1, max=100_000)] = 100,
) -> None:
    """Read events of a stream, or of the log."""
    from chain.event import Position, Revision

    async def work() -> list[dict[str, Any]]:
        from failover.fleet import open_fleet

        async with open_fleet(load(config)) as fleet:
            store = fleet.store(node or (await fleet.registry.topology()).tail)
            if stream is not None:
                page = await store.get(stream, Revision(after), limit)
            else:
                page = await store.log(Position(after), limit)
        return [_row(event) for event in page.events]

    print_rows(output, COLUMNS, run(work()), empty="no events")


@group.command()
def follow(
    config: ConfigOption = None,
    node: Annotated[str | None, typer.Option(help="The node to follow; else the tail.")] = None,
    after: Annotated[int, typer.Option(min=0, max=MOST, help="Begin behind this position.")] = 0,
    count: Annotated[int, typer.Option(min=0, help="End after so many events; 0 is never.")] = 0,
) -> None:
    """Print the log as JSON lines, and then what comes."""
    from chain.event import Position

    async def work() -> None:
        from failover.fleet import open_fleet

        seen = 0
        async with open_fleet(load(config)) as fleet:
            store = fleet.store(node or (await fleet.registry.topology()).tail)
            async for page in store.follow(Position(after)):
                for event in page.events:
                    print_rows(Output.JSONL, COLUMNS, [_row(event)], empty="")
                    seen += 1
                    if seen == count:
                        return

    run(work(), interrupted="")


def _client(config: Any) -> Client:
    from chain.connect import open_client

    return open_client(config)


def _row(event: Event) -> dict[str, Any]:
    return {
        "position": event.position,
        "epoch": event.epoch,
        "stream": event.stream,
        "revision": event.revision,
        "id": str(event.id),
        "type": event.type,
        "recorded_at": event.recorded_at.isoformat(),
        "data": event.data.decode(errors="backslashreplace"),
        "metadata": event.metadata.decode(errors="backslashreplace"),
    }
