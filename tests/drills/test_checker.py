"""What the checker promises: nothing found in a correct history, each kind of anomaly where there is one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chain.acks import Ack
from chain.event import Expect, Revision
from failover.drills.checker import CHECKS, MAX_LISTED, check
from failover.drills.evidence import Evidence
from failover.drills.findings import Finding, Kind, Proof
from failover.drills.history import Final, Followed, History, Read, Result, Seen, Write
from tests.drills.lives import Life
from tests.drills.sound import (
    DEAD,
    FINAL,
    HISTORY,
    LOG,
    X,
    Y,
    at,
    content,
    page,
    told,
    write,
)

Case = tuple[History, Final]


def findings(case: Case) -> tuple[Finding, ...]:
    return check(*case).findings


def kinds(case: Case) -> list[Kind]:
    return [finding.kind for finding in findings(case)]


@given(st.integers(0, 2**32), st.integers(20, 200))
@settings(max_examples=200)
def test_nothing_is_found_in_a_correct_life(seed: int, steps: int) -> None:
    life = Life(Random(seed)).run(steps)
    assert findings((life.history(), life.final())) == ()


def test_nothing_is_found_in_a_correct_history() -> None:
    checked = check(HISTORY, FINAL)
    assert (checked.findings, checked.incomplete) == ((), "")
    assert checked.result().ok


# Planted defects, by hand: each is found as what it is, once, and as nothing else.


def with_log(log: tuple[Seen, ...], *nodes: str) -> Final:
    return replace(FINAL, logs={**FINAL.logs, **dict.fromkeys(nodes or "abc", log)})


def with_write(index: int, **changes: object) -> History:
    writes = list(HISTORY.writes)
    writes[index] = replace(writes[index], **changes)  # type: ignore[arg-type]
    return replace(HISTORY, writes=tuple(writes))


def with_read(index: int, **changes: object) -> History:
    reads = list(HISTORY.reads)
    reads[index] = replace(reads[index], **changes)  # type: ignore[arg-type]
    return replace(HISTORY, reads=tuple(reads))


def unread(history: History) -> History:
    """Nobody read anything: for defects in the log that readers would show a second time."""
    return replace(history, reads=(), followed=())


def swapped_in(position: int, event: Seen) -> Final:
    return with_log(tuple(event if e.position == position else e for e in LOG))


def lost() -> Case:
    """The head forgot what it alone had acknowledged, and it is not in the ledger."""
    return HISTORY, replace(FINAL, ledger=())


def lost_though_it_was_read() -> Case:
    seen = (*HISTORY.reads[2].seen, DEAD)
    return with_read(2, seen=seen), replace(FINAL, ledger=())


def lost_half_of_a_batch() -> Case:
    history = with_write(5, result=Result.OK, appended=told(7, 8, 2))
    return unread(history), with_log((*LOG[:7], at(8, 1, "other", 0, "other"), *LOG[8:]))


def only_in_ledger() -> Case:
    return with_write(7, ack=Ack.REGION), FINAL


def not_on_node() -> Case:
    return HISTORY, with_log(LOG[:9], "a")


def only_at_home() -> Case:
    """Acknowledged by a region, but on nodes of one region alone."""
    history = with_write(3, contents=(content("y0"),))
    return history, replace(FINAL, order=("a", "c"), logs={"a": LOG, "c": LOG, "b": LOG[:3]})


def moved() -> Case:
    """Acknowledged one place further than it is."""
    return with_write(8, appended=told(12, 12, 4, 2)), FINAL


def moved_to_another_revision() -> Case:
    return with_write(1, appended=told(2, 2, 4)), FINAL


def moved_without_a_trace() -> Case:
    """What the lost head alone had acknowledged was stored anew, and the first place is not in the ledger."""
    return HISTORY, replace(with_log((*LOG, at(12, 2, Y, 3, "dead"))), ledger=())


def moved_within_an_epoch() -> Case:
    """That can't be a failover's doing, whoever could not be read."""
    return with_write(2, appended=told(20, 20, 1)), replace(FINAL, unread={"d": "no answer"})


def moved_on_dead_branch() -> Case:
    return HISTORY, replace(FINAL, ledger=(replace(DEAD, position=10),))


def too_few_places() -> Case:
    return with_write(4, appended=told(5, 7, 3)), FINAL


def acknowledged_twice() -> Case:
    """The dead event's place was given to another one, too, which is dead as well."""
    other = write(14, 15, Y, "other", Ack.HEAD, told(9, 9, 3))
    dead = (DEAD, replace(DEAD, content=content("other")))
    return replace(HISTORY, writes=(*HISTORY.writes, other)), replace(FINAL, ledger=dead)


