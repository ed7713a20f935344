"""The results of a run, and the files that they are written to."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import table
from bench.machine import Machine
from bench.page import page
from bench.series import Comparison


@dataclass(frozen=True, slots=True)
class Results:
    """All that a run found."""

    scale: str
    machine: Machine
    comparisons: tuple[Comparison, ...]
    failures: tuple[str, ...]
    """What failed though it could be had."""
    seconds: float


def write(results: Results, folder: Path) -> None:
    """Writes results.json, results.md and results.html into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    now = datetime.now(UTC)
    (folder / "results.json").write_text(
        json.dumps(as_json(results, now), indent=2, ensure_ascii=False) + "\n"
    )
    (folder / "results.md").write_text(f"{summary(results, now)}\n\n{table.markdown(results.comparisons)}\n")
    (folder / "results.html").write_text(
        page("geochain beside its peers", summary(results, now), results.comparisons, results.failures)
    )


def summary(results: Results, now: datetime) -> str:
    """Where and when, in a few sentences."""
    m = results.machine
    versions = ", ".join(f"{name} {version}" for name, version in m.versions.items())
    settings = ", ".join(f"{name} = {value}" for name, value in m.settings.items())
    return (
        f"{now:%-d %B %Y}, sizes `{results.scale}`, {results.seconds / 60:.0f} min."
        f" {m.cores} cores ({m.cpu}), {m.memory_bytes / 2**30:.0f} GiB, {m.system}, {m.file_system};"
        f" {m.fdatasyncs_per_s:,.0f} fdatasyncs/s of 8 KiB; load {m.load:.1f} when it began. {versions}."
        f" Servers: {settings}; fsync, synchronous_commit and full_page_writes on."
    )


def as_json(results: Results, now: datetime) -> dict[str, Any]:
    return {
        "at": now.isoformat(timespec="seconds"),
        "scale": results.scale,
        "seconds": round(results.seconds, 1),
        "machine": asdict(results.machine),
        "failures": list(results.failures),
        "comparisons": [_comparison(comparison) for comparison in results.comparisons],
    }


def _comparison(comparison: Comparison) -> dict[str, Any]:
    return {
        "name": comparison.name,
        "unit": comparison.unit,
        "better": "larger" if comparison.sense.value == "≥" else "smaller",
        "note": comparison.note,
        "series": [
            {"name": s.name, "missing": s.missing}
            if s.missing
            else {
                "name": s.name,
                "median": s.median,
                "low": s.low,
                "high": s.high,
                "values": list(s.values),
                "ratio_of_ours": comparison.ratio(s),
            }
            for s in comparison.series
        ],
        "goals": [
            {"bound": g.bound, "beside": g.beside, "verdict": comparison.judge(g).value}
            for g in comparison.goals
        ],
    }
