"""`config show|lint|schema`."""

from __future__ import annotations

import typer

from failover.cli.common import ConfigOption, load, print_json, talk

group = typer.Typer(name="config", help="The configuration, chain.yaml.", no_args_is_help=True)


@group.command()
def show(config: ConfigOption = None) -> None:
    """Show every value, and where it came from. Passwords are masked."""
    from chain.config import show as masked

    settings = load(config)
    print_json({"config": masked(settings), "origins": dict(settings.origins)})


@group.command()
def lint(config: ConfigOption = None) -> None:
    """Check chain.yaml; says what is wrong by line and key."""
    settings = load(config)
    talk(f"chain {settings.chain} with {len(settings.nodes)} nodes: nothing is wrong")


@group.command()
def schema() -> None:
    """Print the JSON schema of chain.yaml."""
    from chain.config import config_schema

    print_json(config_schema())