def two_events_read_at_a_place() -> Case:
    """Of two appends without an answer each was read at the same place, and both are dead now."""
    dead = tuple(at(10, 1, Y, 4, name) for name in ("one", "two"))
    writes = tuple(write(14, 15, Y, name, result=Result.UNKNOWN) for name in ("one", "two"))
    before = HISTORY.reads[2]
    reads = tuple(replace(before, seen=(*before.seen, DEAD, event), next=5) for event in dead)
    history = replace(HISTORY, writes=(*HISTORY.writes, *writes), reads=reads)
    return history, replace(FINAL, ledger=(DEAD, *dead))


def stored_again() -> Case:
    return HISTORY, with_log((*LOG, at(12, 2, X, 5, "x4")))


def stored_again_under_another_id() -> Case:
    again = at(12, 2, X, 5, "again")
    again = replace(again, content=replace(again.content, digest=b"x4"))
    return HISTORY, with_log((*LOG, again))


def live_and_dead() -> Case:
    return HISTORY, replace(FINAL, ledger=(DEAD, LOG[9]))


def never_written() -> Case:
    return HISTORY, with_log((*LOG, at(12, 2, X, 5, "nobody")))


def never_written_but_read() -> Case:
    stranger = at(12, 2, X, 5, "nobody")
    return with_read(2, stream=X, seen=(stranger,), revision=5, next=6), FINAL


def altered() -> Case:
    other = replace(LOG[1], content=replace(LOG[1].content, digest=b"other"))
    return unread(HISTORY), swapped_in(2, other)


def altered_as_read() -> Case:
    other = replace(LOG[7], content=replace(LOG[7].content, digest=b"other"))
    return with_read(2, seen=(*HISTORY.reads[2].seen[:-1], other)), FINAL


def altered_in_the_ledger() -> Case:
    other = replace(DEAD, content=replace(DEAD.content, digest=b"other"))
    return HISTORY, replace(FINAL, ledger=(other,))


def appeared() -> Case:
    history = with_write(6, expected=Expect.ANY)
    return history, with_log((*LOG, at(12, 2, X, 5, "refused")))


def torn() -> Case:
    """Of an append without an answer only the first half is there."""
    log = (*LOG[:7], at(8, 1, "other", 0, "other"), *LOG[8:])
    return unread(HISTORY), with_log(log)


def not_in_one_piece() -> Case:
    log = (*LOG[:7], at(8, 1, "other", 0, "other"), *LOG[8:], at(12, 2, Y, 2, "y2"))
    return unread(HISTORY), with_log(log)


def wrong_revision() -> Case:
    return with_write(2, expected=Revision(5)), FINAL


def reordered() -> Case:
    """The first append to X was sent after the second one had been answered, and comes before it."""
    return with_write(1, invoked_s=5.4, completed_s=5.9), FINAL


def hole() -> Case:
    return HISTORY, with_log((*LOG, at(13, 2, "other", 0, "other")), "b", "c", "a")


def revision_hole() -> Case:
    history = replace(HISTORY, writes=(*HISTORY.writes, write(30, 31, X, "x6", result=Result.UNKNOWN)))
    return history, with_log((*LOG, at(12, 2, X, 6, "x6")))


def stream_without_its_beginning() -> Case:
    stream = f"{X}-new"
    history = replace(HISTORY, writes=(*HISTORY.writes, write(30, 31, stream, "new", result=Result.UNKNOWN)))
    return history, with_log((*LOG, at(12, 2, stream, 1, "new")))


def epoch_back() -> Case:
    return HISTORY, with_log((*LOG, at(12, 1, "other", 0, "other")))


def different() -> Case:
    return HISTORY, with_log((*LOG[:10], at(11, 2, "$ledger", 0, "another")), "c")


