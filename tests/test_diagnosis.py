"""From what was seen to the signs that the rules go by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from math import inf
from typing import Any, ClassVar
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chain.config import AutomationConfig
from chain.event import EMPTY, Epoch, Position, Tip
from chain.store import Ground, NodeState, Role
from chain.topology import Run, RunStep, Topology
from failover.diagnosis import Candidate, Diagnosis, Follower, Head, Unfinished, diagnose
from failover.observer import Picture, Sight

NOW_S = 1000.0
"""By the observer's own clock."""
CLOCK = datetime(2026, 6, 1, tzinfo=UTC)
"""By the registry's."""
EPOCH = Epoch(3)
POLICY = AutomationConfig(policy="automatic", loss_events=100)
"""Besides: 60 s behind at most, 300 s to cool down, 30 s until a follower is lost."""
ORDER = ("east-1", "west-1", "east-2")
REGIONS = {"east-1": "east", "west-1": "west", "east-2": "east"}
TOPOLOGY = Topology("shop", REGIONS, "east", EPOCH, UUID(int=1), ORDER, Ground(EMPTY, CLOCK))
PREPARED = RunStep("choose-candidate", {"node": "west-1"})


def state(node: str, role: Role, position: int, **other: Any) -> NodeState:
    said = {"epoch": EPOCH, "reign": Epoch(EPOCH if role is Role.HEAD else 0), **other}
    return NodeState(
        identity=None,
        role=role,
        promotion=None,
        upstream=None,
        tip=Tip(Position(position), EPOCH),
        clock=CLOCK,
        restarted=False,
        **said,
    )


def link(lag: int = 0, cut_off_s: float = 0.0, state: str = "streaming") -> Mapping[str, Any]:
    return {"link": {"state": state, "lag_events": lag, "cut_off_s": cut_off_s}}


def sight(node: str, role: Role, position: int = 500, **other: Any) -> Sight:
    daemon = {"link": None} if role in (Role.HEAD, Role.DETACHED) else link()
    return Sight(node, node.split("-")[0], state(node, role, position), NOW_S, daemon=daemon, **other)


def gone(sight: Sight, since_s: float = 10.0) -> Sight:
    """The whole node is out of reach; its last words stay."""
    since = NOW_S - since_s
    return replace(sight, lost_since=since, daemon_lost_since=since, trouble=f"{sight.node}: no answer")


EAST = sight("east-1", Role.HEAD)
WEST = sight("west-1", Role.MIDDLE)
TAIL = sight("east-2", Role.TAIL)
WELL = Picture(
    at=NOW_S,
    topology=TOPOLOGY,
    registry_lost_since=None,
    unrenewed_s=0.0,
    registry_clock_s=CLOCK.timestamp(),
    lease_left_s=2.0,
    leased=True,
    sights={"east-1": EAST, "west-1": WEST, "east-2": TAIL},
)


def seen(*sights: Sight, picture: Picture = WELL, **other: Any) -> Picture:
    """The picture with these sights in the place of what was seen of the same nodes."""
    return replace(picture, sights={**picture.sights, **{s.node: s for s in sights}}, **other)


def decided(picture: Picture = WELL, **other: Any) -> Picture:
    assert picture.topology is not None
    return replace(picture, topology=replace(picture.topology, **other))


def run(*steps: RunStep) -> Run:
    return Run(UUID(int=2), "switchover", {}, "ada", Epoch(4), steps)


LOST = seen(gone(EAST), lease_left_s=0.0)


class TestWell:
    def test_a_chain_as_decided_shows_no_sign_of_anything(self) -> None:
        diagnosis = diagnose(WELL, POLICY)
        signs = diagnosis.signs
        assert (signs.registry, signs.automatic, signs.head) == (True, True, Head.WELL)
        assert (signs.paused, signs.cooling, signs.returning, signs.homesick) == (False, False, False, False)
        assert (signs.unfinished, signs.lost) == (Unfinished.NOTHING, Follower.NONE)
        assert (diagnosis.head, diagnosis.lost, diagnosis.returning, diagnosis.why) == (
            "east-1",
            None,
            None,
            "",
        )

    def test_a_policy_by_hand_is_a_sign(self) -> None:
        assert not diagnose(WELL, AutomationConfig(policy="manual")).signs.automatic


