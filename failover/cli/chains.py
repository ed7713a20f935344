"""`up`, `down`, `demo`: the local chain."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from failover.cli.common import (
    LOCAL,
    DryOption,
    Output,
    OutputOption,
    StateOption,
    YesOption,
    confirm,
    data,
    print_json,
    print_rows,
    run,
    talk,
)

VERIFIED_S: Final = 10.0
"""How long `up` waits for the verifier's first word: a chain with a long log is told of when it was read."""


def register(app: typer.Typer) -> None:
    app.command()(demo)
    app.command()(up)
    app.command()(down)


def up(state: StateOption = LOCAL) -> None:
    """Start the local chain and its verifier, or whatever of it does not run."""
    from failover.cli.views import show_status
    from failover.local.chain import LocalChain
    from failover.verified import wait_verified

    chain = LocalChain(state)

    async def work() -> None:
        config = await chain.up()
        if config.verify.http is not None:
            chain.start_verifier()
            await wait_verified(config, wait_s=VERIFIED_S)
        await show_status(config, Output.TABLE)

    run(work(), interrupted="interrupted; give it again: what was begun is carried on")
    end = "chainctl down" if state == LOCAL else f"chainctl down --state {state}"
    talk(f"\nnext: chainctl status -c {chain.config_path}   end: {end}")


def down(
    state: StateOption = LOCAL,
    wipe: Annotated[bool, typer.Option("--wipe", help="Remove its data, too.")] = False,
    yes: YesOption = False,
    dry_run: DryOption = False,
) -> None:
    """End every process of the local chain. Its data stays, unless --wipe."""
    from failover.local.chain import LocalChain

    chain = LocalChain(state)
    processes = chain.running()
    talk(f"{len(processes)} processes live in {state}" + (", whose data will be removed" if wipe else ""))
    if dry_run:
        return
    if wipe:
        confirm(f"remove {state} and all its events?", yes=yes)
        run(chain.wipe())
    else:
        run(chain.down())
    talk("all of them have ended")


def demo(
    output: OutputOption = Output.TABLE,
    state: Annotated[Path, typer.Option("--state", help="Folder of the demo's chain; made afresh.")] = Path(
        ".geochain-demo"
    ),
    automatic: Annotated[
        bool, typer.Option("--automatic", help="Give no command: the chain saves itself and comes home.")
    ] = False,
    events: Annotated[
        Path | None, typer.Option("--events", help="Your own events: a JSON-lines or CSV file.")
    ] = None,
    stream: Annotated[str, typer.Option(help="For CSV: the stream's name, from its columns.")] = (
        "customer-{customer_id}"
    ),
) -> None:
    """Lose a region in the middle of 69,659 purchases, go on, come home, and prove that all is there."""
    from failover.demo.story import run_demo
    from failover.local.chain import LocalChain
    from failover.purchases import cdnow, read_events

    lines = list(cdnow() if events is None else read_events(events, stream=stream))
    screen = _Screen()
    result = run(run_demo(LocalChain(state), lines, screen.tell, screen.meter, automatic=automatic))
    if output is Output.TABLE:
        _print_story(result)
    else:
        print_json(result)
    if not result["ok"]:
        sys.exit(7)


class _Screen:
    """Sentences on stderr; on a terminal, a line below them that counts."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()

    def tell(self, text: str) -> None:
        talk(("\r\x1b[K" if self._live else "") + text)

    def meter(self, done: int, count: int) -> None:
        if self._live:
            bar = "█" * (30 * done // max(1, count))
            print(f"\r{bar:░<30} {done:,} of {count:,}", end="\x1b[K\r", file=sys.stderr, flush=True)  # noqa: T201


def _print_story(result: dict[str, Any]) -> None:
    data("")
    print_rows(
        Output.TABLE,
        ["what", "at", "detail"],
        [{"what": what, "at": f"{at:8.3f} s", "detail": detail} for what, at, detail in result["timeline"]],
        empty="",
    )
    books = result["books"]
    print_rows(
        Output.TABLE,
        ["books", "events", "customers", "cds", "dollars"],
        [{"books": "the file", **books["file"]}, {"books": "the tail", **books["tail"]}],
        empty="",
    )
    data(f"chain         {' ─▶ '.join(result['chain'])}, epoch {result['epoch']}")
    data(f"acknowledged  {result['acknowledged']:,} of {result['events']:,}")
    data(f"unreplicated  {result['unreplicated']} when the region was lost; {result['ledger']} in the ledger")
    data(f"requeued      {result['requeued']}; the others their writers had sent again")
    data(f"failover      {result['failover_ms']} ms from detection to the first write;")
    data(f"              {result['outage_ms']} ms from the loss of the region")
    data(f"fail-back     {result['failback_pause_ms']} ms without a write")
    data(f"lost          {result['lost']}")
    data(f"duplicated    {result['duplicated']}")
    data(f"verified      {result['verify']}")
    data(f"{'all is there, exactly once' if result['ok'] else 'NOT ALL IS AS IT SHOULD BE'}")
