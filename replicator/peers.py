"""How a daemon reaches the other nodes: a port, so that a test or a simulation can stand between them."""

from __future__ import annotations

from collections.abc import Callable

from chain.store import Store

Peers = Callable[[str], Store]
"""Opens the store of another node by its name. Who opens it closes it."""
