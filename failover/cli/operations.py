"""The operations of a chain: each is a playbook, shown as a plan, asked about, and run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from failover.cli.common import (
    ConfigOption,
    DryOption,
    Output,
    ReasonOption,
    YesOption,
    confirm,
    load,
    run,
    talk,
    there,
    who,
)

if TYPE_CHECKING:
    from failover.plan import Plan
    from failover.playbook import Playbook

NodeOption = Annotated[str | None, typer.Option("--to", help="The node to make head; else the best one.")]


def register(app: typer.Typer) -> None:
    for command in (failover, switchover, bootstrap, rejoin, detach, rotate, failback):
        app.command()(command)


def failover(
    config: ConfigOption = None,
    to: NodeOption = None,
    head_is_dead: Annotated[
        bool,
        typer.Option(
            "--head-is-dead", help="Your word that the head takes no writes: its lease is not awaited."
        ),
    ] = False,
    reason: ReasonOption = "",
    dry_run: DryOption = False,
    yes: YesOption = False,
) -> None:
    """Promote the most advanced node when the head is lost. What was not replicated goes to the ledger."""
    given = {"node": to, "head_is_dead": head_is_dead}
    operate("failover", given, config, reason, dry_run, yes, then="chainctl rejoin OLD-HEAD")


def switchover(
    config: ConfigOption = None,
    to: NodeOption = None,
    max_lag: Annotated[int, typer.Option("--max-lag", min=0, help="Most events it may be behind.")] = 100_000,
    reason: ReasonOption = "",
    dry_run: DryOption = False,
    yes: YesOption = False,
) -> None:
    """Move the head to another node, without loss."""
    given = {"node": to, "max_lag_events": max_lag}
    operate("switchover", given, config, reason, dry_run, yes, then="chainctl status")


def bootstrap(
    node: Annotated[str, typer.Argument(help="A node of chain.yaml that is no member.")],
    config: ConfigOption = None,
    reason: ReasonOption = "",
    dry_run: DryOption = False,
    yes: YesOption = False,
) -> None:
    """Bring up a new tail: copy, verify, join."""
    operate("bootstrap-tail", {"node": node}, config, reason, dry_run, yes, then="chainctl status")


def rejoin(
    node: Annotated[str, typer.Argument(help="The former head, back again.")],
    config: ConfigOption = None,
    reason: ReasonOption = "",
    dry_run: DryOption = False,
    yes: YesOption = False,
) -> None:
    """Bring a former head back as tail; what it had alone goes to the ledger first."""
    operate("rejoin", {"node": node}, config, reason, dry_run, yes, then="chainctl ledger list")


def detach(
    node: Annotated[str, typer.Argument(help="A follower that is lost, or to be taken away.")],
    config: ConfigOption = None,
    reason: ReasonOption = "",
    dry_run: DryOption = False,
    yes: YesOption = False,
) -> None:
    """Take a follower out of the chain; who followed it follows the node before it."""
    operate("detach", {"node": node}, config, reason, dry_run, yes, then=f"chainctl bootstrap {node}")


def rotate(
    config: ConfigOption = None,
    reason: ReasonOption = "",
    dry_run: DryOption = False,
    yes: YesOption = False,
) -> None:
    """Come home: make the last node of the home region the head."""
    operate("rotate", {}, config, reason, dry_run, yes, then="chainctl verify")


def failback(
    config: ConfigOption = None,
    reason: ReasonOption = "",
    dry_run: DryOption = False,
    yes: YesOption = False,
) -> None:
    """The same as rotate: the tail in the home region becomes the head."""
    operate("failback", {}, config, reason, dry_run, yes, then="chainctl verify")


def operate(
    name: str | Playbook,
    given: dict[str, Any],
    config: Path | None,
    reason: str,
    dry_run: bool,
    yes: bool,
    *,
    then: str,
) -> None:
    """Shows the chain and the plan, asks, does it, and shows the chain again."""
    settings, at = load(config), there(config)

    async def work() -> None:
        from failover.cli.ended_early import told_what_next
        from failover.cli.views import show_status
        from failover.fleet import open_fleet
        from failover.plan import plan
        from failover.playbook import load_playbook
        from failover.runner import execute

        playbook = load_playbook(name) if isinstance(name, str) else name
        async with open_fleet(settings) as fleet:
            async with told_what_next(fleet, say, at=at):
                planned = await plan(fleet, playbook, given)
            show_plan(planned)
            if dry_run:
                return
            confirm("do it?", yes=yes)
            async with told_what_next(fleet, say, at=at) as watch:
                done = await execute(fleet, playbook, given, by=who(), why=reason, watch=watch)
            if done.resumed:
                talk("an unfinished run was carried on")
        await show_status(settings, Output.TABLE)
        chosen = planned.found.get("choose-candidate", {})
        talk(f"next: {then.replace('OLD-HEAD', str(chosen.get('head', '')))}{at}")

    run(work(), interrupted="")


def show_plan(planned: Plan) -> None:
    """The plan, for people."""
    from failover.words import parameters as words

    playbook = planned.playbook
    talk(f"{playbook.name}: {playbook.title}")
    for n, step in enumerate(playbook.steps):
        marks = ["needs an approval"] if step.approval else []
        if n == playbook.point_of_no_return:
            marks.append("from here on it is carried on, not undone")
        mark = f"   ← {'; '.join(marks)}" if marks else ""
        talk(f"  · {step.step}{words(planned.found.get(step.step, {}))}{mark}")
    if planned.loss_events is not None:
        where = "" if planned.loss_events == 0 else ", which the ledger will hold when the old head is back"
        talk(f"predicted loss: {planned.loss_events:,} events{where}")
    if planned.pause_s is not None:
        talk(f"predicted pause of writes: {planned.pause_s:.1f} s at most")
    if planned.needs_approval:
        given = " ".join(f"{k}={v}" for k, v in planned.parameters.items() if v is not None)
        talk(f"it needs an approval: chainctl playbook approve {playbook.name} {planned.hash[:12]} {given}")


def say(report: Any) -> None:
    """What a step did, for who watches."""
    from failover.words import parameters as words

    if report.state == "done":
        talk(f"  ✓ {report.step} ({report.seconds * 1000:,.0f} ms){words(report.result)}")
    elif report.state == "skipped":
        talk(f"  ✓ {report.step} was done before")
    elif report.state == "failed":
        talk(f"  ✗ {report.step}: {report.error}")
    elif report.state == "undone":
        talk(f"  ↩ {report.step}")
