"""What a controller says over HTTP.

/livez       200 if its loop turns; touches nothing
/readyz      200 if it can read the registry
/metrics     Prometheus
/v1/status   what it thinks now, and the latest that it thought before
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any, Final

from aiohttp import web
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from failover.controller import Controller
from failover.rules import RULES
from replicator.listening import listening, words

FRESH_S: Final = 10.0


def serve(controller: Controller, host: str, port: int) -> AbstractAsyncContextManager[None]:
    """Serves a controller's word while the block runs. Raises Unavailable if the address can't be had."""
    hint = "another process has the port; give another one: --http"
    return listening(_app(controller), "the controller", host, port, hint)


def _app(controller: Controller) -> web.Application:
    def is_live(seen: Controller, _: web.Request) -> bool:
        return asyncio.get_running_loop().time() - seen.turned_at < FRESH_S

    def is_ready(seen: Controller, _: web.Request) -> bool:
        return seen.diagnosis is not None and seen.diagnosis.signs.registry

    checks = {"/livez": is_live, "/readyz": is_ready}
    return words(lambda: controller, report, checks, _Metrics(controller))


def report(controller: Controller) -> dict[str, Any]:
    """A controller's word as JSON."""
    judgement = controller.judgement
    return {
        "controller": controller.name,
        "policy": controller.policy.policy,
        "judgement": judgement
        and {
            "number": judgement.number,
            "rule": judgement.rule.name,
            "action": judgement.rule.action.value,
            "sentence": judgement.sentence,
        },
        "last_error": controller.last_error,
        "said": [
            {"at": s.at.isoformat(timespec="milliseconds"), "rule": s.rule, "sentence": s.sentence}
            for s in controller.said
        ],
    }


class _Metrics(Collector):
    """Made from what the controller thinks at each scrape."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller

    def collect(self) -> Iterator[Metric]:
        controller = self._controller
        names = ["chain", "controller"]
        values = [controller.fleet.config.chain, controller.name]
        rule = GaugeMetricFamily(
            "chain_controller_rule", "1 for the rule that holds", labels=[*names, "rule"]
        )
        for each in RULES:
            holds = controller.judgement is not None and controller.judgement.rule is each
            rule.add_metric([*values, each.name], float(holds))
        yield rule
        runs = CounterMetricFamily("chain_controller_runs", "Runs begun or carried on", labels=names)
        runs.add_metric(values, controller.runs)
        yield runs
        left_s = controller.diagnosis.lease_left_s if controller.diagnosis else None
        if left_s is not None:
            lease = GaugeMetricFamily(
                "chain_lease_left_seconds", "Until the lease has certainly run out", labels=names
            )
            lease.add_metric(values, left_s)
            yield lease
