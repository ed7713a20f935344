"""`status`, `watch`, `history`, `verify`: looking."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from failover.cli.common import (
    MOST,
    ConfigOption,
    Output,
    OutputOption,
    data,
    load,
    print_json,
    print_rows,
    run,
    talk,
)

if TYPE_CHECKING:
    from chain.config import Config
    from failover.fleet import Observation, Seen
    from failover.verified import VerifierWord


def register(app: typer.Typer) -> None:
    for command in (status, watch, history, verify):
        app.command()(command)


def status(
    config: ConfigOption = None,
    output: OutputOption = Output.TABLE,
    check: Annotated[bool, typer.Option("--check", help="Exit with 6 if the chain is not healthy.")] = False,
) -> None:
    """Show the chain: who is head, in which epoch, how far everyone is."""
    healthy = run(show_status(load(config), output))
    if check and not healthy:
        sys.exit(6)


def watch(
    config: ConfigOption = None,
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks.")] = 1.0,
    count: Annotated[int, typer.Option(min=0, help="End after so many looks; 0 is never.")] = 0,
) -> None:
    """Show the chain again and again."""
    settings = load(config)

    async def work() -> None:
        looked = 0
        while True:
            if sys.stdout.isatty():
                data("\x1b[2J\x1b[H")
            await show_status(settings, Output.TABLE)
            looked += 1
            if looked == count:
                return
            await asyncio.sleep(every)

    run(work(), interrupted="")


def history(
    config: ConfigOption = None,
    output: OutputOption = Output.TABLE,
    last: Annotated[int, typer.Option(min=1, help="How many of the latest decisions.")] = 50,
) -> None:
    """Show what was decided, when, by whom and why."""
    settings = load(config)

    async def work() -> list[dict[str, Any]]:
        from failover.fleet import open_fleet
        from failover.words import sentence

        async with open_fleet(settings) as fleet:
            recorded = await fleet.registry.history()
        return [
            {
                "nr": r.revision,
                "at": r.at.isoformat(timespec="milliseconds"),
                "decision": sentence(r.decision),
                "by": r.by,
                "why": r.why,
            }
            for r in recorded[-last:]
        ]

    print_rows(output, ["nr", "at", "decision", "by", "why"], run(work()), empty="nothing was decided yet")


def verify(
    config: ConfigOption = None,
    output: OutputOption = Output.TABLE,
    first: Annotated[int, typer.Option("--from", min=1, max=MOST, help="First position.")] = 1,
    last: Annotated[
        int | None,
        typer.Option("--to", min=1, max=MOST, help="Last position; else as far as both have come."),
    ] = None,
    new: Annotated[bool, typer.Option("--new", help="Only what no verification has agreed on yet.")] = False,
) -> None:
    """Compare the content of every neighbouring pair. Exit 0: equal; 7: not; 6: can't tell, or late."""
    settings = load(config)
    if last is not None and last < first:
        from chain.errors import BadInput

        raise BadInput(f"--to {last} lies before --from {first}")
    if new and first != 1:
        from chain.errors import BadInput

        raise BadInput("--new begins behind what is verified; --from says another place")

    async def work() -> list[dict[str, Any]]:
        from chain.event import Position
        from failover.fleet import open_fleet
        from replicator.findings import as_json
        from replicator.verify import verify_chain, verify_new

        until = Position(last) if last is not None else None
        async with open_fleet(settings, timeout_s=60.0) as fleet:
            topology = await fleet.registry.topology()
            stores = {n: fleet.store(n) for n in (*topology.order, *topology.joining)}
            if new:
                pairs = await verify_new(stores, last=until)
            else:
                pairs = await verify_chain(stores, first=Position(first), last=until)
        return [
            {
                "source": p.source,
                "target": p.target,
                "result": p.verdict.value,
                "from": p.first,
                "to": p.last,
                "source_tip": p.source_tip,
                "target_tip": p.target_tip,
                "differing": list(p.differing),
                "found": [as_json(f) for f in p.findings],
                "what": "; ".join(map(str, p.findings)),
                "missing": p.missing and p.missing.position,
                "missing_s": p.missing and p.missing.age_s,
                "late": p.missing is not None and p.missing.age_s > settings.verify.latency_objective,
                "why": p.reason,
            }
            for p in pairs
        ]

    rows = run(work())
    columns = ["source", "target", "result", "from", "to", "what", "why"]
    print_rows(output, columns, rows, empty="the chain has one node; there is nothing to compare")
    for row in rows:
        if row["late"]:
            talk(f"! {row['target']} lacks {row['missing']:,}, for {row['missing_s']:.1f} s: it is late")
    results = {row["result"] for row in rows} | {"late" for row in rows if row["late"]}
    sys.exit(7 if "DIFF" in results else 6 if results & {"UNKNOWN", "late"} else 0)


