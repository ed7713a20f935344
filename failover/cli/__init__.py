"""`chainctl`: the operator's front."""

from failover.cli.app import main

__all__ = ["main"]
