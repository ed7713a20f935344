"""The lease by the clocks of those who watch it: nobody may think that it has ended before it has.

The property runs a head that keeps to the protocol against an observer with another clock, over any delays.
Its broken variants, one for each rule of the protocol, are what the property must catch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import accumulate
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chain.errors import LeaseLost
from chain.event import Epoch
from chain.lease import CLOCK_TOLERANCE_S, NOBODY, Lease, LeaseWatch, Terms, may_take

ONE, TWO, THREE = Epoch(1), Epoch(2), Epoch(3)
TERMS = Terms()


def lease(renewals: int = 0, duration_s: float | None = 3.0, epoch: Epoch = ONE, holder: str = "a") -> Lease:
    return Lease(epoch, holder, renewals, duration_s)


# What an observer may say.


def test_of_what_was_never_read_nothing_is_said() -> None:
    watch = LeaseWatch(0.5)
    assert watch.left_s(1e9) is None
    assert not watch.expired(1e9)


def read_on(watch: LeaseWatch, seen: Lease | None, start: float, end: float) -> None:
    """Reads the same record once a second, and at the end."""
    now = start
    while now < end:
        watch.saw(seen, now)
        now += 1.0
    watch.saw(seen, end)


def test_a_record_that_stands_runs_out_after_its_duration_and_the_margin() -> None:
    watch = LeaseWatch(0.5)
    read_on(watch, lease(), 100.0, 103.25)
    assert watch.left_s(103.25) == 0.25
    watch.saw(lease(), 103.5)
    assert watch.expired(103.5)
    assert watch.left_s(1000.0) == 0.0


def test_time_in_which_nobody_read_counts_for_nothing() -> None:
    """An observer that was frozen, or hung, knows nothing of what it did not see."""
    watch = LeaseWatch(0.5)
    read_on(watch, lease(), 100.0, 103.25)
    assert not watch.expired(1000.0)
    watch.saw(lease(), 1000.0)
    assert watch.left_s(1000.0) == 3.5


@pytest.mark.parametrize(
    "changed",
    [
        lease(1),
        lease(0, 2.0),
        lease(0, 3.0, TWO),
        lease(0, 3.0, ONE, "b"),
        lease(0, 3.0, ONE, NOBODY),
    ],
)
def test_any_change_begins_the_count_anew(changed: Lease) -> None:
    watch = LeaseWatch(0.5)
    watch.saw(lease(), 100.0)
    watch.saw(changed, 103.0)
    assert changed.duration_s is not None
    assert watch.left_s(103.0) == changed.duration_s + 0.5
    watch.saw(lease(), 104.0)
    assert watch.left_s(104.0) == 3.5, "a record that came back is a change, too"


def test_a_time_that_could_not_be_read_counts_for_nothing() -> None:
    watch = LeaseWatch(0.5)
    watch.saw(lease(), 100.0)
    watch.failed()
    assert watch.left_s(200.0) is None
    assert not watch.expired(200.0)
    watch.saw(lease(), 200.0)
    assert watch.left_s(200.0) == 3.5, "the head, too, may have been without the registry: it gets its chance"
    read_on(watch, lease(), 200.0, 203.5)
    assert watch.expired(203.5)


def test_one_failure_within_an_expired_lease_takes_the_verdict_back() -> None:
    watch = LeaseWatch(0.5)
    read_on(watch, lease(), 0.0, 3.5)
    assert watch.expired(3.5)
    watch.failed()
    assert not watch.expired(3.5)
    watch.failed()
    watch.saw(lease(), 4.0)
    assert not watch.expired(7.0)


def test_no_lease_says_nothing() -> None:
    for nothing in (None, lease(duration_s=None)):
        watch = LeaseWatch(0.5)
        watch.saw(nothing, 0.0)
        assert watch.left_s(1e9) is None
        assert not watch.expired(1e9)


def test_leases_that_are_turned_on_count_from_then() -> None:
    watch = LeaseWatch(0.5)
    for before in (None, lease(duration_s=None)):
        watch.saw(before, 0.0)
        watch.saw(lease(1), 100.0)
        assert watch.left_s(100.0) == 3.5


def test_nobodys_lease_runs_out_like_any_other() -> None:
    """A new head that never comes must not stop the next from being chosen."""
    watch = LeaseWatch(0.5)
    read_on(watch, lease(holder=NOBODY), 0.0, 3.5)
    assert watch.expired(3.5)


# Terms.


@given(st.floats(0.2, 10), st.floats(4, 20))
def test_a_head_has_three_tries_within_its_right(margin_s: float, times: float) -> None:
    """For all that the configuration allows: a margin of the tolerance, a duration of four margins."""
    terms = Terms(margin_s * times, margin_s)
    assert terms.margin_s >= CLOCK_TOLERANCE_S
    assert 0 < terms.right_s < terms.duration_s
    assert 3 * terms.renew_s <= terms.right_s * (1 + 1e-9)


def test_the_terms_unless_told_otherwise() -> None:
    assert (TERMS.duration_s, TERMS.right_s, TERMS.renew_s, TERMS.failsafe) == (3.0, 2.5, 0.75, True)
    assert TERMS.margin_s >= CLOCK_TOLERANCE_S


# The compare of the compare-and-set.


@pytest.mark.parametrize(
    ("record", "epoch", "seen", "may"),
    [
        (None, ONE, None, True),
        (lease(3), TWO, lease(3), True),
        (lease(3), ONE, lease(3), True),
        (lease(3, epoch=TWO), ONE, lease(3, epoch=TWO), False),
        (lease(3), TWO, lease(2), False),
        (lease(3), TWO, None, False),
        (None, TWO, lease(3), False),
        (lease(3, holder=NOBODY), TWO, lease(3), False),
    ],
)
def test_who_may_take_it(record: Lease | None, epoch: Epoch, seen: Lease | None, may: bool) -> None:
    refusal = may_take(record, epoch, seen)
    assert (refusal is None) == may
    assert may or isinstance(refusal, LeaseLost)


# Never early, by any sequence.

# Times are whole hundredths of a second, so that nothing hangs on rounding.


@dataclass(frozen=True)
class Renewal:
    """One try of the head: the gap since the last, and how long each of its two ways takes."""

    gap: int
    there: int
    back: int
    lost: bool
    """The registry renewed, and its answer never came: the head gains nothing."""
    fails: bool
    """The request never came: nobody gains anything."""


@dataclass(frozen=True)
class Reading:
    gap: int
    there: int
    back: int
    fails: bool


@dataclass(frozen=True)
class Run:
    renewals: tuple[Renewal, ...]
    readings: tuple[Reading, ...]
    offset: int
    """The observer's clock less the true time."""
    steps: tuple[tuple[int, int], ...]
    """When, and by how much, the head's clock steps back: by the tolerance in all, and no more."""

    def back(self, now: int) -> int:
        return sum(by for at, by in self.steps if at <= now)