class TestRegistry:
    @pytest.mark.parametrize("picture", [LOST, replace(LOST, topology=None)], ids=["lost", "never read"])
    def test_without_it_nothing_is_thought_of_anyone(self, picture: Picture) -> None:
        away = replace(picture, registry_lost_since=NOW_S - 100)
        signs = diagnose(away, POLICY).signs
        assert not signs.registry
        assert signs == diagnose(seen(picture=away, lease_left_s=2.0), POLICY).signs
        assert signs.head is Head.WAITING

    def test_the_head_that_was_last_known_is_named(self) -> None:
        assert diagnose(replace(LOST, registry_lost_since=NOW_S), POLICY).head == "east-1"


class TestHead:
    def head(self, picture: Picture) -> Head:
        return diagnose(picture, POLICY).signs.head

    UNWELL: ClassVar = {
        "out of reach": gone(EAST),
        "never seen": Sight("east-1", "east", lost_since=NOW_S - 10),
        "lease expired": replace(EAST, state=state("east-1", Role.HEAD, 500, lease_left_s=-0.1)),
        "fenced": replace(EAST, state=state("east-1", Role.HEAD, 500, epoch=Epoch(4))),
        "of an older reign": replace(EAST, state=state("east-1", Role.HEAD, 500, epoch=2, reign=2)),
        "a follower": replace(EAST, state=state("east-1", Role.TAIL, 500)),
        "clock stepped back": replace(EAST, state=state("east-1", Role.HEAD, 500, clock_is_back=True)),
    }

    @pytest.mark.parametrize("leased", [True, False])
    def test_by_its_own_word_it_takes_writes(self, leased: bool) -> None:
        assert self.head(replace(WELL, leased=leased)) is Head.WELL

    @pytest.mark.parametrize("left_s", [2.0, 0.001, None])
    def test_before_anything_is_certain_of_its_lease_its_word_holds(self, left_s: float | None) -> None:
        assert self.head(replace(WELL, lease_left_s=left_s)) is Head.WELL

    @pytest.mark.parametrize("how", UNWELL)
    @pytest.mark.parametrize("left_s", [2.0, 0.001, None])
    def test_while_its_lease_runs_it_is_waited_for(self, how: str, left_s: float | None) -> None:
        assert self.head(seen(self.UNWELL[how], lease_left_s=left_s)) is Head.WAITING

    @pytest.mark.parametrize("how", UNWELL)
    def test_it_is_lost_once_its_lease_ran_out_and_nobody_speaks_for_it(self, how: str) -> None:
        assert self.head(seen(self.UNWELL[how], lease_left_s=0.0)) is Head.LOST

    @pytest.mark.parametrize("how", UNWELL)
    def test_without_a_lease_nothing_proves_it_lost(self, how: str) -> None:
        assert self.head(seen(self.UNWELL[how], lease_left_s=None, leased=False)) is Head.UNPROVEN

    def test_it_goes_on_by_its_own_word_though_its_lease_is_not_renewed(self) -> None:
        assert self.head(replace(WELL, lease_left_s=0.0)) is Head.FAILSAFE

    @pytest.mark.parametrize("who", [WEST, TAIL], ids=["the middle", "the tail"])
    def test_it_goes_on_while_a_follower_promises_it_not_to_be_promoted(self, who: Sight) -> None:
        assert who.state is not None
        promising = replace(who, state=replace(who.state, promised=True))
        assert self.head(seen(promising, picture=LOST)) is Head.FAILSAFE
        assert self.head(seen(gone(promising), picture=LOST)) is Head.LOST, (
            "an old promise counts for nothing"
        )

    def test_what_it_said_last_is_no_word_of_today(self) -> None:
        assert EAST.state is not None
        assert EAST.state.writable
        assert self.head(LOST) is Head.LOST

    @given(st.none() | st.floats(0, 10), st.booleans(), st.sampled_from([EAST, *UNWELL.values()]))
    def test_it_is_lost_only_if_a_lease_ran_out(
        self, left_s: float | None, leased: bool, east: Sight
    ) -> None:
        lost = self.head(seen(east, lease_left_s=left_s, leased=leased)) is Head.LOST
        assert lost is (leased and left_s == 0 and east is not EAST)


