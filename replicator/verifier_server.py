"""What a verifier says over HTTP.

/livez       200 if its loop turns; touches nothing
/readyz      200 if it has an answer, OK or DIFF, for every pair
/metrics     Prometheus
/v1/status   what is known of each pair, each node, and how late each is
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any, Final

from aiohttp import web
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from replicator.findings import as_json
from replicator.latency import BUCKETS_S, Lateness, Window
from replicator.listening import listening, words
from replicator.pairwatch import PairWord
from replicator.verifier import Verifier
from replicator.verify import Verdict

FRESH_S: Final = 10.0


def serve(verifier: Verifier, host: str, port: int) -> AbstractAsyncContextManager[None]:
    """Serves a verifier's word while the block runs. Raises Unavailable if the address can't be had."""
    hint = "another process has the port; change verify.http in chain.yaml, or give --http"
    return listening(_app(verifier), "the verifier", host, port, hint)


def _app(verifier: Verifier) -> web.Application:
    def is_live(seen: Verifier, _: web.Request) -> bool:
        at = seen.turned_at
        return at is not None and asyncio.get_running_loop().time() - at < FRESH_S

    def is_ready(seen: Verifier, _: web.Request) -> bool:
        known = all(word.verdict is not Verdict.UNKNOWN for word in seen.words())
        return seen.topology is not None and known

    checks = {"/livez": is_live, "/readyz": is_ready}
    return words(lambda: verifier, report, checks, _Metrics(verifier))


def report(verifier: Verifier) -> dict[str, Any]:
    """A verifier's word as JSON. Ages are in seconds, as of now."""
    now = asyncio.get_running_loop().time()
    topology, at = verifier.topology, verifier.topology_at
    return {
        "chain": verifier.chain,
        "last_error": verifier.last_error,
        "topology": topology
        and {
            "epoch": topology.epoch,
            "order": list(topology.order),
            "age_s": None if at is None else now - at,
        },
        "pairs": [pair_as_json(word) for word in verifier.words()],
        "nodes": [
            {
                "node": scan.name,
                "noted": scan.position,
                "segments_read": scan.segments,
                "rounds": scan.rounds,
                "trouble": scan.reason,
            }
            for scan in verifier.scans().values()
        ],
        "objective_s": verifier.terms.objective_s,
        "window_s": verifier.terms.window_s,
        "latency": [_lateness(late, verifier.terms.objective_s) for late in verifier.lateness()],
    }


def pair_as_json(word: PairWord) -> dict[str, Any]:
    return {
        "source": word.source,
        "target": word.target,
        "result": word.verdict.value,
        "verified": word.verified,
        "source_tip": word.source_tip,
        "target_tip": word.target_tip,
        "age_s": word.age_s,
        "oldest_check_s": word.oldest_check_s,
        "found": [as_json(finding) for finding in word.findings],
        "what": "; ".join(map(str, word.findings)),
        "why": word.reason,
    }


def _lateness(late: Lateness, objective_s: float) -> dict[str, Any]:
    summary, clock = late.summary, late.clock
    return {
        "node": late.node,
        "late": None if late.age_s is None else late.late(objective_s),
        "samples": summary.count if summary else 0,
        "p50_s": summary and summary.p50_s,
        "p95_s": summary and summary.p95_s,
        "p99_s": summary and summary.p99_s,
        "max_s": summary and summary.max_s,
        "missing": late.missing,
        "missing_s": late.missing_s,
        "clock_ahead_s": clock and clock.ahead_s,
        "clock_uncertain_s": clock and clock.uncertain_s,
        "age_s": late.age_s,
    }


class _Metrics(Collector):
    """Made from what the verifier knows at each scrape."""

    def __init__(self, verifier: Verifier) -> None:
        self._verifier = verifier

    def collect(self) -> Iterator[Metric]:
        yield from self._pairs()
        yield from self._nodes()

    def _pairs(self) -> Iterator[Metric]:
        names = ["chain", "source", "target"]
        result = GaugeMetricFamily("chain_verify_result", "1 for what was found", labels=[*names, "result"])
        position = GaugeMetricFamily("chain_verify_position", "Equal up to here", labels=names)
        age = GaugeMetricFamily(
            "chain_verify_age_seconds", "Since all that both had was compared", labels=names
        )
        oldest = GaugeMetricFamily(
            "chain_verify_oldest_check_seconds",
            "Since the part was read that was read longest ago",
            labels=names,
        )
        found = GaugeMetricFamily("chain_verify_differences", "Differences that stand", labels=names)
        for word in self._verifier.words():
            values = [self._verifier.chain, word.source, word.target]
            for verdict in Verdict:
                result.add_metric([*values, verdict.value], float(word.verdict is verdict))
            position.add_metric(values, word.verified)
            found.add_metric(values, len(word.findings))
            if word.age_s is not None:
                age.add_metric(values, word.age_s)
            if word.oldest_check_s is not None:
                oldest.add_metric(values, word.oldest_check_s)
        yield from (result, position, age, oldest, found)

    def _nodes(self) -> Iterator[Metric]:
        chain, names = self._verifier.chain, ["chain", "node"]
        segments = CounterMetricFamily("chain_verify_segments", "Segments read again", labels=names)
        for scan in self._verifier.scans().values():
            segments.add_metric([chain, scan.name], scan.segments)
        yield segments
        late = GaugeMetricFamily("chain_visible_late", "1 if later than the objective", labels=names)
        missing = GaugeMetricFamily(
            "chain_visible_oldest_missing_seconds", "Age of the oldest event not there yet", labels=names
        )
        ahead = GaugeMetricFamily(
            "chain_clock_ahead_seconds", "How far the clock is ahead of the head's", labels=names
        )
        uncertain = GaugeMetricFamily(
            "chain_clock_uncertain_seconds", "By how much that may be wrong, either way", labels=names
        )
        latency = HistogramMetricFamily(
            "chain_visible_latency_seconds", "From the commit on the head until visible here", labels=names
        )
        for name, meter in self._verifier.meters().items():
            values, word = [chain, name], meter.lateness()
            latency.add_metric(values, _buckets(meter.window), meter.window.sum_s)
            if word.age_s is not None:
                late.add_metric(values, float(word.late(self._verifier.terms.objective_s)))
                missing.add_metric(values, word.missing_s)
            if word.clock is not None:
                ahead.add_metric(values, word.clock.ahead_s)
                uncertain.add_metric(values, word.clock.uncertain_s)
        yield from (late, missing, ahead, uncertain, latency)


def _buckets(window: Window) -> list[tuple[str, float]]:
    total, buckets = 0, []
    for bound, count in zip((*map(str, BUCKETS_S), "+Inf"), window.counts, strict=True):
        total += count
        buckets.append((bound, float(total)))
    return buckets
