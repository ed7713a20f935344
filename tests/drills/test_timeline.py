"""How long writes were out, and in which parts, follows from the history and the chain's own books."""

from __future__ import annotations

from chain.acks import Ack
from chain.event import EMPTY, Expect
from failover.drills.history import History, Result, Write
from failover.drills.record import Entry, Moment
from failover.drills.timeline import longest_pause, recovery


def history(*acknowledged_s: float) -> History:
    writes = [
        Write("w", t - 0.01, t, Result.OK, "", "s", Expect.ANY, (), Ack.HEAD, None) for t in acknowledged_s
    ]
    return History("", EMPTY, tuple(writes))


def test_the_longest_pause_after_the_first_fault_counts() -> None:
    assert longest_pause(history(1, 9, 10, 11, 14, 15), 0.0, 10.5, 20.0) == (11, 14)


def test_a_pause_that_the_fault_began_is_counted_from_the_fault() -> None:
    assert longest_pause(history(1, 2, 6, 7), 0.0, 3.0, 20.0) == (3.0, 6)


def test_times_are_seconds_since_the_drill_began() -> None:
    assert longest_pause(history(101, 102, 106), 100.0, 3.0, 20.0) == (3.0, 6)


def test_without_a_write_after_the_fault_there_is_no_pause_that_ended() -> None:
    assert longest_pause(history(1, 2), 0.0, 3.0, 20.0) is None


def test_the_parts_of_a_recovery_add_up_to_it() -> None:
    moments = (Moment.DETECTED, Moment.DECIDED, Moment.FENCED, Moment.PROMOTED)
    timeline = [Entry(3.5 + n / 2, moment, "") for n, moment in enumerate(moments)]
    found = recovery(timeline, (3.0, 6.0), 3.0, 9.0, target_s=5.0, healthy_target_s=None)
    parts = (found.detect_s, found.decide_s, found.fence_s, found.promote_s, found.first_write_s)
    assert parts == (0.5, 0.5, 0.5, 0.5, 1.0)
    assert (found.actual_s, found.healthy_s, found.healthy_actual_s) == (3.0, 3.0, 6.0)
    assert found.met


def test_a_pause_without_a_new_head_has_no_such_parts() -> None:
    found = recovery(
        [Entry(3.5, Moment.DETECTED, "")], (3.0, 4.0), 3.0, None, target_s=0.5, healthy_target_s=None
    )
    assert (found.detect_s, found.promote_s, found.first_write_s) == (None, None, None)
    assert not found.met
