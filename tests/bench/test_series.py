"""Who runs when, and what is made of the figures."""

from __future__ import annotations

import pytest

from bench.series import Comparison, Goal, Sense, Series, Verdict, percentile, turns


def test_everyone_has_a_turn_in_each_round_and_every_second_round_goes_backwards() -> None:
    assert list(turns(["a", "b", "c"], 3)) == ["a", "b", "c", "c", "b", "a", "a", "b", "c"]


def test_a_series_tells_its_median_and_how_far_its_runs_lie_apart() -> None:
    series = Series("ours", (3.0, 1.0, 2.0))
    assert (series.median, series.low, series.high) == (2.0, 1.0, 3.0)


@pytest.mark.parametrize(
    ("share", "value"), [(0.0, 1.0), (0.5, 50.0), (0.99, 99.0), (0.991, 100.0), (1.0, 100.0)]
)
def test_a_percentile_is_the_value_that_so_large_a_share_does_not_exceed(share: float, value: float) -> None:
    assert percentile([float(n) for n in range(100, 0, -1)], share) == value


def test_of_few_values_p99_is_the_largest() -> None:
    assert percentile([5.0, 1.0, 3.0], 0.99) == 5.0


def test_there_is_no_percentile_of_nothing() -> None:
    with pytest.raises(ValueError, match="no values"):
        percentile([], 0.5)


def compared(sense: Sense, *goals: Goal, peer: Series = Series("peer", (100.0,))) -> Comparison:
    return Comparison("copy", "events/s", sense, (Series("ours", (150.0, 50.0, 120.0)), peer), goals)


@pytest.mark.parametrize(
    ("sense", "goal", "verdict"),
    [
        (Sense.AT_LEAST, Goal(120), Verdict.MET),
        (Sense.AT_LEAST, Goal(121), Verdict.MISSED),
        (Sense.AT_MOST, Goal(120), Verdict.MET),
        (Sense.AT_MOST, Goal(119), Verdict.MISSED),
        (Sense.AT_LEAST, Goal(1.2, "peer"), Verdict.MET),
        (Sense.AT_LEAST, Goal(1.3, "peer"), Verdict.MISSED),
        (Sense.AT_LEAST, Goal(0.1, "nobody"), Verdict.UNKNOWN),
    ],
)
def test_a_goal_is_judged_by_the_median_or_by_its_ratio(sense: Sense, goal: Goal, verdict: Verdict) -> None:
    assert compared(sense, goal).judge(goal) is verdict


def test_a_goal_beside_what_was_not_measured_is_not_met() -> None:
    goal = Goal(0.1, "peer")
    comparison = compared(Sense.AT_LEAST, goal, peer=Series("peer", missing="there is no npm"))
    assert comparison.judge(goal) is Verdict.UNKNOWN


def test_nothing_is_claimed_of_ours_if_it_was_not_measured() -> None:
    goals = (Goal(0), Goal(0, "peer"))
    series = (Series("ours", missing="it failed"), Series("peer", (1.0,)))
    comparison = Comparison("copy", "events/s", Sense.AT_LEAST, series, goals)
    assert [comparison.judge(goal) for goal in goals] == [Verdict.UNKNOWN] * 2
