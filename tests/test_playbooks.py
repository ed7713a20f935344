"""Playbooks: what geochain ships can be run, and what can't be run is refused when it is read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from importlib.resources import files
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

import failover.playbook
from chain.errors import BadFile, BadInput
from failover.document import MAX_BYTES
from failover.playbook import (
    Playbook,
    lint,
    load_playbook,
    parse_playbook,
    playbook_names,
    shipped_text,
)
from failover.steps import STEPS

SHIPPED = playbook_names()
SCHEMA = Path(failover.playbook.__file__).parent.parent / "playbooks" / "playbook.schema.json"

GOOD = """\
name: move
title: Moves something.
parameters:
  node: {type: node, required: true}
  most: {type: count, default: 7}
  sure: {type: flag, default: false}
  note: {type: text}
steps:
  - step: check-joining
  - step: begin-join
    timeout_s: 5
    undo: abandon-join
  - step: verify-node
    retry: 2
  - step: finish-join
    point_of_no_return: true
  - step: repoint
"""
STEPS_OF_GOOD = GOOD[GOOD.index("steps:") :]


def good(old: str, new: str) -> str:
    assert old in GOOD
    return GOOD.replace(old, new, 1)


def steps(*steps: str) -> str:
    """A playbook of these steps, the first on line 4."""
    return "name: move\ntitle: Moves something.\nsteps:\n" + "".join(f"  - {{{s}}}\n" for s in steps)


def faults(text: str) -> list[str]:
    """All that is wrong; what is read says the first of it, and where to see the others."""
    found = [str(fault) for fault in lint(text, "move.yaml")]
    if not found:
        assert parse_playbook(text, "move.yaml")
        return found
    with pytest.raises(BadFile) as caught:
        parse_playbook(text, "move.yaml")
    assert caught.value.message == found[0]
    assert "chainctl playbook lint" in caught.value.hint
    return found


def fault(text: str) -> str:
    found = faults(text)
    assert len(found) == 1, found
    return found[0]


class TestShipped:
    def test_the_operations_of_a_chain_are_all_there(self) -> None:
        operations = {"switchover", "failover", "failover-middle", "bootstrap-tail", "rejoin", "detach"}
        assert operations | {"rotate", "failback", "region-evacuation"} == set(SHIPPED)

    @pytest.mark.parametrize("name", SHIPPED)
    def test_nothing_is_wrong_with_any(self, name: str) -> None:
        assert lint(shipped_text(name), f"{name}.yaml") == ()

    @pytest.mark.parametrize("name", SHIPPED)
    def test_it_is_named_as_its_file_and_says_what_it_does(self, name: str) -> None:
        playbook = load_playbook(name)
        assert playbook.name == name
        assert playbook.title.endswith(".")

    @pytest.mark.parametrize("name", SHIPPED)
    def test_what_looks_comes_before_what_changes(self, name: str) -> None:
        looks = [STEPS[s.step].looks for s in load_playbook(name).steps]
        assert looks == sorted(looks, reverse=True)

    @pytest.mark.parametrize("name", SHIPPED)
    def test_it_fails_back_before_its_point_of_no_return_and_never_behind_it(self, name: str) -> None:
        playbook = load_playbook(name)
        point = playbook.point_of_no_return
        failing = [playbook.failing(step) for step in playbook.steps]
        assert failing == ["undo"] * (point + 1) + ["end"] * (len(failing) - point - 1)

    @pytest.mark.parametrize("name", SHIPPED)
    def test_a_run_carries_all_of_it_along_as_json(self, name: str) -> None:
        playbook = load_playbook(name)
        assert Playbook.model_validate_json(playbook.model_dump_json()) == playbook

    def test_only_a_failover_ends_the_run_of_another(self) -> None:
        assert [name for name in SHIPPED if load_playbook(name).urgent] == ["failover"]

    def test_only_an_evacuation_needs_an_approval_and_before_it_changes_anything(self) -> None:
        wanting = {n: [s.step for s in load_playbook(n).steps if s.approval] for n in SHIPPED}
        assert {n: steps for n, steps in wanting.items() if steps} == {"region-evacuation": ["fence-head"]}
        changing = [s.step for s in load_playbook("region-evacuation").steps if STEPS[s.step].changes]
        assert changing[0] == "fence-head"

    def test_a_playbook_that_there_is_not(self) -> None:
        with pytest.raises(BadInput, match="no playbook 'nope'") as caught:
            load_playbook("nope")
        assert "switchover" in caught.value.hint

    @pytest.mark.parametrize(
        "name", ["", "..", "../pyproject.toml", "/etc/passwd", "switchover.yaml", "playbook.schema.json"]
    )
    def test_a_name_that_is_a_path_reads_nothing(self, name: str) -> None:
        with pytest.raises(BadInput, match="there is no playbook"):
            load_playbook(name)


class TestSchema:
    def test_the_committed_schema_is_the_one_the_models_generate(self) -> None:
        assert SCHEMA.read_text() == json.dumps(Playbook.model_json_schema(), indent=2) + "\n", (
            "regenerate it: chainctl playbook schema > playbooks/playbook.schema.json"
        )

    def test_it_lies_beside_the_playbooks_and_is_none(self) -> None:
        assert (SCHEMA.parent / "switchover.yaml").exists()
        assert not [name for name in SHIPPED if "schema" in name]

    def test_every_section_is_closed_and_every_key_described(self) -> None:
        schema = Playbook.model_json_schema()
        for section in (schema, *schema["$defs"].values()):
            assert section["additionalProperties"] is False
            assert [k for k, v in section["properties"].items() if "description" not in v] == []

    def test_an_editor_offers_the_steps_that_there_are(self) -> None:
        step = Playbook.model_json_schema()["$defs"]["Step"]["properties"]
        offered = (step["step"], step["precheck"]["items"], step["undo"]["anyOf"][0])
        assert [each["enum"] for each in offered] == [sorted(STEPS)] * 3


class TestClosed:
    def test_the_example_is_good(self) -> None:
        assert faults(GOOD) == []

    @pytest.mark.parametrize(
        ("old", "new", "line", "field"),
        [
            ("    undo:", "    undoes:", 12, "steps.1.undoes"),
            ("title:", "titel:", 1, "title"),
            ("name: move\n", "name: move\nshell: ls\n", 2, "shell"),
            ("name: move", "name: Move It", 1, "name"),
            ("name: move", "name: [move]", 1, "name"),
            ("Moves something.", "''", 2, "title"),
            ("Moves something.", "2026-01-01", 2, "title"),
            ("required: true", "required: perhaps", 4, "parameters.node.required"),
            ("type: node", "type: shell", 4, "parameters.node.type"),
            ("type: node, ", "", 4, "parameters.node.type"),
            ("note:", "Note:", 7, "parameters.Note.[key]"),
            ("note:", "5:", 3, "parameters.5.[key]"),
            ("timeout_s: 5", "timeout_s: soon", 11, "steps.1.timeout_s"),
            ("timeout_s: 5", "timeout_s: 0", 11, "steps.1.timeout_s"),
            ("timeout_s: 5", "timeout_s: -1", 11, "steps.1.timeout_s"),
            ("timeout_s: 5", "timeout_s: .inf", 11, "steps.1.timeout_s"),
            ("timeout_s: 5", "timeout_s: .nan", 11, "steps.1.timeout_s"),
            ("timeout_s: 5", "timeout_s: 86401", 11, "steps.1.timeout_s"),
            ("timeout_s: 5", "timeout_s: [5]", 11, "steps.1.timeout_s"),
            ("retry: 2", "retry: -1", 14, "steps.2.retry"),
            ("retry: 2", "retry: 1000", 14, "steps.2.retry"),
            ("retry: 2", "on_failure: shrug", 14, "steps.2.on_failure"),
            ("retry: 2", "precheck: check-joining", 14, "steps.2.precheck"),
            ("step: repoint", "step: [repoint]", 17, "steps.4.step"),
            ("- step: repoint", "- timeout_s: 5", 17, "steps.4.step"),
            ("- step: repoint", "- repoint", 17, "steps.4"),
            ("point_of_no_return: true", "point_of_no_return: perhaps", 16, "steps.3.point_of_no_return"),
            (STEPS_OF_GOOD, "steps: promote\n", 8, "steps"),
            (STEPS_OF_GOOD, "steps:\n" + "  - step: repoint\n" * 101, 8, "steps"),
        ],
    )
    def test_a_fault_names_file_line_and_field(self, old: str, new: str, line: int, field: str) -> None:
        assert faults(good(old, new))[0].startswith(f"move.yaml:{line}: {field}: ")

    def test_all_faults_are_said_at_once(self) -> None:
        text = good("retry: 2", "retry: 100").replace("timeout_s: 5", "timeout_s: 0")
        assert [f.split(": ")[:2] for f in faults(text)] == [
            ["move.yaml:11", "steps.1.timeout_s"],
            ["move.yaml:14", "steps.2.retry"],
        ]

    @pytest.mark.parametrize("rest", ["steps: []\n", "", "use: switchover\n" + STEPS_OF_GOOD])
    def test_there_are_steps_or_the_use_of_another_playbook_and_not_both(self, rest: str) -> None:
        assert fault(good(STEPS_OF_GOOD, rest)).startswith("move.yaml:1: the whole: ")
        assert "either steps or `use`" in fault(good(STEPS_OF_GOOD, rest))

    @pytest.mark.parametrize("text", ["", "~", "5", "a text", "[]", "- step: promote"])
    def test_what_is_no_playbook_at_all(self, text: str) -> None:
        assert fault(text).startswith("move.yaml:1: the whole: ")

    def test_a_step_has_a_time_limit_even_if_none_is_given(self) -> None:
        assert 0 < parse_playbook(GOOD, "move.yaml").steps[0].timeout_s < float("inf")


class TestRules:
    """What the schema can't say. The steps begin on line 4."""

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            pytest.param(
                steps("step: explode", "step: repoint, point_of_no_return: true"),
                "4: there is no step 'explode'",
                id="a step that there is not",
            ),
            pytest.param(
                steps("step: repoint, undo: explode", "step: check-follower, point_of_no_return: true"),
                "4: there is no step 'explode'",
                id="an undo that there is not",
            ),
            pytest.param(
                steps("step: repoint, precheck: [explode], point_of_no_return: true"),
                "4: there is no step 'explode'",
                id="a precheck that there is not",
            ),
            pytest.param(
                steps("step: repoint", "step: repoint, point_of_no_return: true"),
                "5: repoint comes twice; the journal knows a step by its name",
                id="a step twice",
            ),
            pytest.param(
                steps("step: leave, point_of_no_return: true"),
                "4: leave needs check-follower or check-middle-lost before it",
                id="a step without what it needs before it",
            ),
            pytest.param(
                steps("step: leave, point_of_no_return: true", "step: check-follower"),
                "4: leave needs check-follower or check-middle-lost before it",
                id="a step with what it needs behind it",
            ),
            pytest.param(
                steps("step: check-joining", "step: begin-join", "step: repoint, point_of_no_return: true"),
                "5: begin-join changes the chain before the point of no return, without an undo",
                id="a change before the point of no return, and no way back",
            ),
            pytest.param(
                steps(
                    "step: check-joining", "step: begin-join, undo: abandon-join, point_of_no_return: true"
                ),
                "5: nothing is undone from the point of no return on",
                id="an undo at the point of no return",
            ),
            pytest.param(
                steps(
                    "step: check-joining, point_of_no_return: true", "step: begin-join, undo: abandon-join"
                ),
                "5: nothing is undone from the point of no return on",
                id="an undo behind it",
            ),
            pytest.param(
                steps("step: check-follower, point_of_no_return: true", "step: repoint, on_failure: undo"),
                "5: nothing is undone behind the point of no return",
                id="a failure behind it that would be undone",
            ),
            pytest.param(
                steps(
                    "step: check-joining",
                    "step: begin-join, undo: check-follower",
                    "step: repoint, point_of_no_return: true",
                ),
                "5: check-follower changes nothing, so it can't undo anything",
                id="an undo that looks",
            ),
            pytest.param(
                steps(
                    "step: check-joining",
                    "step: begin-join, undo: repoint",
                    "step: finish-join, point_of_no_return: true",
                ).replace("step: finish-join", "step: catch-up"),
                "5: repoint changes nothing, so it can't undo anything",
                id="an undo that waits",
            ),
            pytest.param(
                steps(
                    "step: check-joining",
                    "step: begin-join, undo: restore-head",
                    "step: repoint, point_of_no_return: true",
                ),
                "5: restore-head needs fence-head or fence-head-if-reachable before it",
                id="an undo of something that was not done",
            ),
            pytest.param(
                steps("step: check-follower", "step: leave, precheck: [repoint], point_of_no_return: true"),
                "5: repoint does more than look, so it is no precheck",
                id="a precheck that waits",
            ),
            pytest.param(
                steps(
                    "step: check-follower",
                    "step: leave, precheck: [check-follower, leave-region], point_of_no_return: true",
                ),
                "5: leave-region does more than look, so it is no precheck",
                id="a precheck that changes",
            ),
            pytest.param(
                steps("step: repoint, precheck: [check-candidate], point_of_no_return: true"),
                "4: check-candidate needs choose-candidate before it",
                id="a precheck without what it needs before it",
            ),
            pytest.param(
                steps("step: repoint", "step: check-follower"),
                "3: a playbook has one point of no return, not 0",
                id="no point of no return",
            ),
            pytest.param(
                steps(
                    "step: repoint, point_of_no_return: true",
                    "step: check-follower, point_of_no_return: true",
                ),
                "3: a playbook has one point of no return, not 2",
                id="two of them",
            ),
        ],
    )
    def test_where_a_step_may_stand(self, text: str, said: str) -> None:
        assert f"move.yaml:{said}" in faults(text)

    def test_what_a_step_has_to_be_told_is_required_of_a_run(self) -> None:
        text = shipped_text("detach").replace("required: true", "required: false")
        said = "has to be told node, so the playbook has to require that parameter"
        assert [fault.endswith(said) for fault in faults(text)] == [True, True]

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            ("default: 7", "default: seven"),
            ("default: 7", "default: -7"),
            ("default: 7", "default: true"),
            ("default: 7", f"default: '{'9' * 5000}'"),
            ("default: false", "default: perhaps"),
            ("default: false", "default: 0"),
            ("{type: text}", "{type: text, default: ''}"),
            ("{type: text}", "{type: text, default: 5}"),
            ("required: true}", 'required: true, default: "a\\nb"}'),
        ],
    )
    def test_a_default_is_of_its_type(self, old: str, new: str) -> None:
        line = GOOD[: GOOD.index(old)].count("\n")
        said = fault(good(old, new))
        assert said.startswith(f"move.yaml:{line + 1}: move: ")
        assert "which" in said

    def test_each_step_that_looks_may_be_a_precheck_and_no_other(self) -> None:
        for name, kind in STEPS.items():
            first = kind.needs[0] if kind.needs else "choose-candidate"
            text = steps(f"step: {first}", f"step: repoint, precheck: [{name}], point_of_no_return: true")
            refused = f"move.yaml:5: {name} does more than look, so it is no precheck" in faults(text)
            assert refused is not kind.looks

    def test_every_step_says_what_it_does_in_a_sentence(self) -> None:
        unsaid = {name for name, kind in STEPS.items() if not kind.title}
        assert unsaid <= {"abandon-join"}

    def test_what_a_step_needs_there_is(self) -> None:
        assert {need for kind in STEPS.values() for need in kind.needs} <= set(STEPS)