def longer() -> Case:
    return HISTORY, with_log((*LOG, at(12, 2, "other", 0, "other")), "a")


def stale_token() -> Case:
    return with_read(1, seen=HISTORY.reads[1].seen[:3], next=3), FINAL


def stale_token_within_a_page() -> Case:
    """The answer goes further than what it leaves out."""
    return with_read(1, seen=HISTORY.reads[1].seen[:3], next=4, at_tip=False), FINAL


def stale_latest() -> Case:
    return with_read(0, seen=HISTORY.reads[0].seen[:4], next=4), FINAL


def read_backwards() -> Case:
    seen = HISTORY.reads[2].seen
    return with_read(2, seen=(seen[0], seen[0], *seen[1:])), FINAL


def read_from_too_early() -> Case:
    return with_read(2, revision=1), FINAL


def read_with_a_hole() -> Case:
    seen = HISTORY.reads[2].seen
    return with_read(2, seen=(seen[0], seen[2])), FINAL


def read_from_too_late() -> Case:
    return with_read(2, seen=HISTORY.reads[2].seen[1:]), FINAL


def followed_backwards() -> Case:
    return replace(HISTORY, followed=(*HISTORY.followed, page("any", 26, 11, 11, tail=False))), FINAL


def followed_with_a_hole() -> Case:
    pages = (page("tail", 10, 2, 8, tail=True), page("tail", 23, 10, 11, tail=True))
    return replace(HISTORY, followed=pages), FINAL


def taken_away() -> Case:
    """What was acknowledged by the lost head alone was shown at the tail."""
    shown = Followed("tail", 1, 14.0, "c", True, (*LOG[1:8], DEAD))
    return replace(HISTORY, followed=(*HISTORY.followed, shown)), FINAL


def vanished() -> Case:
    """An append without an answer was read, and is gone."""
    gone = write(30, 31, Y, "gone", result=Result.UNKNOWN)
    seen = (*HISTORY.reads[2].seen, at(12, 2, Y, 3, "gone"))
    return replace(with_read(2, seen=seen), writes=(*HISTORY.writes, gone)), FINAL


PLANTED: tuple[tuple[Kind, Callable[[], Case]], ...] = (
    (Kind.LOST, lost),
    (Kind.LOST, lost_half_of_a_batch),
    (Kind.LOST, lost_though_it_was_read),
    (Kind.ONLY_IN_LEDGER, only_in_ledger),
    (Kind.NOT_ON_NODE, not_on_node),
    (Kind.NOT_ON_NODE, only_at_home),
    (Kind.MOVED, moved),
    (Kind.MOVED, moved_within_an_epoch),
    (Kind.MOVED, moved_without_a_trace),
    (Kind.MOVED, moved_to_another_revision),
    (Kind.MOVED, moved_on_dead_branch),
    (Kind.MOVED, too_few_places),
    (Kind.SAME_PLACE, acknowledged_twice),
    (Kind.SAME_PLACE, two_events_read_at_a_place),
    (Kind.DUPLICATED, stored_again),
    (Kind.DUPLICATED, stored_again_under_another_id),
    (Kind.DUPLICATED, live_and_dead),
    (Kind.NEVER_WRITTEN, never_written),
    (Kind.NEVER_WRITTEN, never_written_but_read),
    (Kind.ALTERED, altered),
    (Kind.ALTERED, altered_in_the_ledger),
    (Kind.ALTERED, altered_as_read),
    (Kind.APPEARED, appeared),
    (Kind.TORN, torn),
    (Kind.TORN, not_in_one_piece),
    (Kind.WRONG_REVISION, wrong_revision),
    (Kind.REORDERED, reordered),
    (Kind.BROKEN_LOG, hole),
    (Kind.BROKEN_LOG, stream_without_its_beginning),
    (Kind.BROKEN_LOG, revision_hole),
    (Kind.BROKEN_LOG, epoch_back),
    (Kind.DIFFERENT_LOGS, different),
    (Kind.DIFFERENT_LOGS, longer),
    (Kind.STALE_TOKEN, stale_token),
    (Kind.STALE_TOKEN, stale_token_within_a_page),
    (Kind.STALE_LATEST, stale_latest),
    (Kind.WENT_BACK, read_backwards),
    (Kind.WENT_BACK, read_from_too_early),
    (Kind.WENT_BACK, followed_backwards),
    (Kind.SKIPPED, read_with_a_hole),
    (Kind.SKIPPED, read_from_too_late),
    (Kind.SKIPPED, followed_with_a_hole),
    (Kind.TAKEN_AWAY, taken_away),
    (Kind.VANISHED, vanished),
)


