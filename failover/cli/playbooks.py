"""`playbook`: the operations as data - list, lint, plan, approve, run, resume, abort."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from failover.cli.common import (
    ConfigOption,
    DryOption,
    Output,
    OutputOption,
    ReasonOption,
    YesOption,
    confirm,
    data,
    load,
    print_json,
    print_rows,
    run,
    talk,
    there,
    who,
)
from failover.cli.operations import operate, say, show_plan

if TYPE_CHECKING:
    from failover.fleet import Fleet
    from failover.playbook import Playbook

group = typer.Typer(name="playbook", help="The operations, as data.", no_args_is_help=True)

PlaybookArgument = Annotated[
    str, typer.Argument(metavar="PLAYBOOK", help="The name of a shipped playbook, or a .yaml file.")
]
GivenArgument = Annotated[
    list[str] | None, typer.Argument(metavar="[NAME=VALUE]...", help="Its parameters, such as node=west-1.")
]
RunOption = Annotated[str | None, typer.Option("--run", help="Only if it is this run; see chainctl history.")]


@group.command("list")
def list_(output: OutputOption = Output.TABLE) -> None:
    """Show what there is."""
    from failover.playbook import load_playbook, playbook_names

    rows = [
        {
            "playbook": p.name,
            "does": p.title,
            "parameters": " ".join(f"{n}{'' if q.required else '?'}" for n, q in p.parameters.items()) or "-",
            "steps": len(p.steps),
        }
        for p in map(load_playbook, playbook_names())
    ]
    print_rows(output, ["playbook", "does", "parameters", "steps"], rows, empty="")


@group.command()
def steps(output: OutputOption = Output.TABLE) -> None:
    """Show the steps that playbooks are made of."""
    from failover.steps import STEPS

    rows = [
        {
            "step": name,
            "does": kind.title,
            "kind": "looks" if kind.looks else "waits" if kind.waits else "changes",
            "needs": " or ".join(kind.needs) or "-",
        }
        for name, kind in STEPS.items()
    ]
    print_rows(output, ["step", "does", "kind", "needs"], rows, empty="")


@group.command()
def schema() -> None:
    """Print the JSON Schema of a playbook, as committed in playbooks/playbook.schema.json."""
    from failover.playbook import Playbook

    print_json(Playbook.model_json_schema())


@group.command()
def lint(
    playbooks: Annotated[
        list[str] | None, typer.Argument(help="Names or files; else all that is shipped.")
    ] = None,
) -> None:
    """Check playbooks, and say everything that is wrong, with file and line. Exit 1 if anything is."""
    from failover.document import Flaw
    from failover.playbook import lint, playbook_names

    flaws: list[Flaw] = []
    for name in playbooks or playbook_names():
        text, where = _text(name)
        flaws += lint(text, where)
    for flaw in flaws:
        data(str(flaw))
    if flaws:
        sys.exit(1)
    talk("nothing is wrong")


@group.command()
def plan(
    playbook: PlaybookArgument,
    given: GivenArgument = None,
    config: ConfigOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show what a run would find and do now, and its hash. Changes nothing."""
    settings, loaded = load(config), _load(playbook)

    async def work() -> Any:
        from failover.fleet import open_fleet
        from failover.plan import plan

        async with open_fleet(settings) as fleet:
            return await plan(fleet, loaded, _given(given))

    planned = run(work())
    if output is Output.TABLE:
        show_plan(planned)
        data(planned.hash)
        return
    print_json(
        {
            "plan": planned.hash,
            "playbook": planned.playbook.name,
            "parameters": planned.parameters,
            "epoch": planned.epoch,
            "order": planned.order,
            "node": planned.node,
            "found": planned.found,
            "loss_events": planned.loss_events,
            "pause_s": planned.pause_s,
            "needs_approval": planned.needs_approval,
            "steps": [step.step for step in planned.playbook.steps],
        }
    )


