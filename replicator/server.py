"""What a node daemon says over HTTP: health for load balancers, metrics for Prometheus, status for people.

/head /middle /tail           200 if the node is that now, else 503
/replica?lag_events=N         200 if the node follows and lags at most N events
/livez                        200 if the daemon's loop turns; touches no store
/readyz                       200 if the node is as decided and, if it follows, its link streams
/metrics /v1/status
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from datetime import datetime, timedelta
from typing import Any, Final

from aiohttp import web
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from chain.event import EMPTY
from chain.store import Role
from replicator.daemon import DaemonStatus, NodeDaemon
from replicator.link import LinkState
from replicator.listening import listening, words

FRESH: Final = timedelta(seconds=10)
"""How old a word may be that a load balancer still acts on."""


def serve(daemon: NodeDaemon, host: str, port: int) -> AbstractAsyncContextManager[None]:
    """Serves a daemon's word while the block runs. Raises Unavailable if the address can't be had."""
    hint = "another process has the port; change `http` of this node in chain.yaml"
    return listening(_app(daemon), daemon.name, host, port, hint)


def _app(daemon: NodeDaemon) -> web.Application:
    def is_now(role: Role) -> Callable[[DaemonStatus, web.Request], bool]:
        return lambda status, _: role_now(status, daemon.now()) is role

    checks: dict[str, Callable[[DaemonStatus, web.Request], bool]] = {
        "/head": is_now(Role.HEAD),
        "/middle": is_now(Role.MIDDLE),
        "/tail": is_now(Role.TAIL),
        "/replica": lambda status, request: _is_near(status, request, daemon.now()),
        "/livez": lambda status, _: daemon.now() - status.turned_at < FRESH,
        "/readyz": lambda status, _: _is_ready(status, daemon.now()),
    }
    return words(daemon.status, lambda status: report(status, daemon.now()), checks, _Metrics(daemon))


def role_now(status: DaemonStatus, now: datetime) -> Role | None:
    """The role that a node really has: a head that takes writes, a follower whose link streams."""
    if status.state is None or status.state_at is None or now - status.state_at > FRESH:
        return None
    if status.state.role is Role.HEAD:
        # The lease runs on while the store is not looked at.
        left_s = status.state.lease_left_s - (now - status.state_at).total_seconds()
        return Role.HEAD if status.state.reigning and left_s > 0 else None
    if status.link is None or status.link.state is not LinkState.STREAMING:
        return None
    return status.state.role


def _is_ready(status: DaemonStatus, now: datetime) -> bool:
    return not status.last_error and role_now(status, now) not in (None, Role.DETACHED)


def _is_near(status: DaemonStatus, request: web.Request, now: datetime) -> bool:
    text = request.query.get("lag_events", "")
    if text and not text.isdigit():
        raise web.HTTPBadRequest(text="lag_events is a whole number of events\n")
    if role_now(status, now) not in (Role.MIDDLE, Role.TAIL) or status.link is None:
        return False
    return not text or status.link.lag_events <= int(text)


def report(status: DaemonStatus, now: datetime) -> dict[str, Any]:
    """A daemon's word as JSON."""
    state, link, topology = status.state, status.link, status.topology
    return {
        "node": status.node,
        "started_at": status.started_at.isoformat(),
        "last_error": status.last_error,
        "store": state
        and {
            "role": state.role.value,
            "epoch": state.epoch,
            "position": state.tip.position,
            "writable": state.writable,
            "fenced": state.fenced,
            "restarted": state.restarted,
            "clock_is_back": state.clock_is_back,
            "lease": status.keeping.value,
            "seen_at": status.state_at and status.state_at.isoformat(),
        },
        "link": link
        and {
            "source": link.source,
            "state": link.state.value,
            "since": link.since.isoformat(),
            "cut_off_s": (now - link.cut_off_since).total_seconds() if link.cut_off_since else 0.0,
            "position": link.target_tip.position,
            # A link that has not seen its source since it began does not know its lag.
            "lag_events": link.lag_events if link.source_tip > EMPTY else None,
            "events": link.events,
            "given_up": link.given_up,
            "last_error": link.last_error,
        },
        "topology": topology
        and {
            "epoch": topology.epoch,
            "order": list(topology.order),
            "seen_at": status.topology_at and status.topology_at.isoformat(),
        },
    }


class _Metrics(Collector):
    """Made from one status at each scrape, so nothing is counted twice or kept elsewhere."""

    def __init__(self, daemon: NodeDaemon) -> None:
        self._daemon = daemon

    def collect(self) -> Iterator[Metric]:
        status = self._daemon.status()
        labels = {"chain": self._daemon.chain, "node": status.node}
        names, values = list(labels), list(labels.values())

        def gauge(name: str, text: str, value: float) -> Metric:
            metric = GaugeMetricFamily(name, text, labels=names)
            metric.add_metric(values, value)
            return metric

        def states(name: str, text: str, label: str, all_: list[str], current: str | None) -> Metric:
            metric = GaugeMetricFamily(name, text, labels=[*names, label])
            for one in all_:
                metric.add_metric([*values, one], float(one == current))
            return metric

        role = role_now(status, self._daemon.now())
        yield states(
            "chain_node_role",
            "1 for the role that the node really has now",
            "role",
            [r.value for r in Role],
            role.value if role else None,
        )
        if status.state is not None and status.state_at is not None:
            yield gauge("chain_node_epoch", "The newest epoch that the node knows", status.state.epoch)
            yield gauge("chain_node_position", "The node's last position", status.state.tip.position)
            yield gauge(
                "chain_node_seen_timestamp_seconds",
                "When the node's store last answered its daemon",
                status.state_at.timestamp(),
            )
        if status.link is not None:
            yield from self._link(status, names, values, states)

    def _link(
        self,
        status: DaemonStatus,
        names: list[str],
        values: list[str],
        states: Callable[[str, str, str, list[str], str | None], Metric],
    ) -> Iterator[Metric]:
        link = status.link
        assert link is not None
        yield states(
            "chain_link_state",
            "1 for the state that the link is in",
            "state",
            [s.value for s in LinkState],
            link.state.value,
        )
        lag = GaugeMetricFamily("chain_link_lag_events", "Events behind the source", labels=names)
        lag.add_metric(values, link.lag_events)
        yield lag
        events = CounterMetricFamily("chain_link_events", "Events copied by this link", labels=names)
        events.add_metric(values, link.events)
        yield events