@pytest.mark.parametrize(("kind", "plant"), PLANTED, ids=[plant.__name__ for _, plant in PLANTED])
def test_a_planted_defect_is_found_as_what_it_is(kind: Kind, plant: Callable[[], Case]) -> None:
    history, final = plant()
    found = findings((history, final))
    assert {finding.kind for finding in found} == {kind}
    assert all(finding.proof for finding in found)
    on_each_node = kind is Kind.BROKEN_LOG
    assert len(found) == (len(final.logs) if on_each_node else 1)


def test_a_defect_of_every_kind_is_planted() -> None:
    assert {kind for kind, _ in PLANTED} == set(Kind)


@pytest.mark.parametrize("look", CHECKS, ids=lambda look: look.__name__)
def test_every_check_can_fail(look: Callable[[Evidence], Iterable[Finding]]) -> None:
    assert any(list(look(Evidence(*plant()))) for _, plant in PLANTED)


# Planted into any life, at any place.


@dataclass(frozen=True)
class Victim:
    """An event of a life that was acknowledged, is in the log, and was never on a dead branch."""

    case: Case
    event: Seen

    def replaced(self, event: Seen, *nodes: str) -> Case:
        history, final = self.case
        logs = {
            node: tuple(event if e == self.event and node in (nodes or final.logs) else e for e in log)
            for node, log in final.logs.items()
        }
        return history, replace(final, logs=logs)

    def found(self, case: Case, kind: Kind) -> bool:
        """Whether the checker finds this, and names the event or a write of it."""
        return any(f.kind is kind and any(map(self._is_mine, f.proof)) for f in findings(case))

    def _is_mine(self, proof: Proof) -> bool:
        contents = proof.contents if isinstance(proof, Write) else ()
        return proof == self.event or self.event.content in contents


@st.composite
def victims(draw: st.DrawFn) -> Victim:
    life = Life(Random(draw(st.integers(0, 2**32)))).run(draw(st.integers(60, 150)))
    case = life.history(), life.final()
    evidence = Evidence(*case)
    there = [p for p in evidence.promises if p.place in evidence.at and p.write.acknowledged]
    never_dead = [p for p in there if not evidence.dead(p.content.id)]
    promise = draw(st.sampled_from(never_dead[1:] or never_dead))
    return Victim(case, evidence.at[promise.place])


@given(victims())
@settings(max_examples=20)
def test_any_acknowledged_event_that_is_gone_is_lost(victim: Victim) -> None:
    other = replace(victim.event, stream="other", content=content("other"))
    assert victim.found(victim.replaced(other), Kind.LOST)


@given(victims())
@settings(max_examples=20)
def test_any_event_that_is_altered_on_one_member_is_found(victim: Victim) -> None:
    altered = replace(victim.event, content=replace(victim.event.content, digest=b"altered"))
    node = victim.case[1].order[1]
    assert victim.found(victim.replaced(altered, node), Kind.DIFFERENT_LOGS)


@given(victims())
@settings(max_examples=20)
def test_any_event_that_is_there_twice_is_found(victim: Victim) -> None:
    history, final = victim.case
    last = final.log[-1]
    again = replace(victim.event, position=last.position + 1, epoch=last.epoch)
    logs = {node: (*log, again) for node, log in final.logs.items()}
    assert victim.found((history, replace(final, logs=logs)), Kind.DUPLICATED)


@given(victims())
@settings(max_examples=20)
def test_any_event_that_a_read_with_its_token_leaves_out_is_found(victim: Victim) -> None:
    history, final = victim.case
    call = ("stale", 1e6, 1e6 + 1, Result.OK, "")
    event = victim.event
    read = Read(*call, event.stream, event.revision, event.place, False, None, (), event.revision, True)
    assert victim.found((replace(history, reads=(*history.reads, read)), final), Kind.STALE_TOKEN)
    latest = replace(read, at_least=None, latest=True)
    assert victim.found((replace(history, reads=(*history.reads, latest)), final), Kind.STALE_LATEST)