class TestCandidate:
    def lost(self, *sights: Sight, policy: AutomationConfig = POLICY, picture: Picture = LOST) -> Diagnosis:
        diagnosis = diagnose(seen(*sights, picture=picture), policy)
        assert diagnosis.signs.head is Head.LOST
        return diagnosis

    def at(self, who: Sight, position: int, epoch: Epoch = EPOCH, **said: Any) -> Sight:
        assert who.state is not None
        known = replace(who.state, tip=Tip(Position(position), epoch))
        return replace(who, state=known, daemon=link(**said) if said else who.daemon)

    def test_the_one_with_the_longest_log_of_the_newest_epoch(self) -> None:
        assert self.lost().candidate == "west-1"
        assert self.lost(self.at(WEST, 400)).candidate == "east-2"
        assert self.lost(self.at(WEST, 900, Epoch(2))).candidate == "east-2"

    def test_only_who_can_be_reached_now(self) -> None:
        assert self.lost(gone(WEST)).candidate == "east-2"
        nobody = self.lost(gone(WEST), gone(TAIL))
        assert (nobody.candidate, nobody.signs.candidate) == (None, Candidate.NONE)

    def test_only_who_may_be_head(self) -> None:
        never = POLICY.model_copy(update={"never": ("west-1",)})
        assert self.lost(policy=never).candidate == "east-2"
        all_never = POLICY.model_copy(update={"never": ("west-1", "east-2")})
        assert self.lost(policy=all_never).signs.candidate is Candidate.NONE

    def test_only_members(self) -> None:
        other = sight("west-2", Role.TAIL, 9999)
        outside = decided(LOST, regions={**REGIONS, "west-2": "west"})
        joining = decided(outside, joining=("west-2",))
        assert self.lost(other, picture=outside).candidate == "west-1"
        assert self.lost(other, picture=joining).candidate == "west-1"

    def test_a_chain_of_one_has_none(self) -> None:
        alone = decided(LOST, order=("east-1",))
        assert self.lost(picture=alone).signs.candidate is Candidate.NONE

    @pytest.mark.parametrize(("position", "candidate"), [(400, Candidate.GOOD), (399, Candidate.BEHIND)])
    def test_no_more_events_are_left_behind_than_the_budget_allows(
        self, position: int, candidate: Candidate
    ) -> None:
        diagnosis = self.lost(self.at(WEST, position), gone(TAIL))
        assert (diagnosis.signs.candidate, diagnosis.loss_events) == (candidate, 500 - position)

    @pytest.mark.parametrize(("lag", "candidate"), [(100, Candidate.GOOD), (101, Candidate.BEHIND)])
    def test_who_follows_the_head_may_know_of_more_than_was_seen_of_it(
        self, lag: int, candidate: Candidate
    ) -> None:
        diagnosis = self.lost(self.at(WEST, 500, lag=lag))
        assert (diagnosis.signs.candidate, diagnosis.loss_events) == (candidate, lag)

    def test_who_follows_a_node_that_is_behind_does_not_know_what_the_head_had(self) -> None:
        unseen = Sight("east-1", "east", lost_since=NOW_S - 10)
        diagnosis = self.lost(unseen, self.at(WEST, 300, lag=5000), self.at(TAIL, 300, lag=0))
        assert (diagnosis.loss_events, diagnosis.signs.candidate) == (5000, Candidate.BEHIND)
        last_words = gone(self.at(WEST, 300, lag=5000))
        assert self.lost(unseen, last_words).loss_events == 4800
        nothing = replace(gone(WEST), daemon=None)
        assert self.lost(unseen, nothing).loss_events is None

    @pytest.mark.parametrize(("cut_off_s", "candidate"), [(60.0, Candidate.GOOD), (60.1, Candidate.BEHIND)])
    def test_nobody_is_promoted_who_was_cut_off_for_longer_than_the_budget_allows(
        self, cut_off_s: float, candidate: Candidate
    ) -> None:
        diagnosis = self.lost(self.at(WEST, 500, cut_off_s=cut_off_s))
        assert (diagnosis.signs.candidate, diagnosis.behind_s) == (candidate, cut_off_s)

    def test_what_came_after_the_head_was_last_known_to_live_does_not_count(self) -> None:
        """However late it is judged: after the cool-down, or when the controllers are back."""
        late = replace(LOST, unrenewed_s=500.0)
        diagnosis = self.lost(self.at(WEST, 500, cut_off_s=504.0), picture=late)
        assert (diagnosis.behind_s, diagnosis.signs.candidate) == (4.0, Candidate.GOOD)
        sooner = self.lost(self.at(WEST, 500, cut_off_s=499.0), picture=late)
        assert sooner.behind_s == 0.0

    def test_a_daemon_that_says_nothing_any_more_may_have_copied_nothing_since(self) -> None:
        silent = replace(WEST, daemon_lost_since=NOW_S - 90)
        diagnosis = self.lost(silent)
        assert (diagnosis.behind_s, diagnosis.signs.candidate) == (90.0, Candidate.BEHIND)
        assert self.lost(replace(WEST, daemon_lost_since=NOW_S - 5)).signs.candidate is Candidate.GOOD

    @pytest.mark.parametrize("daemon", [None, {}, {"link": None}], ids=str)
    def test_what_is_not_known_is_no_good(self, daemon: Mapping[str, Any] | None) -> None:
        diagnosis = self.lost(replace(WEST, daemon=daemon))
        assert (diagnosis.signs.candidate, diagnosis.behind_s) == (Candidate.BEHIND, None)
        unseen = Sight("east-1", "east", lost_since=NOW_S - 10)
        assert self.lost(unseen, replace(WEST, daemon=daemon)).loss_events is None

    def test_a_budget_of_nothing_allows_nothing(self) -> None:
        strict = POLICY.model_copy(update={"loss_events": 0, "loss_seconds": 0.0})
        assert self.lost(policy=strict).signs.candidate is Candidate.GOOD
        assert self.lost(self.at(WEST, 499), gone(TAIL), policy=strict).signs.candidate is Candidate.BEHIND

    def test_who_is_ahead_of_what_was_seen_of_the_head_lacks_nothing(self) -> None:
        assert self.lost(self.at(WEST, 600)).loss_events == 0

    @given(st.integers(0, 900), st.integers(0, 900), st.integers(0, 900), st.integers(0, 900))
    def test_good_means_within_the_budget_of_all_that_was_seen(
        self, head: int, west: int, tail: int, lag: int
    ) -> None:
        east = self.at(gone(EAST), head)
        diagnosis = self.lost(east, self.at(WEST, west, lag=lag), self.at(TAIL, tail))
        assert diagnosis.loss_events == max(0, max(head, west + lag) - max(west, tail))
        assert (diagnosis.signs.candidate is Candidate.GOOD) is (diagnosis.loss_events <= POLICY.loss_events)


