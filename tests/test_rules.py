"""The table of rules, over every combination of signs that there can be."""

from __future__ import annotations

import string
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from enum import Enum
from itertools import product
from pathlib import Path
from typing import Any, get_type_hints

import pytest

import failover
from failover.diagnosis import Candidate, Diagnosis, Follower, Head, Signs, Unfinished
from failover.playbook import load_playbook
from failover.rules import RULES, Action, Judgement, Rule, judge, table

GOLDEN = Path(failover.__file__).parent.parent / "docs" / "rules.md"

ACTING = (Action.RUN, Action.RESUME)
WELL = Signs(
    registry=True,
    paused=False,
    automatic=True,
    head=Head.WELL,
    candidate=Candidate.GOOD,
    cooling=False,
    unfinished=Unfinished.NOTHING,
    lost=Follower.NONE,
    returning=False,
    homesick=False,
)
KNOWN = Diagnosis(
    WELL,
    head="east-1",
    candidate="west-1",
    loss_events=1234,
    behind_s=0.25,
    lost="west-1",
    returning="west-2",
    lease_left_s=1.5,
    why="by ada: a drill",
)


def all_signs() -> Iterator[Signs]:
    """Every value of every sign with every value of every other."""
    hints = get_type_hints(Signs)
    kinds: list[Any] = [hints[field.name] for field in fields(Signs)]
    values: list[tuple[Any, ...]] = [(False, True) if kind is bool else tuple(kind) for kind in kinds]
    for combination in product(*values):
        yield Signs(*combination)


def judgements() -> Iterator[tuple[Signs, Judgement]]:
    for signs in all_signs():
        yield signs, judge(replace(KNOWN, signs=signs), never=("east-2",))


def check_reachable(rules: Sequence[Rule]) -> None:
    """Each rule holds of some signs that no rule before it holds of; of all signs one holds."""
    firing = {next((r.name for r in rules if r.when(signs)), None) for signs in all_signs()}
    assert None not in firing, "there are signs that no rule says anything of"
    assert [rule.name for rule in rules if rule.name not in firing] == [], "rules that never fire"


class TestTable:
    def test_the_documented_rules_are_the_ones_that_hold(self) -> None:
        heading, _, rows = GOLDEN.read_text().partition("| nr |")
        assert heading.startswith("# ")
        assert "| nr |" + rows == table(), "write it anew: chainctl explain --rules"

    def test_every_rule_can_fire_and_the_last_catches_all(self) -> None:
        check_reachable(RULES)
        assert all(RULES[-1].when(signs) for signs in all_signs())
        assert RULES[-1].action is Action.WAIT

    @pytest.mark.parametrize("nr", range(len(RULES) - 1))
    def test_a_rule_that_another_shadows_would_be_found(self, nr: int) -> None:
        shadow = replace(RULES[nr], name="shadow")
        with pytest.raises(AssertionError, match="never fire"):
            check_reachable((*RULES[:nr], shadow, *RULES[nr:]))

    def test_a_row_behind_the_last_and_one_that_several_shadow_together_would_be_found(self) -> None:
        late = Rule("late", lambda s: s.head is Head.LOST, "Too late.")
        odd = Rule("odd", lambda s: not s.registry or s.paused, "Neither.")
        for rules in ((*RULES, late), (*RULES[:2], odd, *RULES[2:])):
            with pytest.raises(AssertionError, match="never fire"):
                check_reachable(rules)

    def test_a_table_that_leaves_signs_out_would_be_found(self) -> None:
        with pytest.raises(AssertionError, match="no rule says anything"):
            check_reachable(RULES[:-1])

    def test_all_signs_are_all_of_them(self) -> None:
        signs = list(all_signs())
        assert (
            len(signs)
            == len(set(signs))
            == 2**6 * len(Head) * len(Candidate) * len(Unfinished) * len(Follower)
        )

    def test_names_are_names(self) -> None:
        names = [rule.name for rule in RULES]
        assert len(names) == len(set(names))
        assert all(set(name) <= {*string.ascii_lowercase, "-"} for name in names)

    def test_who_runs_a_playbook_names_one_that_there_is_and_nobody_else_does(self) -> None:
        for rule in RULES:
            assert (rule.action is Action.RUN) is bool(rule.playbook)
            assert not rule.playbook or load_playbook(rule.playbook)


