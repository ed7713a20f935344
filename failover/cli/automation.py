"""`pause`, `resume`, `ack`, `explain`: what controllers may do, and what they think."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

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
    print_rows,
    run,
    talk,
    who,
)

if TYPE_CHECKING:
    from chain.commands import Command


def register(app: typer.Typer) -> None:
    for command in (pause, resume, ack, explain):
        app.command()(command)


def pause(
    config: ConfigOption = None, reason: ReasonOption = "", dry_run: DryOption = False, yes: YesOption = False
) -> None:
    """Let no controller act by itself, until `resume`. What is under way goes on."""
    from chain.commands import pause_automation

    command = pause_automation(who(), reason)
    _decide(command, "pause all automation", "automation is paused", config, reason, dry_run, yes)


def resume(
    config: ConfigOption = None, reason: ReasonOption = "", dry_run: DryOption = False, yes: YesOption = False
) -> None:
    """Let controllers act again."""
    from chain.commands import resume_automation

    _decide(resume_automation(), "let controllers act", "automation goes on", config, reason, dry_run, yes)


def ack(
    config: ConfigOption = None, reason: ReasonOption = "", dry_run: DryOption = False, yes: YesOption = False
) -> None:
    """Acknowledge the last failover: the next may be automatic, however soon."""
    from chain.commands import acknowledge_failover

    what = "acknowledge the last failover"
    _decide(acknowledge_failover(), what, "the last failover is acknowledged", config, reason, dry_run, yes)


def explain(
    config: ConfigOption = None,
    output: OutputOption = Output.TABLE,
    last: Annotated[int, typer.Option(min=1, help="How many of the latest.")] = 10,
    rules: Annotated[bool, typer.Option("--rules", help="Print the table of rules instead.")] = False,
) -> None:
    """Show what the controllers thought, by which rule, and what they had seen."""
    if rules:
        from failover.rules import table

        data(table().rstrip())
        return
    settings = load(config)

    async def work() -> list[dict[str, Any]]:
        from failover.fleet import open_fleet

        async with open_fleet(settings) as fleet:
            notes = await fleet.registry.notes()
        return [{"at": n.at.isoformat(timespec="milliseconds"), **n.what} for n in notes[-last:]]

    rows = run(work())
    if output is Output.TABLE:
        for row in rows:
            row["rule"] = f"{row['number']} {row['rule']}"
            row["seen"] = " ".join(
                f"{k}={_brief(v)}"
                for k, v in row["seen"].items()
                if v is not None and v is not False and v != ""  # but 0, for a lease that ran out
            )
    columns = ["at", "by", "rule", "action", "sentence", "seen"]
    print_rows(output, columns, rows, empty="no controller has said anything yet: chainctl serve controller")


def _brief(value: Any) -> str:
    return f"{value:.1f}" if isinstance(value, float) else str(value)


def _decide(
    command: Command, what: str, done: str, config: Any, reason: str, dry_run: bool, yes: bool
) -> None:
    settings = load(config)

    async def work() -> None:
        from failover.fleet import open_fleet

        async with open_fleet(settings) as fleet:
            before = await fleet.registry.topology()
            talk(f"{what}: {settings.chain}, in epoch {before.epoch}, head {before.head}")
            if dry_run:
                return
            confirm("do it?", yes=yes)
            after = await fleet.registry.decide(command, by=who(), why=reason)
            talk(done if after.version != before.version else f"{done} already; nothing was changed")

    run(work())