class TestPauses:
    def test_who_paused_and_why_is_said_before_any_trouble(self) -> None:
        paused = diagnose(decided(LOST, paused="by ada: a drill"), POLICY)
        assert (paused.signs.paused, paused.why) == (True, "by ada: a drill")
        assert diagnose(LOST, POLICY).why == "east-1: no answer"

    @pytest.mark.parametrize(("ago_s", "cooling"), [(0, True), (299, True), (300, False), (1e6, False)])
    def test_a_failover_is_followed_by_a_cool_down_of_the_registrys_clock(
        self, ago_s: float, cooling: bool
    ) -> None:
        picture = decided(failed_over_at=CLOCK - timedelta(seconds=ago_s))
        assert diagnose(picture, POLICY).signs.cooling is cooling

    def test_one_that_was_acknowledged_is_not(self) -> None:
        assert not diagnose(decided(failed_over_at=None), POLICY).signs.cooling

    def test_a_cool_down_of_nothing_is_none(self) -> None:
        off = POLICY.model_copy(update={"cool_down": 0.0})
        assert not diagnose(decided(failed_over_at=CLOCK), off).signs.cooling


class TestUnfinished:
    @pytest.mark.parametrize(
        ("steps", "unfinished"),
        [
            ((), Unfinished.OTHER),
            ((PREPARED,), Unfinished.OTHER),
            ((PREPARED, RunStep("begin-join")), Unfinished.OTHER),
            ((PREPARED, RunStep("fence-head")), Unfinished.MOVE),
            ((PREPARED, RunStep("fence-head-if-reachable", {"fenced": False})), Unfinished.MOVE),
            ((PREPARED, RunStep("end-lease")), Unfinished.MOVE),
            ((RunStep("grant-epoch", {}), RunStep("promote")), Unfinished.MOVE),
        ],
    )
    def test_a_move_is_one_once_it_began_to_take_the_heads_place_away(
        self, steps: tuple[RunStep, ...], unfinished: Unfinished
    ) -> None:
        assert diagnose(decided(run=run(*steps)), POLICY).signs.unfinished is unfinished

    def test_no_run_is_none(self) -> None:
        assert diagnose(WELL, POLICY).signs.unfinished is Unfinished.NOTHING