def nothing_acts_unless_it_may(signs: Signs, judgement: Judgement) -> bool:
    may = signs.registry and signs.automatic and not signs.paused
    return may or judgement.rule.action not in ACTING


def a_head_is_replaced_only_if_lost_and_well_replaced(signs: Signs, judgement: Judgement) -> bool:
    certain = signs.head is Head.LOST and signs.candidate is Candidate.GOOD and not signs.cooling
    return certain or judgement.playbook != "failover"


def no_head_that_is_in_doubt_is_moved(signs: Signs, judgement: Judgement) -> bool:
    """But a move that has begun is carried on."""
    doubtful = signs.head in (Head.FAILSAFE, Head.WAITING, Head.UNPROVEN)
    return not doubtful or judgement.rule.action is not Action.RUN


def nobody_is_taken_out_or_brought_in_while_the_head_is_not_well(signs: Signs, judgement: Judgement) -> bool:
    members = ("failover-middle", "detach", "rejoin", "bootstrap-tail", "failback")
    return judgement.playbook not in members or signs.head is Head.WELL


def only_a_failover_ends_what_is_under_way(signs: Signs, judgement: Judgement) -> bool:
    begins = judgement.rule.action is Action.RUN and judgement.playbook != "failover"
    return not begins or signs.unfinished is Unfinished.NOTHING


def a_move_of_the_head_is_never_cut_short(signs: Signs, judgement: Judgement) -> bool:
    return signs.unfinished is not Unfinished.MOVE or judgement.rule.action is not Action.RUN


def what_is_carried_on_there_is(signs: Signs, judgement: Judgement) -> bool:
    return judgement.rule.action is not Action.RESUME or signs.unfinished is not Unfinished.NOTHING


def nobody_is_told_that_all_is_well_while_it_is_not(signs: Signs, judgement: Judgement) -> bool:
    calm = replace(signs, automatic=True, candidate=Candidate.GOOD, cooling=False) == WELL
    return calm is (judgement.rule.name == "steady")


PROPERTIES = (
    nothing_acts_unless_it_may,
    a_head_is_replaced_only_if_lost_and_well_replaced,
    no_head_that_is_in_doubt_is_moved,
    nobody_is_taken_out_or_brought_in_while_the_head_is_not_well,
    only_a_failover_ends_what_is_under_way,
    a_move_of_the_head_is_never_cut_short,
    what_is_carried_on_there_is,
    nobody_is_told_that_all_is_well_while_it_is_not,
)
Property = Callable[[Signs, Judgement], bool]


class TestProperties:
    @pytest.mark.parametrize("holds", PROPERTIES)
    def test_it_holds_of_every_combination(self, holds: Property) -> None:
        assert [(s, j.rule.name) for s, j in judgements() if not holds(s, j)] == []

    @pytest.mark.parametrize("holds", PROPERTIES)
    def test_each_property_can_fail(self, holds: Property) -> None:
        rules = {rule.name: Judgement(0, rule, "", rule.playbook) for rule in RULES}
        assert not all(holds(s, j) for s in all_signs() for j in rules.values())

    def test_a_lost_head_is_replaced_whatever_else_is_wrong_but_a_move_under_way(self) -> None:
        lost = replace(WELL, head=Head.LOST)
        for signs, judgement in judgements():
            same = replace(signs, lost=Follower.NONE, returning=False, homesick=False)
            if (
                replace(same, unfinished=Unfinished.NOTHING) == lost
                and signs.unfinished is not Unfinished.MOVE
            ):
                assert (judgement.rule.action, judgement.playbook) == (Action.RUN, "failover")

    def test_by_hand_the_same_is_thought_and_a_person_is_asked(self) -> None:
        for signs, judgement in judgements():
            if judgement.rule.action in ACTING:
                by_hand = judge(replace(KNOWN, signs=replace(signs, automatic=False)))
                assert by_hand.rule.action in (Action.ASK, Action.WAIT), by_hand.rule.name
                if signs.unfinished is not Unfinished.MOVE:
                    assert by_hand.rule.action is Action.ASK


