"""Who may decide what about a chain, when; and what it becomes by each decision."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, get_args
from uuid import UUID, uuid5

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from chain.commands import (
    Command,
    acknowledge_failover,
    approve_plan,
    begin_reign,
    create_chain,
    detach,
    finish_join,
    finish_run,
    finish_step,
    grant,
    hear_join,
    moves_the_head,
    pause_automation,
    resume_automation,
    start_join,
    start_run,
    start_step,
)
from chain.decisions import (
    AutomationPaused,
    AutomationResumed,
    ChainCreated,
    Decision,
    EpochGranted,
    FailoverAcknowledged,
    JoinFinished,
    JoinHeard,
    JoinStarted,
    NodeDetached,
    PlanApproved,
    ReignBegan,
    RunFinished,
    RunStarted,
    StepFinished,
    StepStarted,
    decode,
    encode,
    evolve,
)
from chain.errors import BadInput, Busy, Corrupt, Refused
from chain.event import Epoch, Event, NewEvent, Position, Revision, Tip
from chain.store import Ground
from chain.topology import Approval, Run, RunStep, Topology

REGIONS = {"east-1": "east", "west-1": "west", "east-2": "east"}
FIRST, RUN, OTHER_RUN, PROMOTION = (UUID(int=n) for n in range(1, 5))
DAY = datetime(2026, 1, 1, tzinfo=UTC)
GROUND = Ground(Tip(Position(7), Epoch(1)), DAY)


def stored(event: NewEvent, revision: int = 0, at: datetime = DAY) -> Event:
    return Event(
        position=Position(revision + 1),
        epoch=Epoch(1),
        stream="$chain-shop",
        revision=Revision(revision),
        id=event.id,
        type=event.type,
        data=event.data,
        metadata=event.metadata,
        recorded_at=at,
    )


def after(topology: Topology | None, *commands: Command, at: datetime = DAY) -> Topology:
    """The topology once all `commands` were decided and recorded, each read back from its event."""
    for command in commands:
        for decision in command(topology):
            topology = recorded(topology, decision, at)
    assert topology is not None
    return topology


def recorded(topology: Topology | None, decision: Decision, at: datetime = DAY) -> Topology:
    """What the registry makes of a decision that it recorded `at` that time."""
    event = stored(encode(decision, b""), topology.version + 1 if topology else 0, at)
    return evolve(topology, decode(event), event.revision, event.recorded_at)


SHOP = after(None, create_chain("shop", REGIONS, FIRST, GROUND))
OPERATED = after(SHOP, start_run(RUN, "switchover", {"node": "west-1"}, "ada"))
JOINING = after(OPERATED, start_join("west-2", "west", run=RUN))


class TestCreation:
    def test_a_chain_begins_in_epoch_1_with_its_first_node_as_head(self) -> None:
        assert (SHOP.epoch, SHOP.promotion, SHOP.head) == (1, FIRST, "east-1")
        assert SHOP.order == ("east-1", "west-1", "east-2")
        assert SHOP.home == "east"
        assert SHOP.began is None

    def test_a_chain_is_created_once(self) -> None:
        assert create_chain("shop", {"other": "south"}, PROMOTION, GROUND)(SHOP) == ()

    def test_a_chain_needs_a_node(self) -> None:
        with pytest.raises(BadInput, match="at least one node"):
            create_chain("shop", {}, FIRST, GROUND)(None)

    def test_nothing_is_decided_about_a_chain_that_is_not_there(self) -> None:
        for command in (
            grant(Epoch(1), PROMOTION, "east-1", GROUND, run=None),
            begin_reign(Epoch(1), FIRST, Position(1)),
            start_join("a", "b", run=RUN),
            start_run(RUN, "switchover", {}, "ada"),
            finish_run(RUN, "done"),
            pause_automation("ada", ""),
            resume_automation(),
            acknowledge_failover(),
            approve_plan("a" * 64, "ada", 60),
        ):
            with pytest.raises(Refused, match="does not know this chain"):
                command(None)


class TestGrant:
    def test_the_head_moves_to_the_front_and_the_rest_keep_their_order(self) -> None:
        granted = after(OPERATED, grant(Epoch(2), RUN, "east-2", GROUND, run=RUN))
        assert granted.order == ("east-2", "east-1", "west-1")
        assert (granted.epoch, granted.promotion, granted.began) == (2, RUN, None)
        assert granted.ground == GROUND

    def test_the_lost_head_is_outside_from_the_grant_on(self) -> None:
        granted = after(OPERATED, grant(Epoch(2), RUN, "west-1", GROUND, run=RUN, detach=("east-1",)))
        assert granted.order == ("west-1", "east-2")
        assert granted.detached == ("east-1",)

    def test_joining_nodes_survive_a_grant(self) -> None:
        granted = after(JOINING, grant(Epoch(2), RUN, "west-1", GROUND, run=RUN))
        assert granted.joining == ("west-2",)
        assert granted.upstream("west-2") == "east-2"

    def test_asked_again_for_what_was_granted_there_is_nothing_to_do(self) -> None:
        ask = grant(Epoch(2), RUN, "west-1", GROUND, run=RUN)
        granted = after(OPERATED, ask)
        assert ask(granted) == ()
        assert ask(after(granted, finish_run(RUN, "done"))) == ()

    def test_what_it_was_granted_on_stays(self) -> None:
        granted = after(OPERATED, grant(Epoch(2), RUN, "west-1", GROUND, run=RUN))
        elsewhere = Ground(Tip(Position(8), Epoch(1)), DAY)
        assert after(granted, grant(Epoch(2), RUN, "west-1", elsewhere, run=RUN)).ground == GROUND

    def test_an_epoch_is_granted_once(self) -> None:
        granted = after(OPERATED, grant(Epoch(2), RUN, "west-1", GROUND, run=RUN))
        for promotion, head in ((PROMOTION, "west-1"), (RUN, "east-2"), (PROMOTION, "east-1")):
            with pytest.raises(Refused, match="can't be granted: the chain is in epoch 2, with head west-1"):
                grant(Epoch(2), promotion, head, GROUND, run=RUN)(granted)

    @pytest.mark.parametrize("epoch", [-1, 0, 1, 3, 100])
    def test_only_the_next_epoch_is_granted(self, epoch: int) -> None:
        with pytest.raises(Refused, match="can't be granted"):
            grant(Epoch(epoch), PROMOTION, "west-1", GROUND, run=RUN)(OPERATED)

    def test_only_a_member_becomes_head(self) -> None:
        for stranger in ("west-2", "north-1"):
            with pytest.raises(Refused, match="no member"):
                grant(Epoch(2), RUN, stranger, GROUND, run=RUN)(JOINING)

    def test_a_head_that_asks_is_granted_an_epoch_when_no_run_is_under_way(self) -> None:
        granted = after(SHOP, grant(Epoch(2), PROMOTION, "east-1", GROUND, run=None))
        assert (granted.epoch, granted.promotion, granted.order) == (2, PROMOTION, SHOP.order)

    def test_a_run_that_moves_the_head_is_not_overtaken_by_the_head_itself(self) -> None:
        for step in ("fence-head", "fence-head-if-reachable", "end-lease", "fence-others", "grant-epoch"):
            moving = after(OPERATED, start_step(RUN, step))
            with pytest.raises(Busy, match="begun by ada"):
                grant(Epoch(2), PROMOTION, "east-1", GROUND, run=None)(moving)

    def test_a_run_that_has_not_come_so_far_keeps_no_head_from_going_on(self) -> None:
        for begun in (OPERATED, after(OPERATED, start_step(RUN, "begin-join"))):
            assert after(begun, grant(Epoch(2), PROMOTION, "east-1", GROUND, run=None)).epoch == 2

    def test_another_run_or_one_that_has_ended_is_granted_nothing(self) -> None:
        with pytest.raises(Busy):
            grant(Epoch(2), OTHER_RUN, "west-1", GROUND, run=OTHER_RUN)(OPERATED)
        with pytest.raises(Refused, match="has ended"):
            grant(Epoch(2), RUN, "west-1", GROUND, run=RUN)(SHOP)


class TestReign:
    def test_a_reign_begins_once(self) -> None:
        begun = after(SHOP, begin_reign(Epoch(1), FIRST, Position(1)))
        assert begun.began == 1
        assert begin_reign(Epoch(1), FIRST, Position(9))(begun) == ()

    def test_a_reign_that_was_overtaken_does_not_begin(self) -> None:
        granted = after(SHOP, grant(Epoch(2), PROMOTION, "east-1", GROUND, run=None))
        assert begin_reign(Epoch(1), FIRST, Position(1))(granted) == ()

    def test_a_reign_of_another_promotion_does_not_begin(self) -> None:
        assert begin_reign(Epoch(1), PROMOTION, Position(1))(SHOP) == ()

    def test_a_new_epoch_has_not_begun(self) -> None:
        begun = after(SHOP, begin_reign(Epoch(1), FIRST, Position(1)))
        assert after(begun, grant(Epoch(2), PROMOTION, "east-1", GROUND, run=None)).began is None


class TestMembers:
    def test_a_joining_node_becomes_the_tail(self) -> None:
        joined = after(JOINING, hear_join("west-2", Epoch(1)), finish_join("west-2", run=RUN))
        assert (joined.tail, joined.joining) == ("west-2", ())
        assert finish_join("west-2", run=RUN)(joined) == ()

    def test_a_node_is_no_member_before_the_head_has_heard_of_it(self) -> None:
        with pytest.raises(Refused, match="has not heard yet that west-2 joins"):
            finish_join("west-2", run=RUN)(JOINING)
        with pytest.raises(Refused, match="has not heard yet that west-2 joins"):  # nor one of another epoch
            finish_join("west-2", run=RUN)(after(JOINING, hear_join("west-2", Epoch(2))))

    def test_a_new_head_has_to_hear_for_itself(self) -> None:
        heard = after(JOINING, hear_join("west-2", Epoch(1)))
        assert heard.heard == ("west-2",)
        assert hear_join("west-2", Epoch(1))(heard) == ()
        assert after(heard, grant(Epoch(2), RUN, "west-1", GROUND, run=RUN)).heard == ()
        assert after(heard, detach("west-2", run=RUN)).heard == ()

    def test_a_node_joins_once(self) -> None:
        for node in ("west-2", "west-1"):
            assert start_join(node, "west", run=RUN)(JOINING) == ()

    def test_only_a_node_that_is_joining_becomes_a_member(self) -> None:
        with pytest.raises(Refused, match="is not joining"):
            finish_join("west-2", run=RUN)(OPERATED)

    def test_who_followed_a_detached_node_follows_the_one_before_it(self) -> None:
        detached = after(OPERATED, detach("west-1", run=RUN))
        assert detached.upstream("east-2") == "east-1"
        assert detached.detached == ("west-1",)
        assert detach("west-1", run=RUN)(detached) == ()

    def test_a_join_that_is_given_up_leaves_the_node_outside(self) -> None:
        assert after(JOINING, detach("west-2", run=RUN)).detached == ("west-2",)

    def test_the_head_is_not_detached(self) -> None:
        with pytest.raises(Refused, match="east-1 is the head"):
            detach("east-1", run=RUN)(OPERATED)

    def test_a_node_that_the_chain_never_had_is_not_detached(self) -> None:
        with pytest.raises(BadInput, match="no node 'north-1'"):
            detach("north-1", run=RUN)(OPERATED)

    def test_only_the_run_under_way_changes_the_members(self) -> None:
        for command in (
            start_join("west-3", "west", run=OTHER_RUN),
            finish_join("west-2", run=OTHER_RUN),
            detach("west-1", run=OTHER_RUN),
        ):
            with pytest.raises(Busy):
                command(JOINING)


class TestRun:
    def test_one_run_at_a_time_and_the_other_is_told_who_and_where(self) -> None:
        at_work = after(OPERATED, start_step(RUN, "fence-head"))
        with pytest.raises(Busy, match=rf"switchover \(run {RUN}, begun by ada\) .* at fence-head") as caught:
            start_run(OTHER_RUN, "failover", {}, "bob")(at_work)
        assert caught.value.hint

    def test_the_same_run_starts_once(self) -> None:
        assert start_run(RUN, "switchover", {}, "ada")(OPERATED) == ()

    def test_a_run_asks_for_the_next_epoch_fixed_at_its_start(self) -> None:
        assert OPERATED.run is not None
        assert OPERATED.run.epoch == 2
        granted = after(OPERATED, grant(Epoch(2), RUN, "west-1", GROUND, run=RUN))
        assert granted.run is not None
        assert granted.run.epoch == 2

    def test_the_journal_says_what_each_step_gave(self) -> None:
        begun = after(OPERATED, start_step(RUN, "drain"))
        assert begun.run is not None
        assert begun.run.result("drain") is None
        ended = after(begun, finish_step(RUN, "drain", {"position": 7}), start_step(RUN, "promote"))
        assert ended.run is not None
        assert ended.run.result("drain") == {"position": 7}
        assert [step.name for step in ended.run.steps] == ["drain", "promote"]

    def test_a_step_that_gave_nothing_is_finished_all_the_same(self) -> None:
        ended = after(OPERATED, start_step(RUN, "drain"), finish_step(RUN, "drain", {}))
        assert ended.run is not None
        assert ended.run.result("drain") == {}

    def test_what_a_step_gave_first_stands(self) -> None:
        ended = after(OPERATED, finish_step(RUN, "drain", {"position": 7}))
        assert finish_step(RUN, "drain", {"position": 8})(ended) == ()

    def test_a_step_that_was_left_unfinished_is_begun_again(self) -> None:
        again = after(OPERATED, start_step(RUN, "drain"), start_step(RUN, "drain"))
        assert again.run is not None
        assert [step.name for step in again.run.steps] == ["drain"]

    def test_steps_are_journaled_by_the_run_under_way_only(self) -> None:
        for command in (start_step(OTHER_RUN, "drain"), finish_step(OTHER_RUN, "drain", {})):
            with pytest.raises(Busy):
                command(OPERATED)
            with pytest.raises(Refused, match="has ended"):
                command(SHOP)

    def test_a_run_ends_once_and_the_next_can_begin(self) -> None:
        ended = after(OPERATED, finish_run(RUN, "done"))
        assert ended.run is None
        assert finish_run(RUN, "done")(ended) == ()
        assert after(ended, start_run(OTHER_RUN, "failover", {}, "bob")).run is not None

    def test_nobody_ends_another_ones_run(self) -> None:
        assert finish_run(OTHER_RUN, "aborted")(OPERATED) == ()

    def test_it_carries_the_playbook_that_it_began_with(self) -> None:
        begun = after(SHOP, start_run(RUN, "switchover", {"node": "west-1"}, "ada", text='{"name": "x"}'))
        assert begun.run == Run(RUN, "switchover", {"node": "west-1"}, "ada", Epoch(2), text='{"name": "x"}')
        assert after(begun, start_step(RUN, "drain")).run == replace(begun.run, steps=(RunStep("drain"),))

    def test_a_run_of_before_there_were_texts_and_plans_is_read(self) -> None:
        started = RunStarted(RUN, "switchover", {}, "ada", Epoch(2))
        old = json.loads(encode(started, b"").data)
        del old["text"], old["plan"]
        assert decode(stored(NewEvent("RunStarted", json.dumps(old).encode()))) == started

    def test_a_run_moves_the_head_from_the_first_fence_on(self) -> None:
        assert not moves_the_head(SHOP.run)
        assert not moves_the_head(OPERATED.run)
        assert not moves_the_head(after(OPERATED, start_step(RUN, "choose-candidate")).run)
        assert moves_the_head(after(OPERATED, start_step(RUN, "end-lease")).run)


class TestAutomation:
    def test_it_is_paused_by_somebody_who_may_say_why(self) -> None:
        assert SHOP.paused is None
        assert after(SHOP, pause_automation("ada", "a drill")).paused == "by ada: a drill"
        assert after(SHOP, pause_automation("ada", "")).paused == "by ada"

    def test_it_is_paused_once_and_the_first_word_stands(self) -> None:
        paused = after(SHOP, pause_automation("ada", "a drill"))
        assert pause_automation("bob", "another")(paused) == ()

    def test_it_goes_on_once(self) -> None:
        assert resume_automation()(SHOP) == ()
        resumed = after(SHOP, pause_automation("ada", ""), resume_automation())
        assert resumed == SHOP
        assert resume_automation()(resumed) == ()

    def test_a_pause_stops_no_run_and_no_grant(self) -> None:
        paused = after(OPERATED, pause_automation("ada", ""))
        assert paused.run == OPERATED.run
        moved = after(paused, grant(Epoch(2), RUN, "west-1", GROUND, run=RUN), finish_run(RUN, "done"))
        assert (moved.head, moved.paused) == ("west-1", "by ada")


LOSS = grant(Epoch(2), RUN, "west-1", GROUND, run=RUN, detach=("east-1",))


class TestFailedOver:
    def test_a_head_that_is_left_out_was_failed_over_when_that_was_recorded(self) -> None:
        assert after(OPERATED, LOSS, at=DAY).failed_over_at == DAY

    def test_a_head_that_stays_in_the_chain_was_not(self) -> None:
        assert after(OPERATED, grant(Epoch(2), RUN, "west-1", GROUND, run=RUN)).failed_over_at is None
        assert after(SHOP, grant(Epoch(2), PROMOTION, "east-1", GROUND, run=None)).failed_over_at is None
        other_out = grant(Epoch(2), RUN, "west-1", GROUND, run=RUN, detach=("east-2",))
        assert after(OPERATED, other_out).failed_over_at is None

    def test_what_comes_after_does_not_change_it_but_the_next_failover(self) -> None:
        over = after(OPERATED, LOSS, at=DAY)
        later = after(
            over,
            begin_reign(Epoch(2), RUN, Position(5)),
            start_join("east-1", "east", run=RUN),
            hear_join("east-1", Epoch(2)),
            finish_join("east-1", run=RUN),
            grant(Epoch(3), RUN, "east-2", GROUND, run=RUN),
            finish_run(RUN, "done"),
            at=DAY + timedelta(hours=1),
        )
        assert (later.head, later.failed_over_at) == ("east-2", DAY)
        again = after(later, start_run(OTHER_RUN, "failover", {}, "bob"))
        dropped = grant(Epoch(4), OTHER_RUN, "west-1", GROUND, run=OTHER_RUN, detach=("east-2",))
        noon = DAY + timedelta(hours=12)
        assert after(again, dropped, at=noon).failed_over_at == noon

    def test_it_is_acknowledged_once(self) -> None:
        assert acknowledge_failover()(SHOP) == ()
        acknowledged = after(after(OPERATED, LOSS), acknowledge_failover())
        assert acknowledged.failed_over_at is None
        assert acknowledge_failover()(acknowledged) == ()


class TestApproval:
    PLAN, OTHER = "a" * 64, "b" * 64

    def begun(self, topology: Topology, plan: str) -> Topology:
        return after(topology, start_run(RUN, "region-evacuation", {}, "bob", plan=plan))

    def test_it_is_kept_with_its_end_by_the_time_that_it_was_recorded_at(self) -> None:
        approved = after(SHOP, approve_plan(self.PLAN, "ada", 900), at=DAY)
        assert approved.approvals == (Approval(self.PLAN, "ada", DAY + timedelta(minutes=15)),)

    def test_it_is_for_the_one_run_that_starts_with_its_plan(self) -> None:
        approved = after(SHOP, approve_plan(self.PLAN, "ada", 900), approve_plan(self.OTHER, "eve", 900))
        mine, other = approved.approvals
        begun = self.begun(approved, self.PLAN)
        assert begun.run is not None
        assert (begun.run.approval, begun.approvals) == (mine, (other,))
        ended = after(begun, start_step(RUN, "fence-head"), finish_run(RUN, "failed"))
        assert ended.approvals == (other,), "a run that failed has used it up"

    @pytest.mark.parametrize("plan", ["", "c" * 64])
    def test_a_run_of_another_plan_has_none_and_uses_none_up(self, plan: str) -> None:
        approved = after(SHOP, approve_plan(self.PLAN, "ada", 900))
        begun = self.begun(approved, plan)
        assert begun.run is not None
        assert (begun.run.approval, begun.approvals) == (None, approved.approvals)

    def test_given_again_it_lasts_longer_and_is_still_for_one_run(self) -> None:
        first = after(SHOP, approve_plan(self.PLAN, "ada", 60), at=DAY)
        again = after(first, approve_plan(self.PLAN, "eve", 60), at=DAY + timedelta(seconds=30))
        assert again.approvals == (Approval(self.PLAN, "eve", DAY + timedelta(seconds=90)),)
        assert self.begun(again, self.PLAN).approvals == ()

    def test_the_most_recent_are_kept(self) -> None:
        topology = SHOP
        for n in range(40):
            topology = after(topology, approve_plan(f"{n:064}", "ada", 60))
        kept = [int(approval.plan) for approval in topology.approvals]
        assert kept == list(range(24, 40))

    @pytest.mark.parametrize("by", ["", "  ", "\n"])
    def test_nobody_in_particular_approves_of_nothing(self, by: str) -> None:
        with pytest.raises(BadInput, match="named person"):
            approve_plan(self.PLAN, by, 60)(SHOP)

    @pytest.mark.parametrize("for_s", [0, -1, 7 * 86400 + 1, float("inf"), float("nan")])
    def test_it_lasts_for_a_while_and_not_for_ever(self, for_s: float) -> None:
        with pytest.raises(BadInput, match="at most 7 days"):
            approve_plan(self.PLAN, "ada", for_s)(SHOP)

    def test_it_changes_nothing_else(self) -> None:
        assert replace(after(SHOP, approve_plan(self.PLAN, "ada", 60)), approvals=()) == SHOP


# The stream of the registry.

NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)
NUMBERS = st.integers(0, 2**63 - 1)
TUPLES = st.lists(NAMES, max_size=4).map(tuple)
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | NAMES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)
RESULTS = st.dictionaries(NAMES, JSON, max_size=3)
GROUNDS = st.builds(
    Ground,
    st.builds(Tip, NUMBERS, NUMBERS),
    st.datetimes(timezones=st.just(UTC), min_value=datetime(1970, 1, 1)),
)
KINDS: dict[type[Decision], st.SearchStrategy[Decision]] = {
    ChainCreated: st.builds(
        ChainCreated, NAMES, st.dictionaries(NAMES, NAMES, min_size=1), st.uuids(), GROUNDS
    ),
    EpochGranted: st.builds(EpochGranted, NUMBERS, st.uuids(), TUPLES, TUPLES, GROUNDS),
    ReignBegan: st.builds(ReignBegan, NUMBERS, NUMBERS),
    JoinStarted: st.builds(JoinStarted, NAMES, NAMES),
    JoinHeard: st.builds(JoinHeard, NAMES, NUMBERS),
    JoinFinished: st.builds(JoinFinished, NAMES),
    NodeDetached: st.builds(NodeDetached, NAMES),
    RunStarted: st.builds(RunStarted, st.uuids(), NAMES, RESULTS, NAMES, NUMBERS, text=NAMES, plan=NAMES),
    StepStarted: st.builds(StepStarted, st.uuids(), NAMES),
    StepFinished: st.builds(StepFinished, st.uuids(), NAMES, RESULTS),
    RunFinished: st.builds(RunFinished, st.uuids(), NAMES, NAMES),
    AutomationPaused: st.builds(AutomationPaused, NAMES, NAMES),
    AutomationResumed: st.just(AutomationResumed()),
    FailoverAcknowledged: st.just(FailoverAcknowledged()),
    PlanApproved: st.builds(PlanApproved, NAMES, NAMES, st.floats(1, 1e6)),
}


class TestStream:
    @settings(deadline=None)
    @given(st.one_of(*KINDS.values()))
    def test_every_decision_is_read_as_it_was_written(self, decision: Decision) -> None:
        assert decode(stored(encode(decision, b"who and why"))) == decision

    def test_no_kind_of_decision_is_left_out_above(self) -> None:
        assert set(KINDS) == set(get_args(Decision))

    def test_a_decision_of_an_unknown_type_is_not_guessed_at(self) -> None:
        with pytest.raises(Corrupt, match=r"\$chain-shop holds a ChainSplit at revision 4") as caught:
            decode(stored(NewEvent("ChainSplit", b"{}"), 4))
        assert "upgrade" in caught.value.hint

    @pytest.mark.parametrize("data", [b"", b"\xff", b"[]", b"{}", b'{"node": 5}'])
    def test_a_decision_that_can_not_be_read_is_corrupt(self, data: bytes) -> None:
        with pytest.raises(Corrupt, match="NodeDetached at revision 4"):
            decode(stored(NewEvent("NodeDetached", data), 4))

    def test_a_stream_that_does_not_begin_with_the_chain_is_corrupt(self) -> None:
        with pytest.raises(Corrupt, match="begins with NodeDetached"):
            evolve(None, NodeDetached("east-1"), Revision(0))

    def test_a_chain_that_is_created_twice_is_corrupt(self) -> None:
        with pytest.raises(Corrupt, match="second ChainCreated"):
            evolve(SHOP, ChainCreated("shop", REGIONS, PROMOTION, GROUND), Revision(1))

    def test_a_step_outside_a_run_is_corrupt(self) -> None:
        with pytest.raises(Corrupt, match="outside a run"):
            evolve(SHOP, StepStarted(RUN, "drain"), Revision(1))

    def test_who_and_why_ride_along(self) -> None:
        event = encode(NodeDetached("east-1"), json.dumps({"by": "ada"}).encode())
        assert json.loads(event.metadata) == {"by": "ada"}

    def test_a_topology_says_up_to_where_it_was_folded(self) -> None:
        assert (SHOP.version, OPERATED.version, JOINING.version) == (0, 1, 2)


# Whatever operators and nodes ask for, in any order.

NODES = st.sampled_from(["east-1", "west-1", "east-2", "west-2", "north-1"])
RUNS = st.sampled_from([RUN, OTHER_RUN])


def check_topology(topology: Topology) -> None:
    """What holds of every topology."""
    placed = [*topology.order, *topology.joining, *topology.detached]
    assert topology.head in topology.order
    assert len(placed) == len(set(placed)), "a node is in two places"
    assert set(placed) == set(topology.regions), "a node has no place, or no region"
    for node in topology.order:
        seen = {node}
        while (upstream := topology.upstream(node)) is not None:
            assert upstream not in seen, "a circle"
            seen.add(upstream)
            node = upstream
        assert node == topology.head


class Operators(RuleBasedStateMachine):
    """Two runs, and heads that ask for themselves, on one chain."""

    @initialize()
    def create(self) -> None:
        self.topology = SHOP
        self.granted = {Epoch(1): FIRST}

    def ask(self, command: Command) -> None:
        before = self.topology
        try:
            decisions = command(before)
        except (Refused, BadInput):
            return
        for decision in decisions:
            self.topology = recorded(self.topology, decision)
            if isinstance(decision, EpochGranted):
                assert self.topology.epoch == before.epoch + 1
                assert decision.epoch not in self.granted
                self.granted[decision.epoch] = decision.promotion
        assert command(self.topology) == (), "done once, there is nothing left to do"

    @rule(
        ahead=st.integers(-1, 2),
        node=NODES,
        run=RUNS | st.none(),
        lost=st.none() | NODES,
        nth=st.integers(0, 3),
    )
    def grant(self, ahead: int, node: str, run: UUID | None, lost: str | None, nth: int) -> None:
        epoch, out = Epoch(self.topology.epoch + ahead), () if lost is None else (lost,)
        self.ask(grant(epoch, uuid5(PROMOTION, f"{epoch}/{nth}"), node, GROUND, run=run, detach=out))

    @rule(position=st.integers(1, 9))
    def begin_reign(self, position: int) -> None:
        self.ask(begin_reign(self.topology.epoch, self.topology.promotion, Position(position)))

    @rule(node=NODES, run=RUNS)
    def start_join(self, node: str, run: UUID) -> None:
        self.ask(start_join(node, node.split("-")[0], run=run))

    @rule(node=NODES)
    def hear_join(self, node: str) -> None:
        self.ask(hear_join(node, self.topology.epoch))

    @rule(node=NODES, run=RUNS)
    def finish_join(self, node: str, run: UUID) -> None:
        self.ask(finish_join(node, run=run))

    @rule(node=NODES, run=RUNS)
    def detach(self, node: str, run: UUID) -> None:
        self.ask(detach(node, run=run))

    @rule(run=RUNS)
    def start_run(self, run: UUID) -> None:
        self.ask(start_run(run, "switchover", {}, "ada"))

    @rule(run=RUNS, step=st.sampled_from(["drain", "promote"]))
    def finish_step(self, run: UUID, step: str) -> None:
        self.ask(finish_step(run, step, {}))

    @rule(run=RUNS)
    def finish_run(self, run: UUID) -> None:
        self.ask(finish_run(run, "done"))

    @rule(command=st.sampled_from([pause_automation("ada", ""), resume_automation(), acknowledge_failover()]))
    def govern(self, command: Command) -> None:
        self.ask(command)

    @invariant()
    def holds(self) -> None:
        check_topology(self.topology)
        assert self.granted[self.topology.epoch] == self.topology.promotion
        assert sorted(self.granted) == list(range(1, self.topology.epoch + 1))


TestOperators = Operators.TestCase
TestOperators.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@pytest.mark.parametrize(
    "order",
    [
        pytest.param(("west-1", *JOINING.order), id="a grant that leaves the head where it was, too"),
        pytest.param((*JOINING.order, "west-2"), id="a join that finishes and goes on"),
        pytest.param(("north-1", *JOINING.order), id="a head that the chain never had"),
    ],
)
def test_the_check_of_topologies_can_fail(order: tuple[str, ...]) -> None:
    with pytest.raises(AssertionError):
        check_topology(replace(JOINING, order=order))
