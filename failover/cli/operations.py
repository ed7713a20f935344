"""`failover`, `switchover`, `bootstrap`, `rejoin`, `rotate`, `failback`: changing the chain, by playbooks."""

from __future__ import annotations

from typing import Annotated, Any

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
    who,
)

NodeOption = Annotated[str | None, typer.Option("--to", help="The node to make head; else the best one.")]


def register(app: typer.Typer) -> None:
    for command in (failover, switchover, bootstrap, rejoin, detach, rotate, failback, abort):
        app.command()(command)


def failover(
    config: ConfigOption = None,
    to: NodeOption = None,
    head_is_dead: Annotated[
        bool,
        typer.Option("--head-is-dead", help="Your word that a head that can't be reached takes no writes."),
    ] = False,
    reason: ReasonOption = "",
    dry_run: DryOption = False,
    yes: YesOption = False,
) -> None:
    """Promote the most advanced node when the head is lost. What was not replicated goes to the ledger."""
    parameters = {"node": to, "head_is_dead": head_is_dead}
    _operate("failover", parameters, config, reason, dry_run, yes, then="chainctl rejoin OLD-HEAD")


def switchover(
    config: ConfigOption = None,
    to: NodeOption = None,
    max_lag: Annotated[int, typer.Option("--max-lag", min=0, help="Most events it may be behind.")] = 100_000,
    reason: ReasonOption = "",
    dry_run: DryOption = False,
    yes: YesOption = False,
) -> None:
    """Move the head to another node, without loss."""
    parameters = {"node": to, "max_lag_events": max_lag}
    _operate("switchover", parameters, config, reason, dry_run, yes, then="chainctl status")


def bootstrap(
    node: Annotated[str, typer.Argument(help="A node of chain.yaml that is no member.")],
    config: ConfigOption = None,
    reason: ReasonOption = "",
    dry_run: DryOption = False,
    yes: YesOption = False,
) -> None:
    """Bring up a new tail: copy, verify, join."""
    _operate("bootstrap", {"node": node}, config, reason, dry_run, yes, then="chainctl status")


def rejoin(
    node: Annotated[str, typer.Argument(help="The former head, back again.")],
    config: ConfigOption = None,
    reason: ReasonOption = "",
    dry_run: DryOption = False,
    yes: YesOption = False,
) -> None:
    """Bring a former head back as tail; what it had alone goes to the ledger first."""
    _operate("rejoin", {"node": node}, config, reason, dry_run, yes, then="chainctl ledger list")


def detach(
    node: Annotated[str, typer.Argument(help="A follower that is lost, or to be taken away.")],
    config: ConfigOption = None,
    reason: ReasonOption = "",
    dry_run: DryOption = False,
    yes: YesOption = False,
) -> None:
    """Take a follower out of the chain; who followed it follows the node before it."""
    _operate("detach", {"node": node}, config, reason, dry_run, yes, then=f"chainctl bootstrap {node}")


def abort(config: ConfigOption = None, reason: ReasonOption = "", yes: YesOption = False) -> None:
    """Undo and end a run that was left unfinished and is not to be carried on."""
    settings = load(config)

    async def work() -> None:
        from failover.fleet import open_fleet
        from failover.runner import abort as abort_run

        async with open_fleet(settings) as fleet:
            confirm("undo and end the unfinished run?", yes=yes)
            run_ = await abort_run(fleet, by=who(), why=reason, watch=lambda report: _say(report))
            talk(f"{run_.playbook} was undone and ended")

    run(work())


def rotate(
    config: ConfigOption = None,
    reason: ReasonOption = "",
    dry_run: DryOption = False,
    yes: YesOption = False,
) -> None:
    """Come home: make the last node of the home region the head."""
    settings = load(config)

    async def home() -> str:
        from chain.errors import Refused
        from failover.fleet import open_fleet

        async with open_fleet(settings) as fleet:
            topology = await fleet.registry.topology()
        if topology.run is not None and topology.run.playbook == "rotate":
            return str(topology.run.parameters["node"])
        if topology.regions[topology.head] == topology.home:
            raise Refused(f"the head, {topology.head}, is at home in {topology.home} already")
        for node in reversed(topology.order):
            if topology.regions[node] == topology.home:
                return node
        raise Refused(
            f"no member of the chain is in the home region, {topology.home}",
            hint="bring one back: chainctl rejoin, or chainctl bootstrap",
        )

    _operate("rotate", {"node": run(home())}, config, reason, dry_run, yes, then="chainctl verify")


def failback(
    config: ConfigOption = None,
    reason: ReasonOption = "",
    dry_run: DryOption = False,
    yes: YesOption = False,
) -> None:
    """The same as rotate: the tail in the home region becomes the head."""
    rotate(config, reason, dry_run, yes)


def _operate(
    name: str,
    parameters: dict[str, Any],
    config: Any,
    reason: str,
    dry_run: bool,
    yes: bool,
    *,
    then: str,
) -> None:
    """Shows the chain and the plan, asks, does it, and shows the chain again."""
    settings = load(config)

    async def work() -> None:
        from failover.cli.views import show_status
        from failover.fleet import open_fleet
        from failover.playbook import load_playbook
        from failover.runner import execute, plan
        from failover.words import parameters as words

        playbook = load_playbook(name)
        async with open_fleet(settings, timeout_s=settings.links.timeout if not yes else 3.0) as fleet:
            found = await plan(fleet, playbook, parameters)
            talk(f"{playbook.name}: {playbook.title}")
            for step in playbook.steps:
                mark = "   ← from here on it is carried on, not undone" if step.point_of_no_return else ""
                talk(f"  · {step.step}{words(found.get(step.step, {}))}{mark}")
            if dry_run:
                return
            confirm("do it?", yes=yes)
            done = await execute(
                fleet, playbook, parameters, by=who(), why=reason, watch=lambda report: _say(report)
            )
            if done.resumed:
                talk("an unfinished run was carried on")
        await show_status(settings, Output.TABLE)
        chosen = found.get("choose-candidate", {})
        talk(f"next: {then.replace('OLD-HEAD', str(chosen.get('head', '')))}")

    run(work())


def _say(report: Any) -> None:
    from failover.words import parameters as words

    if report.state == "done":
        talk(f"  ✓ {report.step} ({report.seconds * 1000:,.0f} ms){words(report.result)}")
    elif report.state == "skipped":
        talk(f"  ✓ {report.step} was done before")
    elif report.state == "failed":
        talk(f"  ✗ {report.step}: {report.error}")
