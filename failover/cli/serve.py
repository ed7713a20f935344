"""`serve`: the long-running daemons."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Annotated, Any

import typer

from chain.errors import BadInput
from failover.cli.common import ConfigOption, load, run

if TYPE_CHECKING:
    from chain.config import Address


def register(app: typer.Typer) -> None:
    group = typer.Typer(name="serve", help="Run a daemon in the foreground.", no_args_is_help=True)
    group.callback()(_only)
    group.command()(node)
    group.command()(controller)
    group.command()(verifier)
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
    from replicator.read_ahead import Pace
    from replicator.server import serve

    settings = load(config)
    own = settings.node(name)
    _log()

    async def work() -> None:
        store = open_store(settings, name)
        registry = open_registry(settings)
        daemon = NodeDaemon(
            chain=settings.chain,
            name=name,
            store=store,
            peers=lambda peer: open_store(settings, peer),
            registry=registry,
            regions={n.name: n.region for n in settings.nodes},
            terms=settings.lease.terms,
            pace=Pace(
                batch_events=settings.links.batch_events,
                batch_bytes=settings.links.batch_bytes,
                idle_s=settings.links.idle,
            ),
            canary_s=settings.verify.canary,
        )
        try:
            async with serve(daemon, own.http.host, own.http.port):
                await daemon.run()
        finally:
            await registry.close()
            await store.close()

    run(_until_told(work(), name))


def controller(
    config: ConfigOption = None,
    name: Annotated[
        str, typer.Option("--name", help="What it is called in the history; else host and process.")
    ] = "",
    http: Annotated[str, typer.Option("--http", help="host:port for its health, metrics and status.")] = "",
) -> None:
    """Run a controller: it watches the chain, and acts as `automation` in chain.yaml lets it."""
    from failover.controller import Controller
    from failover.fleet import open_fleet
    from failover.server import serve

    settings = load(config)
    _log()
    called = name or f"{socket.gethostname()}/{os.getpid()}"
    address = _address(http)

    async def work() -> None:
        async with AsyncExitStack() as stack:
            fleet = await stack.enter_async_context(open_fleet(settings, timeout_s=2.0))
            own = Controller(fleet, settings.automation, called)
            if address is not None:
                await stack.enter_async_context(serve(own, address.host, address.port))
            await own.run()

    run(_until_told(work(), f"controller {called}"))


def verifier(
    config: ConfigOption = None,
    http: Annotated[
        str, typer.Option("--http", help="host:port for its health, metrics and status; else verify.http.")
    ] = "",
) -> None:
    """Run the verifier: it shows that every copy is complete, equal and in time."""
    from chain.connect import open_registry_for_verifier, open_store_for_verifier
    from replicator.verifier import Verifier, VerifyTerms
    from replicator.verifier_server import serve

    settings = load(config)
    _log()
    address = _address(http) or settings.verify.http
    terms = VerifyTerms(
        every_s=settings.verify.every,
        again_s=settings.verify.again,
        share=settings.verify.share,
        stale_s=settings.verify.stale,
        objective_s=settings.verify.latency_objective,
        window_s=settings.verify.window,
    )

    async def work() -> None:
        registry = open_registry_for_verifier(settings)
        try:
            async with AsyncExitStack() as stack:
                own = Verifier(
                    settings.chain, registry, lambda node: open_store_for_verifier(settings, node), terms
                )
                if address is not None:
                    await stack.enter_async_context(serve(own, address.host, address.port))
                await own.run()
        finally:
            await registry.close()

    run(_until_told(work(), "the verifier"))


def _address(http: str) -> Address | None:
    from chain.config.values import parse_address

    try:
        return parse_address(http) if http else None
    except ValueError as error:
        raise BadInput(f"--http: {error}") from error


def _log() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)-7s %(message)s")


async def _until_told(work: Coroutine[Any, Any, None], what: str) -> None:
    """Works until SIGTERM or SIGINT."""
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        await work
    except asyncio.CancelledError:
        logging.getLogger(__name__).info("%s ends", what)
