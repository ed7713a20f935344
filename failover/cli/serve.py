"""`serve`: the long-running daemons."""

from __future__ import annotations

import asyncio
import logging
import signal
from typing import Annotated

import typer

from failover.cli.common import ConfigOption, load, run


def register(app: typer.Typer) -> None:
    group = typer.Typer(name="serve", help="Run a daemon in the foreground.", no_args_is_help=True)
    group.callback()(_only)
    group.command()(node)
    app.add_typer(group)


def _only() -> None:
    """Run a daemon in the foreground."""


def node(
    name: Annotated[str, typer.Argument(help="The node of chain.yaml that this daemon serves.")],
    config: ConfigOption = None,
) -> None:
    """Run the daemon of a node: its role, its link, its health and metrics."""
    from chain.connect import open_registry, open_store
    from replicator.daemon import NodeDaemon
    from replicator.link import Pace
    from replicator.server import serve

    settings = load(config)
    own = settings.node(name)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)-7s %(message)s")

    async def work() -> None:
        task = asyncio.current_task()
        assert task is not None
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        store = open_store(settings, name)
        registry = open_registry(settings)
        daemon = NodeDaemon(
            chain=settings.chain,
            name=name,
            store=store,
            peers=lambda peer: open_store(settings, peer),
            registry=registry,
            regions={n.name: n.region for n in settings.nodes},
            pace=Pace(
                batch_events=settings.links.batch_events,
                batch_bytes=settings.links.batch_bytes,
                idle_s=settings.links.idle,
            ),
        )
        try:
            async with serve(daemon, own.http.host, own.http.port):
                await daemon.run()
        except asyncio.CancelledError:
            logging.getLogger(__name__).info("%s ends", name)
        finally:
            await registry.close()
            await store.close()

    run(work())