@group.command()
def approve(
    playbook: PlaybookArgument,
    plan_hash: Annotated[str, typer.Argument(metavar="PLAN", help="The plan's hash, or 12 digits of it.")],
    given: GivenArgument = None,
    config: ConfigOption = None,
    by: Annotated[str, typer.Option("--by", help="Who approves.")] = "",
    for_: Annotated[str, typer.Option("--for", help="For how long, such as 15m.")] = "15m",
    yes: YesOption = False,
) -> None:
    """Approve of a plan, as the chain is now; it holds for one run, and expires."""
    settings, loaded = load(config), _load(playbook)

    async def work() -> None:
        from chain.commands import approve_plan
        from chain.config.values import parse_duration
        from chain.errors import BadInput, Refused
        from failover.fleet import open_fleet
        from failover.plan import plan

        try:
            for_s = parse_duration(for_)
        except ValueError as error:
            raise BadInput(f"--for: {error}") from error
        async with open_fleet(settings) as fleet:
            planned = await plan(fleet, loaded, _given(given))
            show_plan(planned)
            if len(plan_hash) < 12 or not planned.hash.startswith(plan_hash):
                raise Refused(
                    f"the plan is {planned.hash[:12]} now, not {plan_hash[:12]}: the chain, the playbook or"
                    " the parameters have changed",
                    hint="look at the plan above, and approve of that one, or don't",
                )
            confirm(f"approve of plan {planned.hash[:12]} for {for_}?", yes=yes)
            name = by or who()
            await fleet.registry.decide(approve_plan(planned.hash, name, for_s), by=name)
            talk(f"approved by {name} for {for_}")

    run(work())


@group.command("run")
def run_(
    playbook: PlaybookArgument,
    given: GivenArgument = None,
    config: ConfigOption = None,
    reason: ReasonOption = "",
    dry_run: DryOption = False,
    yes: YesOption = False,
) -> None:
    """Run a playbook, or carry on the unfinished run of it."""
    operate(_load(playbook), _given(given), config, reason, dry_run, yes, then="chainctl status")


@group.command()
def resume(run_id: RunOption = None, config: ConfigOption = None, yes: YesOption = False) -> None:
    """Carry on the run that was left unfinished, whoever began it."""
    settings, at = load(config), there(config)
    wanted = _run_id(run_id)

    async def work() -> None:
        from failover.cli.ended_early import told_what_next
        from failover.fleet import open_fleet
        from failover.runner import resume

        async with open_fleet(settings) as fleet:
            await _show_run(fleet)
            confirm("carry it on?", yes=yes)
            async with told_what_next(fleet, say, at=at) as watch:
                done = await resume(fleet, wanted, by=who(), watch=watch)
            talk(f"run {done.run} is done; next: chainctl status{at}")

    run(work(), interrupted="")


@group.command()
def abort(
    run_id: RunOption = None, config: ConfigOption = None, reason: ReasonOption = "", yes: YesOption = False
) -> None:
    """Undo and end the run that was left unfinished and is not to be carried on."""
    settings, at = load(config), there(config)
    wanted = _run_id(run_id)

    async def work() -> None:
        from failover.cli.ended_early import told_what_next
        from failover.fleet import open_fleet
        from failover.runner import abort

        async with open_fleet(settings) as fleet:
            await _show_run(fleet)
            confirm("undo and end it?", yes=yes)
            async with told_what_next(fleet, say, at=at) as watch:
                ended = await abort(fleet, wanted, by=who(), why=reason, watch=watch)
            talk(f"{ended.playbook} was undone and ended; next: chainctl status{at}")

    run(work(), interrupted="")


async def _show_run(fleet: Fleet) -> None:
    """Says which run is unfinished. Raises Refused if none is."""
    from chain.errors import Refused
    from failover.words import parameters as words

    found = (await fleet.registry.topology()).run
    if found is None:
        raise Refused("no run is unfinished", hint="see what was done: chainctl history")
    talk(f"run {found.id}: {found.playbook}, begun by {found.by}{words(found.parameters)}")
    for step in found.steps:
        talk(f"  · {step.name} {'…' if step.result is None else 'done'}")


def _load(name: str) -> Playbook:
    from failover.playbook import load_playbook, parse_playbook

    if not name.endswith((".yaml", ".yml")):
        return load_playbook(name)
    return parse_playbook(*_text(name))


def _text(name: str) -> tuple[str, str]:
    """The text of a playbook, and what to call it. Raises BadFile."""
    from chain.errors import BadFile
    from failover.document import MAX_BYTES
    from failover.playbook import shipped_text

    if not name.endswith((".yaml", ".yml")):
        return shipped_text(name), f"{name}.yaml"
    try:
        with Path(name).open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        return content.decode(), name
    except (OSError, UnicodeDecodeError) as error:
        raise BadFile(f"{name} can't be read: {error}") from error


def _given(given: list[str] | None) -> dict[str, Any]:
    from chain.errors import BadInput

    found: dict[str, Any] = {}
    for each in given or []:
        name, equals, value = each.partition("=")
        if not equals or not name or name in found:
            raise BadInput(f"{each!r} is not name=value, or is there twice")
        found[name] = value
    return found


def _run_id(text: str | None) -> UUID | None:
    from chain.errors import BadInput

    try:
        return None if text is None else UUID(text)
    except ValueError:
        raise BadInput(f"{text!r} is no run", hint="see chainctl history -o json") from None