class TestUse:
    def test_the_steps_are_those_of_the_other(self) -> None:
        rotate, switchover = load_playbook("rotate"), load_playbook("switchover")
        assert rotate.steps == switchover.steps
        assert rotate.title != switchover.title
        assert rotate.use is None, "a run carries steps, not names that may mean something else later"

    def test_its_own_parameters_are_laid_over_those_of_the_other(self) -> None:
        rotate, switchover = load_playbook("rotate").arguments({}), load_playbook("switchover").arguments({})
        assert {**switchover, "home": True} == rotate
        assert load_playbook("failback").arguments({}) == rotate

    def test_a_default_that_is_laid_over_is_of_its_type_too(self) -> None:
        text = "name: a\ntitle: A.\nuse: switchover\nparameters:\n  home: {type: flag, default: west}\n"
        assert fault(text).startswith("move.yaml:5: a: home is a flag")

    def test_one_that_there_is_not(self) -> None:
        text = "name: a\ntitle: A.\nuse: teleport\n"
        assert fault(text) == "move.yaml:3: there is no playbook 'teleport' to use"

    def test_a_path_is_no_name(self) -> None:
        assert fault("name: a\ntitle: A.\nuse: ../secrets\n").startswith("move.yaml:3: use: ")

    def test_a_circle(self, monkeypatch: pytest.MonkeyPatch) -> None:
        ship(monkeypatch, a="b", b="a")
        assert fault(shipped_text("a")) == "move.yaml:3: b.yaml:3: use goes in a circle: a → b → a"
        assert fault("name: c\ntitle: C.\nuse: c\n") == "move.yaml:3: use goes in a circle: c → c"

    def test_a_circle_that_it_is_no_part_of(self, monkeypatch: pytest.MonkeyPatch) -> None:
        ship(monkeypatch, a="b", b="a")
        assert fault("name: c\ntitle: C.\nuse: a\n").endswith("use goes in a circle: c → a → b → a")

    def test_a_circle_of_files_that_are_not_named_as_they_say(self, monkeypatch: pytest.MonkeyPatch) -> None:
        ship(monkeypatch, a="b", b="a", named="other")
        assert "in a circle" in fault("name: c\ntitle: C.\nuse: a\n")

    def test_what_is_wrong_with_the_other_is_said_with_its_line(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(failover.playbook, "_shipped", {"b": "name: b\nsteps: []\n"}.get)
        assert fault("name: a\ntitle: A.\nuse: b\n").startswith("move.yaml:3: b.yaml:1: title: ")


def ship(monkeypatch: pytest.MonkeyPatch, named: str = "", **uses: str) -> None:
    """As if geochain shipped these playbooks, each using another."""
    texts = {n: f"name: {named or n}\ntitle: One.\nuse: {other}\n" for n, other in uses.items()}
    monkeypatch.setattr(failover.playbook, "_shipped", texts.get)


class TestYaml:
    @pytest.mark.parametrize(
        "text",
        [
            "a: [",
            "\t",
            "a: b: c",
            "\0",
            "--- a\n--- b",
            "{a: 1",
            "'",
            "name: 2026-99-99",
            "a: 0b_",
        ],
    )
    def test_what_is_not_yaml(self, text: str) -> None:
        assert ": not YAML: " in fault(text)

    def test_the_line_is_that_of_the_fault(self) -> None:
        assert fault(good("step: repoint", "step: 'repoint")).startswith("move.yaml:18: not YAML: ")

    @pytest.mark.parametrize(
        "text",
        [
            "*nobody",
            "a: &a 1\nb: 2",
            "a: &a [x]\nb: *a",
            "a: &a {b: *a}",
            "&a : 1",
            "a: &a lol\nb: &b [*a, *a]\nc: &c [*b, *b]\nd: [*c, *c]",
            "b: {<<: *a}",
        ],
    )
    def test_nothing_in_it_stands_for_something_else(self, text: str) -> None:
        assert fault(text) == "move.yaml:1: anchors, aliases and tags are not read here"

    @pytest.mark.parametrize(
        "tagged",
        [
            "!!python/object/apply:os.system [id]",
            "!!python/name:os.system",
            "!!python/object/new:tuple [[]]",
            "!!python/tuple [1]",
            "!!python/module:os",
            '!!int ""',
            '!!float ""',
            "!!bool x",
            "!!timestamp x",
            "!!set {a}",
            "!own a",
            "! a",
        ],
    )
    def test_a_tag_makes_nothing(self, tagged: str) -> None:
        said = fault(good("Moves something.", tagged))
        assert said == "move.yaml:2: anchors, aliases and tags are not read here"

    @pytest.mark.parametrize("escape", ['"\\UFFFFFFFF"', '"\\uD800"'])
    def test_an_escape_of_no_character(self, escape: str) -> None:
        assert fault(good("Moves something.", escape)).startswith("move.yaml:")
        assert fault(f"{GOOD}{escape}: 1\n").startswith("move.yaml:")

    def test_a_key_twice_is_no_key_at_all(self) -> None:
        assert (
            fault(good("    retry: 2", "    retry: 2\n    retry: 3")) == "move.yaml:15: retry is there twice"
        )
        assert fault(GOOD + "name: other\n") == "move.yaml:18: name is there twice"
        assert fault(good("  note:", "  node:")) == "move.yaml:7: node is there twice"

    def test_too_long_a_file_is_not_even_parsed(self) -> None:
        assert faults(GOOD + "#" * (MAX_BYTES - len(GOOD))) == []
        assert (
            fault(GOOD + "#" * (MAX_BYTES - len(GOOD) + 1))
            == "move.yaml:1: a document has at most 65,536 bytes"
        )
        assert fault("ä" * (MAX_BYTES // 2 + 1)).startswith("move.yaml:1: a document has at most")

    @pytest.mark.parametrize("opening", ["[", "{a: ", "- ", "? ", "[{a: "])
    def test_deep_nesting_ends_at_once(self, opening: str) -> None:
        assert fault(opening * (MAX_BYTES // len(opening))) == "move.yaml:1: nested more than 20 deep"


class TestArguments:
    def arguments(self, given: Mapping[str, Any]) -> dict[str, Any]:
        return parse_playbook(GOOD, "move.yaml").arguments({"node": "west-1", **given})

    def refused(self, given: Mapping[str, Any]) -> BadInput:
        with pytest.raises(BadInput) as caught:
            self.arguments(given)
        return caught.value

    def test_what_is_not_given_is_its_default_or_nothing(self) -> None:
        assert self.arguments({}) == {"node": "west-1", "most": 7, "sure": False, "note": None}
        assert self.arguments({"most": None, "note": None}) == self.arguments({})

    def test_what_is_required_must_be_given(self) -> None:
        assert self.refused({"node": None}).message == "move needs to be told: node"
        assert "node=" in self.refused({"node": None}).hint

    def test_what_it_does_not_take(self) -> None:
        refused = self.refused({"shell": "ls"})
        assert refused.message == "move takes no parameter 'shell'"
        assert refused.hint == "it takes: node, most, sure, note"

    @pytest.mark.parametrize(("given", "found"), [("0", 0), ("007", 7), (12, 12), ("9" * 18, 10**18 - 1)])
    def test_a_count_is_a_number_however_it_is_written(self, given: Any, found: int) -> None:
        assert self.arguments({"most": given})["most"] == found

    @pytest.mark.parametrize(("given", "found"), [("yes", True), ("true", True), ("no", False), (True, True)])
    def test_a_flag_is_yes_or_no(self, given: Any, found: bool) -> None:
        assert self.arguments({"sure": given})["sure"] is found

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            *product(["most"], ["", "-1", "1.5", "few", "²", "٣", "1_000", "9" * 19, "9" * 5000, True, 1.5]),
            *product(["sure"], ["", "maybe", "YES", 1, 0, []]),
            *product(["note"], ["", "a\nb", "a\x1b[31m", "x" * 513, 5, ["a"], True]),
            *product(["node"], ["", "a\0", 5]),
        ],
    )
    def test_what_is_not_of_its_type_is_refused(self, name: str, value: Any) -> None:
        assert self.refused({name: value}).message.startswith(f"move: {name} is a ")

    @given(st.dictionaries(st.sampled_from(["node", "most", "sure", "note", "x"]), st.text() | st.integers()))
    def test_whatever_is_given_it_is_taken_whole_or_refused(self, given: dict[str, Any]) -> None:
        with suppress(BadInput):
            found = self.arguments(given)
            assert list(found) == ["node", "most", "sure", "note"]
            assert type(found["most"]) is int
            assert type(found["sure"]) is bool


# Whatever somebody makes of a playbook.

TEXTS = [shipped_text(name) for name in SHIPPED]
PIECES = st.sampled_from(
    [
        *sorted({line + "\n" for text in TEXTS for line in text.splitlines()}),
        *("\n", " ", "  ", "\t", "- ", ": ", "? ", "# ", "[", "]", "{", "}", ",", "|\n", ">-\n"),
        *("'", '"', "&a ", "*a", "!", "!!int ", "!!bool ", "---\n", "...\n", "%YAML 1.1\n", "%TAG ! x\n"),
        *(
            "~",
            "\\",
            "\\x",
            "<<",
            "@",
            "`",
            "\x85",
            "\u2028",
            "\ud800",
            "0",
            "-1",
            "9" * 5000,
            ".inf",
            "1e999",
        ),
        *("yes", "2026-99-99", "0b_", "=", "1:60", '"\\UFFFFFFFF"', '"\\uD800"', *sorted(STEPS), *SHIPPED),
    ]
)


@st.composite
def mutations(draw: st.DrawFn) -> str:
    """A shipped playbook, somewhat changed: pieces put in, cut out, or in another order."""
    text = draw(st.sampled_from(TEXTS))
    for _ in range(draw(st.integers(1, 4))):
        at, length = draw(st.integers(0, len(text))), draw(st.integers(0, 40))
        text = text[:at] + draw(st.just("") | PIECES) + text[at + length :]
    if draw(st.booleans()):
        text = "".join(draw(st.permutations(text.splitlines(keepends=True))))
    return text


@st.composite
def line_mutations(draw: st.DrawFn) -> str:
    """The same by whole lines and values, so that more of them can still be read."""
    lines = draw(st.sampled_from(TEXTS)).splitlines(keepends=True)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(lines) - 1))
        key, colon, _ = lines[at].partition(": ")
        changed = draw(st.none() | PIECES.map(lambda p, k=key, c=colon: f"{k}{c}{p.strip()}\n"))  # type: ignore[misc]
        lines[at : at + draw(st.integers(0, 2))] = [] if changed is None else [changed]
        if not lines:
            break
    return "".join(lines)


@settings(deadline=None, max_examples=300)
@given(st.text() | mutations() | line_mutations())
@example("%YAML " + "1" * 5000 + ".1\n--- a")
@example("? ")
@example("? [a]\n: 1\n")
@example("? {a: {b: c}}\n: 1\n")
@example("parameters: {1: {type: node}}\n")
@example('"\\UFFFFFFFF": 1')
def test_any_text_is_a_playbook_that_can_be_run_or_a_bad_file(text: str) -> None:
    found = lint(text, "move.yaml")
    if found:
        lines = 1 + sum(text.count(end) for end in ("\n", "\r", "\x85", "\u2028"))
        assert all(1 <= fault.line <= lines for fault in found)
        with pytest.raises(BadFile):
            parse_playbook(text, "move.yaml")
        return
    playbook = parse_playbook(text, "move.yaml")
    check_runnable(playbook)
    assert Playbook.model_validate_json(playbook.model_dump_json()) == playbook


def check_runnable(playbook: Playbook) -> None:
    """What the runner relies on: all it will do there is, is told what it needs, and has a way back."""
    names = [step.step for step in playbook.steps]
    assert set(names) <= set(STEPS)
    assert len(names) == len(set(names))
    assert sum(step.point_of_no_return for step in playbook.steps) == 1
    for n, step in enumerate(playbook.steps):
        early = n < playbook.point_of_no_return
        for name in (step.step, *step.precheck):
            needs = STEPS[name].needs
            assert not needs or set(needs) & set(names[:n])
        assert all(STEPS[name].looks for name in step.precheck)
        assert not (early and STEPS[step.step].changes) or step.undo is not None
        assert step.undo is None or (early and STEPS[step.undo].changes)
        assert early or step.point_of_no_return or playbook.failing(step) != "undo"
    needed = {
        name: "a" for name, p in playbook.parameters.items() if p.required and p.type in ("node", "text")
    }
    with suppress(BadInput):
        assert list(playbook.arguments(needed)) == list(playbook.parameters)


@pytest.mark.parametrize(
    "text",
    [
        steps("step: repoint", "step: check-follower"),
        steps("step: leave, point_of_no_return: true"),
        steps("step: repoint", "step: repoint, point_of_no_return: true"),
        steps("step: check-joining", "step: begin-join", "step: repoint, point_of_no_return: true"),
        steps("step: repoint, precheck: [drain], point_of_no_return: true"),
    ],
)
def test_the_check_of_playbooks_can_fail(text: str) -> None:
    with pytest.raises(AssertionError):
        check_runnable(Playbook.model_validate(yaml.safe_load(text)))


def test_playbooks_are_found_where_they_are_installed() -> None:
    shipped = files("failover").joinpath("playbooks")
    folder = Path(str(shipped)) if shipped.is_dir() else SCHEMA.parent
    assert sorted(p.stem for p in folder.glob("*.yaml")) == sorted(SHIPPED)