class TestLostFollower:
    def lost(self, *sights: Sight, picture: Picture = WELL) -> tuple[str | None, Follower]:
        diagnosis = diagnose(seen(*sights, picture=picture), POLICY)
        return diagnosis.lost, diagnosis.signs.lost

    @pytest.mark.parametrize(("since_s", "lost"), [(30.0, True), (29.9, False), (0.0, False)])
    def test_it_is_given_time_to_come_back(self, since_s: float, lost: bool) -> None:
        assert (self.lost(gone(TAIL, since_s)) == ("east-2", Follower.TAIL)) is lost
        assert (self.lost(gone(WEST, since_s)) == ("west-1", Follower.MIDDLE)) is lost

    def test_a_middle_before_a_tail_for_others_hang_on_it(self) -> None:
        assert self.lost(gone(WEST, 40), gone(TAIL, 900)) == ("west-1", Follower.MIDDLE)

    def test_the_last_follower_is_never_given_up(self) -> None:
        two = decided(order=ORDER[:2], regions={n: REGIONS[n] for n in ORDER[:2]})
        assert self.lost(gone(WEST, 1e6), picture=two) == (None, Follower.NONE)

    def test_the_head_is_no_follower(self) -> None:
        assert self.lost(gone(EAST, 1e6)) == (None, Follower.NONE)

    def test_one_whose_daemon_is_gone_copies_nothing_and_is_lost(self) -> None:
        """Its store answers; who follows it gets nothing."""
        assert self.lost(replace(WEST, daemon_lost_since=NOW_S - 40)) == ("west-1", Follower.MIDDLE)
        assert self.lost(replace(WEST, daemon_lost_since=NOW_S - 20)) == (None, Follower.NONE)

    def test_one_that_was_not_looked_at_yet_is_not_lost(self) -> None:
        assert self.lost(picture=replace(WELL, sights={"east-1": EAST})) == (None, Follower.NONE)