class TestSentence:
    @pytest.mark.parametrize("known", [KNOWN, Diagnosis(WELL)], ids=["all known", "nothing known"])
    def test_every_sentence_can_be_said(self, known: Diagnosis) -> None:
        for signs in all_signs():
            judgement = judge(replace(known, signs=signs))
            assert judgement.sentence
            assert not {"{", "}", "None"} & {*judgement.sentence, *judgement.sentence.split()}

    @pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
    def test_it_names_what_a_diagnosis_knows(self, rule: Rule) -> None:
        names = {name for _, name, _, _ in string.Formatter().parse(rule.sentence) if name}
        assert names <= {field.name for field in fields(Diagnosis)}
        assert rule.sentence.endswith((".", "you know."))

    def test_names_and_numbers_are_said_as_people_read_them(self) -> None:
        behind = replace(WELL, head=Head.LOST, candidate=Candidate.BEHIND)
        said = judge(replace(KNOWN, signs=behind)).sentence
        assert said.startswith("east-1 is lost. west-1 may lack 1,234 events, or was cut off for 0.2 s")
        unknown = judge(Diagnosis(behind, head="east-1", candidate="west-1")).sentence
        assert "may lack ? events, or was cut off for ? s" in unknown

    def test_a_name_with_braces_breaks_no_sentence(self) -> None:
        assert "{0}" in judge(replace(KNOWN, signs=replace(WELL, head=Head.LOST), head="{0}")).sentence

    def test_a_pause_is_said_with_who_and_why(self) -> None:
        said = judge(replace(KNOWN, signs=replace(WELL, paused=True))).sentence
        assert said == "Automation is paused by ada: a drill. chainctl resume lets it go on."


class TestParameters:
    def parameters(self, known: Diagnosis = KNOWN, never: tuple[str, ...] = (), **signs: Any) -> Any:
        judgement = judge(replace(known, signs=replace(WELL, **signs)), never)
        return judgement.playbook, dict(judgement.parameters)

    def test_the_number_is_that_of_the_documented_row(self) -> None:
        for _, judgement in judgements():
            assert RULES[judgement.number - 1] is judgement.rule

    def test_a_playbook_is_told_what_it_takes(self) -> None:
        for _, judgement in judgements():
            if judgement.rule.action is Action.RUN:
                assert load_playbook(judgement.playbook).arguments(dict(judgement.parameters))
            else:
                assert (judgement.playbook, judgement.parameters) == ("", ())

    @pytest.mark.parametrize("signs", [{"head": Head.LOST}, {"homesick": True}], ids=str)
    def test_who_is_never_to_be_head_is_not_made_head(self, signs: dict[str, Any]) -> None:
        assert self.parameters(never=("a", "b"), **signs)[1] == {"never": "a,b"}
        assert self.parameters(**signs)[1] == {}

    def test_who_is_lost_is_taken_out_until_it_returns(self) -> None:
        gone = {"node": "west-1", "returns": True}
        assert self.parameters(lost=Follower.MIDDLE) == ("failover-middle", gone)
        assert self.parameters(lost=Follower.TAIL) == ("detach", gone)

    def test_who_returns_is_brought_in_from_its_log_or_from_nothing(self) -> None:
        assert self.parameters(returning=True) == ("rejoin", {"node": "west-2"})
        assert self.parameters(replace(KNOWN, empty=True), returning=True) == (
            "bootstrap-tail",
            {"node": "west-2"},
        )


def test_every_sign_is_a_flag_or_one_of_a_few() -> None:
    for kind in get_type_hints(Signs).values():
        assert kind is bool or issubclass(kind, Enum)