TOLERANCE = round(CLOCK_TOLERANCE_S * 100)


def any_run(seed: int) -> Run:
    """Mostly quick ways, sometimes slow ones; a registry that is away now and then."""
    chance = Random(seed)

    def way() -> int:
        return chance.randint(0, chance.choice([2, 2, 20, 140]))

    renewals = [
        Renewal(chance.randint(0, 200), way(), way(), chance.random() < 0.2, chance.random() < 0.2)
        for _ in range(chance.randint(0, 5))
    ]
    readings = [
        Reading(chance.randint(0, chance.choice([60, 60, 60, 300])), way(), way(), chance.random() < 0.05)
        for _ in range(chance.randint(5, 20))
    ]
    count = chance.randint(0, 2)
    steps = [(chance.randint(0, 400), TOLERANCE // count) for _ in range(count)]
    return Run(tuple(renewals), tuple(readings), chance.randint(-(10**6), 10**6), tuple(steps))


runs = st.integers(0, 2**40).map(any_run)

Note = Callable[[LeaseWatch, "Lease | None", int, int], None]


def by_the_rules(watch: LeaseWatch, seen: Lease | None, asked: int, answered: int) -> None:
    watch.saw(seen, answered)


def from_the_asking(watch: LeaseWatch, seen: Lease | None, asked: int, answered: int) -> None:
    watch.saw(seen, asked)


def going_on_counting(watch: LeaseWatch, seen: Lease | None, asked: int, answered: int) -> None:
    since, first = watch._since, watch.lease is None
    watch.saw(seen, answered)
    if not first:
        watch._since = since


@dataclass(frozen=True)
class Rules:
    note: Note = by_the_rules
    duration: int = 300
    margin: int = 50
    observed_margin: int = 50
    count_from_renewal: bool = False
    """The head sets its deadline from when the renewal was answered, instead of from before it was asked."""
    by_taking: bool = True
    """The verdict counts for nothing without the compare-and-set on the record that it is about."""


NARROW = Rules(margin=TOLERANCE, observed_margin=TOLERANCE)
"""The smallest margin that may be configured: where a broken rule is seen soonest."""


def ends_early(run: Run, rules: Rules) -> bool:
    """Is there a moment when the observer may put a new head in, and the old one writes after it?"""
    record = lease(0, rules.duration)
    applied = [0]
    """When the registry renewed."""
    log = [(0, rules.duration - rules.margin - run.back(0))]
    """When it did so, and until when the head then writes, by its own clock."""

    starts = accumulate(renewal.gap for renewal in run.renewals)
    for start, renewal in zip(starts, run.renewals, strict=True):
        if renewal.fails:
            continue
        at = start + renewal.there
        applied.append(at)
        read_at = start - run.back(start)
        if rules.count_from_renewal:
            read_at = at + renewal.back - run.back(at + renewal.back)
        if not renewal.lost:
            log.append((at, read_at + rules.duration - rules.margin))

    def record_at(now: int) -> Lease:
        return replace(record, renewals=sum(at <= now for at in applied))

    def writes_until(now: int) -> int:
        """The last true time at which a head whose renewals after `now` are refused takes a write."""
        true = max(deadline for at, deadline in log if at <= now)
        for at, by in sorted(run.steps):
            if at <= true:  # a step back before the end puts the end off
                true += by
        return true

    watch = LeaseWatch(rules.observed_margin)
    now = 0
    for reading, following in zip(run.readings, (*run.readings[1:], None), strict=True):
        asked = now + reading.gap
        answered = now = asked + reading.there + reading.back
        if reading.fails:
            watch.failed()
        else:
            rules.note(watch, record_at(asked + reading.there), asked + run.offset, answered + run.offset)
        until_next = following.gap + following.there + following.back if following else 10_000
        left = watch.left_s(answered + run.offset)
        for wait in (0, left, until_next):
            if wait is None or wait > until_next or not watch.expired(answered + wait + run.offset):
                continue
            taken_at = answered + int(wait)
            if rules.by_taking and record_at(taken_at) != watch.lease:
                continue
            if taken_at < writes_until(taken_at):
                return True
    return False


@settings(max_examples=250, deadline=None)
@given(runs)
def test_no_observer_takes_a_lease_that_its_head_still_has(run: Run) -> None:
    assert not ends_early(run, Rules())
    assert not ends_early(run, NARROW)


@settings(max_examples=100, deadline=None)
@given(runs, st.integers(1, 20), st.integers(4, 20))
def test_nor_under_any_terms_that_may_be_configured(run: Run, margin: int, times: int) -> None:
    margin *= TOLERANCE
    assert not ends_early(run, Rules(duration=times * margin, margin=margin, observed_margin=margin))


@given(st.lists(st.tuples(st.floats(0, 10), st.sampled_from(["read", "renewed", "away"])), max_size=20))
def test_a_head_that_has_gone_is_found_out_whatever_was_before(before: list[tuple[float, str]]) -> None:
    """Safety alone would be had by never saying a word."""
    watch, now, renewed = LeaseWatch(0.5), 0.0, 0
    for gap, what in before:
        now += gap
        renewed += what == "renewed"
        if what == "away":
            watch.failed()
        else:
            watch.saw(lease(renewed), now)
    read_on(watch, lease(renewed), now, now + 3.6)
    assert watch.expired(now + 3.6)


@pytest.mark.parametrize(
    "rules",
    [
        pytest.param(Rules(margin=0, observed_margin=0), id="no margin, and a clock that steps"),
        pytest.param(replace(NARROW, note=from_the_asking), id="counts from before the read is answered"),
        pytest.param(Rules(note=going_on_counting), id="goes on counting when the record has changed"),
        pytest.param(
            replace(NARROW, count_from_renewal=True), id="the head counts from the renewal's answer"
        ),
        pytest.param(Rules(by_taking=False), id="the verdict is believed without compare-and-set"),
    ],
)
def test_that_property_catches_what_breaks_it(rules: Rules) -> None:
    assert any(ends_early(any_run(seed), rules) for seed in range(20_000))
