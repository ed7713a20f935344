"""`drill`: the failover, rehearsed with faults on a chain of its own, and scored."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from failover.cli.common import (
    LOCAL,
    DryOption,
    Output,
    OutputOption,
    YesOption,
    confirm,
    data,
    load,
    print_json,
    print_rows,
    run,
    talk,
    there,
)

if TYPE_CHECKING:
    from failover.drills.drill import Drill
    from failover.drills.record import DrillRecord
    from failover.drills.suite import Ran

group = typer.Typer(
    name="drill", help="Rehearse the loss of things, on a chain made for it.", no_args_is_help=True
)

DRILLS = LOCAL / "drills"
OutOption = Annotated[Path, typer.Option("--out", help="Folder of the records, one below it for each run.")]
_DIFFERENT, _INTERRUPTED = 7, 130


@group.command("list")
def list_(output: OutputOption = Output.TABLE) -> None:
    """Show what can be rehearsed."""
    from failover.drills.drill import drill_names, load_drill
    from failover.drills.faults import kind_of

    rows: list[dict[str, Any]] = []
    for name in drill_names():
        drill, _ = load_drill(name)
        faults = dict.fromkeys(kind_of(fault) for fault in drill.faults)
        rows.append(
            {"drill": name, "title": drill.title, "quick": drill.quick, "faults": ", ".join(faults) or "-"}
        )
    print_rows(output, ["drill", "title", "quick", "faults"], rows, empty="")


@group.command()
def faults(output: OutputOption = Output.TABLE) -> None:
    """Show the faults that drills are made of, and what each needs that may be missing here."""
    from failover.drills.faults import FAULTS, kind_of

    rows = [
        {
            "fault": kind_of(kind),
            "does": _first_words(kind.__doc__),
            "told": " ".join(name for name in kind.model_fields if name not in ("fault", "name", "for_s")),
            "needs": "; ".join(sorted(need.value for need in kind.needs)) or "-",
        }
        for kind in FAULTS.values()
    ]
    print_rows(output, ["fault", "does", "told", "needs"], rows, empty="")


@group.command()
def probes(output: OutputOption = Output.TABLE) -> None:
    """Show the probes that hypotheses are made of."""
    from failover.drills.probes import PROBES

    rows = [
        {
            "probe": name,
            "holds if": _first_words(kind.__doc__),
            "told": " ".join(field for field in kind.model_fields if field != "probe") or "-",
            "when": "at the end" if kind.final else "any time",
        }
        for name, kind in PROBES.items()
    ]
    print_rows(output, ["probe", "holds if", "told", "when"], rows, empty="")


@group.command()
def schema() -> None:
    """Print the JSON Schema of a drill, as committed in playbooks/drill.schema.json."""
    from failover.drills.drill import Drill

    print_json(Drill.model_json_schema())


@group.command()
def lint(
    drills: Annotated[
        list[str] | None, typer.Argument(help="Names or files; else all that is shipped.")
    ] = None,
) -> None:
    """Check drills, and say everything that is wrong, with file and line. Exit 1 if anything is."""
    from failover.drills.drill import drill_names, drill_text, lint

    flaws = [flaw for name in drills or drill_names() for flaw in lint(*drill_text(name))]
    for flaw in flaws:
        data(str(flaw))
    if flaws:
        sys.exit(1)
    talk("nothing is wrong")


@group.command("run")
def run_(
    drills: Annotated[
        list[str], typer.Argument(metavar="DRILL...", help="Names, .yaml files, or `all` of those shipped.")
    ],
    quick: Annotated[bool, typer.Option("--quick", help="Of these, only the quick ones.")] = False,
    parallel: Annotated[int, typer.Option("--parallel", min=1, max=8, help="How many at a time.")] = 1,
    seed: Annotated[int, typer.Option("--seed", help="Of chance, in faults and workload.")] = 1,
    on: Annotated[
        Path | None,
        typer.Option("--on", help="A chain.yaml that allows drills, instead of a chain made for each."),
    ] = None,
    out: OutOption = DRILLS,
    yes: YesOption = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Run drills, each on a local chain of its own, and keep their records. Exit 0 only if all held."""
    from failover.drills.faults import kind_of
    from failover.drills.suite import Order, run_drills

    visited = None if on is None else _visited(on)
    chosen = _possible(_chosen(drills, quick), named=drills != ["all"], local=on is None)
    orders = [Order(drill.name, text, seed, on) for drill, text in chosen]
    if visited is not None:
        parallel = 1
        talk(f"on chain {visited}:")
        for drill, _ in chosen:
            kinds = ", ".join(dict.fromkeys(map(kind_of, drill.faults))) or "moves only"
            talk(f"  · {drill.name}: {kinds}")
        talk("what rows it alters are events of its own, and are put back;")
        talk(f"if all of it is killed, that is left to: chainctl drill clean --on {on}")
        confirm("do it?", yes=yes)
    ran = run(run_drills(orders, out.resolve(), parallel=parallel, watch=_Watch(len(orders))))
    _show(ran.records, output)
    talk(f"\nrecords are in {out}; next: chainctl drill report" + ("" if out == DRILLS else f" --out {out}"))
    sys.exit(_exit_code(ran))