class TestReturning:
    OUTSIDE = decided(regions={**REGIONS, "west-2": "west"})
    BACK = sight("west-2", Role.DETACHED, 77)

    def returning(self, who: Sight, picture: Picture = OUTSIDE, **resting: Any) -> str | None:
        diagnosis = diagnose(seen(who, picture=picture), POLICY, **resting)
        assert diagnosis.signs.returning is (diagnosis.returning is not None)
        return diagnosis.returning

    def test_one_that_is_up_with_its_daemon(self) -> None:
        assert self.returning(self.BACK) == "west-2"

    def test_one_that_the_chain_never_had(self) -> None:
        assert self.returning(self.BACK, WELL) == "west-2"

    def test_not_before_both_its_store_and_its_daemon_answer(self) -> None:
        assert self.returning(gone(self.BACK)) is None
        assert self.returning(replace(self.BACK, daemon=None)) is None
        assert self.returning(replace(self.BACK, daemon_lost_since=NOW_S)) is None
        assert self.returning(replace(self.BACK, state=None)) is None

    def test_not_one_that_failed_a_moment_ago(self) -> None:
        assert self.returning(self.BACK, resting=["west-2"]) is None
        assert self.returning(self.BACK, resting=["west-1", "node-returns"]) == "west-2"

    def test_one_that_a_person_keeps_outside_is_left_there(self) -> None:
        assert self.returning(self.BACK, self.OUTSIDE) == "west-2"
        assert self.returning(self.BACK, decided(self.OUTSIDE, kept_out=("west-2",))) is None

    def test_one_that_had_begun_to_join_is_brought_in(self) -> None:
        assert self.returning(self.BACK, decided(self.OUTSIDE, joining=("west-2",))) == "west-2"

    def test_not_against_the_policy(self) -> None:
        policy = POLICY.model_copy(update={"rejoin": False})
        assert not diagnose(seen(self.BACK, picture=self.OUTSIDE), policy).signs.returning

    @pytest.mark.parametrize(("position", "empty"), [(0, True), (1, False)])
    def test_an_empty_one_is_told_from_one_with_a_past(self, position: int, empty: bool) -> None:
        back = sight("west-2", Role.DETACHED, position)
        assert diagnose(seen(back, picture=self.OUTSIDE), POLICY).empty is empty


class TestHomesick:
    HOMING = POLICY.model_copy(update={"come_home": True})
    AWAY = seen(
        sight("west-1", Role.HEAD),
        sight("east-1", Role.MIDDLE),
        TAIL,
        picture=decided(order=("west-1", "east-1", "east-2")),
    )

    def homesick(self, *sights: Sight, picture: Picture = AWAY, policy: Any = HOMING, **other: Any) -> bool:
        return diagnose(seen(*sights, picture=picture), policy, **other).signs.homesick

    def test_a_head_away_from_a_home_that_is_whole(self) -> None:
        assert self.homesick()

    def test_a_head_at_home_is_not(self) -> None:
        assert not self.homesick(picture=WELL)

    def test_not_against_the_policy(self) -> None:
        assert not self.homesick(policy=POLICY)

    @pytest.mark.parametrize("how", ["lost", "silent", "copying", "detached", "unseen"])
    @pytest.mark.parametrize("node", ["east-1", "east-2"])
    def test_not_before_the_whole_chain_streams(self, node: str, how: str) -> None:
        who = self.AWAY.sights[node]
        assert who.state is not None
        changed = {
            "lost": gone(who, 0.1),
            "silent": replace(who, daemon_lost_since=NOW_S),
            "copying": replace(who, daemon=link(state="probing")),
            "detached": replace(who, state=replace(who.state, role=Role.DETACHED)),
            "unseen": Sight(node, "east"),
        }
        assert not self.homesick(changed[how])

    def test_not_while_a_node_is_outside_or_joins(self) -> None:
        outside = decided(self.AWAY, regions={**REGIONS, "west-2": "west"})
        assert not self.homesick(picture=outside)
        assert not self.homesick(picture=decided(outside, joining=("west-2",)))

    def test_not_if_nobody_at_home_may_be_head(self) -> None:
        never = self.HOMING.model_copy(update={"never": ("east-1", "east-2")})
        assert not self.homesick(policy=never)
        assert self.homesick(policy=self.HOMING.model_copy(update={"never": ("east-1",)}))
        abroad = decided(self.AWAY, regions=dict.fromkeys(ORDER, "west"))
        assert not self.homesick(picture=abroad)

    def test_not_if_going_home_failed_a_moment_ago(self) -> None:
        assert not self.homesick(resting=["west-1"])


def test_a_lease_without_an_end_is_a_head_that_is_well() -> None:
    east = replace(EAST, state=state("east-1", Role.HEAD, 500, lease_left_s=inf))
    assert diagnose(seen(east), POLICY).signs.head is Head.WELL
