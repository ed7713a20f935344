"""The peers that append, by name: each opens itself in a worker process and drives a workload."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

from bench.peers import event_sourcing, geochain, limits, message_db
from bench.workload import Tally, Workload

WaitTold: TypeAlias = Callable[[], Awaitable[None]]
Peer: TypeAlias = Callable[[str, Workload, int, WaitTold], Awaitable[Tally]]

PEERS: Final[dict[str, Peer]] = {
    geochain.NAME: geochain.append,
    geochain.INSIDE: geochain.append_inside,
    event_sourcing.NAME: event_sourcing.append,
    message_db.NAME: message_db.append,
    limits.COMMITS: limits.append_commits,
    limits.COUNTER: limits.append_under_counter,
}
PREPARES: Final[dict[str, Callable[[str], Awaitable[None]]]] = {
    geochain.NAME: geochain.prepare,
    geochain.INSIDE: geochain.prepare_inside,
    event_sourcing.NAME: event_sourcing.prepare,
    message_db.NAME: message_db.prepare,
    limits.COMMITS: limits.prepare,
    limits.COUNTER: limits.prepare,
}
"""Makes an empty database ready for the peer."""
