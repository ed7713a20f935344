"""What the score of a drill promises."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from failover.drills.record import DrillRecord, Outcome, Recovery, Rollback
from failover.drills.score import scored
from tests.drills import records


def points(record: DrillRecord) -> int:
    score = scored(record)
    assert score is not None
    return score.points


def part(record: DrillRecord, name: str) -> float | None:
    score = scored(record)
    assert score is not None
    return next((p.points for p in score.parts if p.name == name), None)


def test_a_drill_in_which_all_held_has_100() -> None:
    assert points(records.held()) == 100


def test_a_drill_that_was_not_run_has_no_score() -> None:
    assert scored(records.not_run()) is None


@pytest.mark.parametrize("outcome", [Outcome.DEVIATED, Outcome.FAILED, Outcome.INTERRUPTED])
def test_no_other_drill_has_100(outcome: Outcome) -> None:
    assert points(replace(records.held(), outcome=outcome)) == 99


WORSE: dict[str, Callable[[DrillRecord], DrillRecord]] = {
    "nothing lost, nothing wrong": lambda r: replace(r, checker=None),
    "content verified": lambda r: replace(r, verifier=None),
    "hypothesis afterwards": lambda r: replace(r, hypothesis=r.hypothesis[:4]),
    "hypothesis during": lambda r: replace(r, hypothesis=tuple(replace(p, ok=False) for p in r.hypothesis)),
    "recovery time": lambda r: replace(r, recovery=None),
    "left in order": lambda r: replace(r, rollbacks=(Rollback("undo", False, 1.0, "no"),)),
}


@pytest.mark.parametrize("name", WORSE)
def test_what_was_asked_for_and_is_not_known_or_not_so_gives_nothing(name: str) -> None:
    worse = WORSE[name](records.held())
    assert part(worse, name) == 0.0
    assert points(worse) < 100


def test_what_was_not_asked_for_is_left_out() -> None:
    record = replace(records.held(), recovery=Recovery(None, 400.0))
    assert part(record, "recovery time") is None
    assert points(record) == 100


@pytest.mark.parametrize(
    ("actual_s", "share"), [(5.0, 1.0), (7.5, 0.5), (10.0, 0.0), (99.0, 0.0), (None, 0.0)]
)
def test_a_recovery_counts_in_full_within_its_target_and_nothing_at_twice_it(
    actual_s: float | None, share: float
) -> None:
    record = replace(records.held(), recovery=Recovery(5.0, actual_s))
    assert part(record, "recovery time") == pytest.approx(15.0 * share)


def test_what_can_t_be_found_out_in_the_middle_of_a_fault_is_not_held_against_the_chain() -> None:
    unknown = [probe for probe in records.held().hypothesis if probe.ok is None]
    assert unknown
    assert part(records.held(), "hypothesis during") == 10.0