# What can't be checked is never taken for right.


def test_a_node_that_could_not_be_read_makes_the_check_incomplete_and_accuses_nobody() -> None:
    history, final = lost()
    checked = check(history, replace(final, unread={"d": "no answer"}))
    assert checked.findings == ()
    assert "d (no answer)" in checked.incomplete
    assert checked.result().ok is None


def test_what_a_region_or_the_chain_acknowledged_is_lost_whoever_could_not_be_read() -> None:
    history, final = lost()
    writes = (*history.writes[:7], replace(history.writes[7], ack=Ack.REGION), *history.writes[8:])
    checked = check(replace(history, writes=writes), replace(final, unread={"d": "no answer"}))
    assert [finding.kind for finding in checked.findings] == [Kind.LOST]
    assert checked.loss().lost == {"head": 0, "region": 1, "chain": 0}


def test_a_head_that_could_not_be_read_is_no_success() -> None:
    logs = {node: log for node, log in FINAL.logs.items() if node != "b"}
    assert check(HISTORY, replace(FINAL, logs=logs)).result().ok is None


def test_a_history_without_acknowledged_writes_shows_nothing() -> None:
    history = replace(HISTORY, writes=(), reads=(), followed=())
    final = with_log((at(1, 1, "other", 0, "other"),))
    assert "no write was acknowledged" in check(history, final).incomplete


def test_what_only_another_member_has_is_lost_and_a_difference() -> None:
    history, final = lost()
    logs = {**final.logs, "c": (*LOG, replace(DEAD, position=12, epoch=2))}
    assert set(kinds((history, replace(final, logs=logs)))) == {Kind.LOST, Kind.DIFFERENT_LOGS}


def test_what_was_refused_on_one_head_and_is_put_back_from_the_dead_branch_of_another_is_right() -> None:
    dead = at(10, 1, X, 4, "refused")
    final = with_log((*LOG, at(12, 2, X, 5, "refused")))
    requeued = frozenset({dead.content.id})
    assert kinds((HISTORY, replace(final, ledger=(DEAD, dead), requeued=requeued))) == []


def test_a_read_that_ends_before_what_it_was_to_see_is_no_stale_one() -> None:
    assert kinds((with_read(1, seen=HISTORY.reads[1].seen[:2], next=2, at_tip=False), FINAL)) == []


def test_what_a_lost_head_alone_had_acknowledged_is_counted_not_accused() -> None:
    checked = check(HISTORY, FINAL)
    assert checked.counts["events_in_the_ledger"] == 1
    assert checked.loss().lost == {"head": 0, "region": 0, "chain": 0}
    assert checked.loss().in_ledger == 1


def test_what_is_still_on_a_node_outside_the_chain_is_not_lost() -> None:
    outside = (*LOG[:8], DEAD)
    final = replace(FINAL, order=("b", "c"), logs={**FINAL.logs, "a": outside}, ledger=())
    checked = check(HISTORY, final)
    assert checked.findings == ()
    assert (checked.counts["events_in_the_ledger"], checked.counts["events_on_a_dead_branch"]) == (0, 1)


def test_it_tells_how_long_events_took_to_the_tail() -> None:
    checked = check(HISTORY, FINAL)
    assert checked.stable_s == {"p50": 2.0, "p95": 7.0, "p99": 7.0, "max": 7.0}
    assert (
        checked.counts["events_not_timed_to_the_tail"] == 1
    )  # the first one of all: followers begin behind it


def test_many_findings_are_listed_up_to_a_bound_and_the_rest_counted() -> None:
    strangers = tuple(at(12 + n, 2, X, 5 + n, f"nobody-{n}") for n in range(MAX_LISTED + 7))
    result = check(HISTORY, with_log((*LOG, *strangers))).result()
    assert (len(result.findings), result.left_out, result.ok) == (MAX_LISTED, 7, False)


def test_the_documentation_names_every_kind() -> None:
    text = (Path(__file__).parents[2] / "docs" / "drills-report.md").read_text()
    assert [kind.value for kind in Kind if f"| {kind.value} |" not in text] == []