@group.command()
def clean(
    on: Annotated[
        Path | None, typer.Option("--on", help="A chain.yaml that drills were run on; else what is in --out.")
    ] = None,
    out: OutOption = DRILLS,
    dry_run: DryOption = False,
    yes: YesOption = False,
) -> None:
    """Take back what drills that were killed have left behind."""
    if on is None:
        _clean_folder(out.resolve(), dry_run, yes)
    else:
        _clean_chain(on, dry_run, yes)


@group.command()
def report(
    records: Annotated[
        list[Path] | None, typer.Argument(metavar="[RECORD]...", help="record.json files; else all in --out.")
    ] = None,
    out: OutOption = DRILLS,
    trend: Annotated[
        bool, typer.Option("--trend", help="Compare the runs of each drill, in one page.")
    ] = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Write a report beside each record, as one HTML file; with --trend, one that compares all runs."""
    from chain.errors import BadInput
    from failover.drills.record import read_record
    from failover.drills.report import render_html, render_trend

    found = {path: read_record(path) for path in records or sorted(out.glob("*/record.json"))}
    if not found:
        raise BadInput(f"there are no records in {out}", hint="run a drill first: chainctl drill run all")
    if trend:
        page = out / "trend.html"
        page.write_text(render_trend(found.values()))
        data(str(page))
        return
    for path, record in found.items():
        path.with_name("report.html").write_text(render_html(record))
    rows = [
        {
            "drill": record.name,
            "started": record.started_at.isoformat(timespec="seconds"),
            "outcome": record.outcome.value,
            "score": record.score and record.score.points,
            "report": str(path.with_name("report.html")),
        }
        for path, record in found.items()
    ]
    print_rows(output, ["drill", "started", "outcome", "score", "report"], rows, empty="")


def _chosen(names: list[str], quick: bool) -> list[tuple[Drill, str]]:
    from failover.drills.drill import drill_names, load_drill

    loaded = [load_drill(name) for name in (drill_names() if names == ["all"] else names)]
    return [(drill, text) for drill, text in loaded if drill.quick or not quick]


def _visited(path: Path) -> str:
    """The name of a chain that is there already. Raises NotApproved if it does not allow drills; Refused if
    one that was killed has left something there.
    """
    from failover.drills.leftovers import check_clean
    from failover.drills.stage import check_allowed, left_on

    config = load(path)
    check_allowed(config)
    check_clean(run(left_on(config)), str(path))
    return str(config.chain)


def _clean_folder(out: Path, dry_run: bool, yes: bool) -> None:
    from failover.drills.suite import clear, left_in

    folders = left_in(out)
    for folder in folders:
        talk(f"  · a chain in {folder}")
    if not folders:
        talk(f"nothing was left in {out}")
    elif not dry_run:
        confirm("end and remove it?", yes=yes)
        run(clear(out))
        talk("all of it is gone; next: chainctl drill run")


def _clean_chain(on: Path, dry_run: bool, yes: bool) -> None:
    from failover.drills.stage import clean_chain, left_on

    config = load(on)
    left = run(left_on(config))
    for line in left.lines:
        talk(f"  · {line}")
    for node in left.unknown:
        talk(f"! {node} does not answer: what is left there is not known; give this again when it does")
    if not left:
        talk(f"nothing was found on chain {config.chain} that is to be taken back")
    elif not dry_run:
        confirm("take it back?", yes=yes)
        run(clean_chain(config), interrupted="interrupted; give it again: what was taken back stays so")
        talk(f"all of it is taken back; next: chainctl verify{there(on)}")
    if left.unfinished:
        talk(f"a drill's {left.unfinished} is unfinished: chainctl playbook resume{there(on)}, or abort")


def _possible(drills: list[tuple[Drill, str]], *, named: bool, local: bool) -> list[tuple[Drill, str]]:
    """Those that can be run here; of all, the others are only told. Raises Refused for one that was named."""
    from chain.errors import Refused
    from failover.drills.stage import check_possible

    possible = []
    for drill, text in drills:
        try:
            check_possible(drill.faults, local=local, network=local)
        except Refused as error:
            if named:
                raise
            talk(f"not run: {drill.name}: {error.message}")
        else:
            possible.append((drill, text))
    return possible


def _show(records: tuple[DrillRecord, ...], output: Output) -> None:
    rows = [
        {
            "drill": record.name,
            "outcome": record.outcome.value,
            "score": record.score and record.score.points,
            "pause_s": _rounded(record.recovery.actual_s if record.recovery else None, 2),
            "well_after_s": _rounded(record.recovery.healthy_actual_s if record.recovery else None, 1),
            "lost": record.loss and record.loss.total_lost,
            "in_ledger": record.loss and record.loss.in_ledger,
            "took_s": _rounded(record.duration_s, 0),
            "why": "; ".join(_reasons(record)),
        }
        for record in records
    ]
    columns = ["drill", "outcome", "score", "pause_s", "well_after_s", "lost", "in_ledger", "took_s", "why"]
    print_rows(output, columns, rows, empty="nothing was run")


def _reasons(record: DrillRecord) -> list[str]:
    """Why it did not hold."""
    from failover.drills.record import Outcome

    if record.outcome is Outcome.HELD:
        return []
    probes = [f"{p.probe} ({p.phase.value}): {p.value}" for p in record.hypothesis if p.ok is False]
    failed = [f"{r.action}: {r.error}" for r in record.rollbacks if not r.ok]
    found = [f.text for f in record.checker.findings[:2]] if record.checker else []
    return [*record.errors, *probes, *failed, *found]


def _exit_code(ran: Ran) -> int:
    from failover.drills.record import Outcome

    if ran.interrupted:
        return _INTERRUPTED
    outcomes = {record.outcome for record in ran.records}
    if outcomes <= {Outcome.HELD}:
        return 0
    return _DIFFERENT if outcomes <= {Outcome.HELD, Outcome.DEVIATED} else 1


class _Watch:
    """Says on stderr how far it is."""

    def __init__(self, count: int) -> None:
        self._count, self._done = count, 0

    def __call__(self, name: str, record: DrillRecord | None) -> None:
        if record is None:
            talk(f"  · {name}")
            return
        self._done += 1
        score = "" if record.score is None else f", {record.score.points} of 100"
        talk(
            f"  {self._done}/{self._count} {name}: {record.outcome.value}{score} ({record.duration_s:.0f} s)"
        )
        for reason in _reasons(record):
            talk(f"      {reason}")


def _first_words(doc: str | None) -> str:
    return " ".join((doc or "").strip().split("\n\n")[0].split())


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)