async def show_status(config: Config, output: Output) -> bool:
    """Prints the chain as it is; says whether it is healthy."""
    from failover.fleet import open_fleet
    from failover.verified import ask_verifier, pairs

    async with open_fleet(config) as fleet:
        seen = await fleet.observe()
        word = await ask_verifier(config)
        report = _report(seen, await pairs(fleet, seen, word), word)
    if output is not Output.TABLE:
        print_json(report)
        return bool(report["healthy"])
    data(f"{report['chain']}: {_line(seen)}   epoch {report['epoch']}, home {report['home']}")
    columns = ["node", "region", "role", "epoch", "position", "lag_events", "lag_s", "link", "trouble"]
    print_rows(output, columns, report["nodes"], empty="")
    if report["verified"]:
        rows = [_pair_row(pair) for pair in report["verified"]]
        print_rows(output, list(rows[0]), rows, empty="")
    if report["paused"]:
        talk(f"automation is paused {report['paused']}")
    if report["run"]:
        talk(f"under way: {report['run']['playbook']}, begun by {report['run']['by']}")
    for trouble in report["troubles"]:
        talk(f"! {trouble}")
    return bool(report["healthy"])


def _line(seen: Observation) -> str:
    def name(node: str) -> str:
        return f"{node} ({seen.nodes[node].region})"

    topology = seen.topology
    line = " ─▶ ".join(map(name, topology.order))
    if topology.joining:
        line += "   joining: " + ", ".join(map(name, topology.joining))
    if topology.detached:
        line += "   outside: " + ", ".join(map(name, topology.detached))
    return line


def _pair_row(pair: dict[str, Any]) -> dict[str, Any]:
    def age(seconds: float | None) -> str:
        return (
            "?" if seconds is None else f"{seconds:,.0f} s" if seconds < 600 else f"{seconds / 60:,.0f} min"
        )

    return {
        "pair": f"{pair['source']} ─▶ {pair['target']}",
        "result": pair["result"],
        "verified": pair["verified"],
        "compared": "?" if pair["age_s"] is None else f"{age(pair['age_s'])} ago",
        "all read within": age(pair["oldest_check_s"]),
        "what": pair["what"] or pair["why"],
    }


def _report(seen: Observation, verified: list[dict[str, Any]], word: VerifierWord) -> dict[str, Any]:
    topology = seen.topology
    rows = [_row(seen, node) for node in seen.nodes.values()]
    troubles = [
        f"{row['node']}: {row['trouble']}"
        for row in rows
        if row["trouble"] and (row["member"] or row["role"] == "joining")
    ]
    troubles += [
        f"{pair['source']} and {pair['target']} differ: {pair['what']}; see: chainctl verify"
        for pair in verified
        if pair["result"] == "DIFF"
    ]
    for line in word.latency:
        if line.late and line.node in topology.order:
            lacks = f"lacks {line.missing:,} for {line.missing_s:.1f} s" if line.missing else ""
            troubles.append(f"{line.node} is late: {lacks or f'p99 is {line.p99_s} s'}")
    return {
        "chain": topology.chain,
        "epoch": topology.epoch,
        "head": topology.head,
        "order": list(topology.order),
        "joining": list(topology.joining),
        "detached": list(topology.detached),
        "home": topology.home,
        "paused": topology.paused,
        "lease": seen.lease
        and {
            "epoch": seen.lease.epoch,
            "holder": seen.lease.holder,
            "renewals": seen.lease.renewals,
            "duration_s": seen.lease.duration_s,
        },
        "healthy": not troubles,
        "troubles": troubles,
        "run": {"id": str(topology.run.id), "playbook": topology.run.playbook, "by": topology.run.by}
        if topology.run
        else None,
        "nodes": rows,
        "verified": verified,
        "latency": [line.model_dump() for line in word.latency],
    }


def _row(seen: Observation, node: Seen) -> dict[str, Any]:
    topology = seen.topology
    member = node.node in topology.order
    state, link = node.state, (node.daemon or {}).get("link")
    decided = topology.role(node.node).value if node.node in topology.regions else "new"
    return {
        "node": node.node,
        "region": node.region,
        "role": decided if node.node not in topology.joining else "joining",
        "member": member,
        "epoch": state.epoch if state else None,
        "position": state.tip.position if state else None,
        "lag_events": node.lag_events,
        "lag_s": None if node.lag_seconds is None else round(node.lag_seconds, 3),
        "link": link["state"] if link else ("-" if node.node == topology.head else None),
        "trouble": _trouble(seen, node),
    }


def _trouble(seen: Observation, node: Seen) -> str:
    topology, state = seen.topology, node.state
    if node.trouble or state is None:
        return node.trouble or "no answer"
    if node.node == topology.head and not state.writable:
        if state.restarted:
            return "restarted: takes no writes until it has a new epoch"
        if state.clock_is_back:
            return "its clock stepped back: takes no writes until it has a new epoch"
        if state.reigning:
            return "takes no writes: its lease has run out; is its daemon up, and the registry?"
        return f"takes no writes: it knows epoch {state.epoch}" if state.fenced else "is not promoted yet"
    if node.node != topology.head and state.writable:
        return f"takes writes as head of epoch {state.reign}, and is not the head"
    if node.daemon is None:
        return "its daemon does not answer"
    if state.loading:
        return "is being loaded: it can't be head yet"
    return str(node.daemon["last_error"])
