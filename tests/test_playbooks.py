"""Playbooks: what geochain ships can be run, and what can't be run is refused when it is read."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chain.errors import BadFile
from failover.playbook import load_playbook, parse_playbook, playbook_names
from failover.steps import CHECKS, STEPS

GOOD = """\
name: move
title: Moves something.
steps:
  - step: fence-head
    timeout_s: 5
    undo: restore-head
  - step: promote
    point_of_no_return: true
"""

SHIPPED = playbook_names()


def fault(text: str) -> str:
    with pytest.raises(BadFile) as caught:
        parse_playbook(text, "move.yaml")
    return caught.value.message


def test_the_operations_of_a_chain_are_all_there() -> None:
    assert {"switchover", "failover", "bootstrap", "rejoin", "rotate"} <= set(SHIPPED)


@pytest.mark.parametrize("name", SHIPPED)
class TestShipped:
    def test_it_is_named_as_its_file_and_says_what_it_does(self, name: str) -> None:
        playbook = load_playbook(name)
        assert playbook.name == name
        assert playbook.title.endswith(".")

    def test_every_step_and_undo_is_one_that_there_is(self, name: str) -> None:
        steps = load_playbook(name).steps
        assert {s.step for s in steps} | {s.undo for s in steps if s.undo is not None} <= set(STEPS)

    def test_it_has_one_point_of_no_return_and_nothing_behind_it_is_undone(self, name: str) -> None:
        steps = load_playbook(name).steps
        points = [n for n, step in enumerate(steps) if step.point_of_no_return]
        assert len(points) == 1
        assert [s.step for s in steps[points[0] :] if s.undo is not None] == []

    def test_no_step_comes_twice_for_the_journal_goes_by_its_name(self, name: str) -> None:
        steps = [s.step for s in load_playbook(name).steps]
        assert len(steps) == len(set(steps))

    def test_what_only_looks_comes_before_what_changes(self, name: str) -> None:
        looks = [s.step in CHECKS for s in load_playbook(name).steps]
        assert looks == sorted(looks, reverse=True)


class TestRefused:
    def test_a_playbook_that_there_is_not(self) -> None:
        with pytest.raises(BadFile, match="no playbook 'nope'") as caught:
            load_playbook("nope")
        assert "switchover" in caught.value.hint

    @pytest.mark.parametrize("name", ["", "..", "../pyproject.toml", "/etc/passwd", "switchover.yaml"])
    def test_a_name_that_is_a_path_reads_nothing(self, name: str) -> None:
        with pytest.raises(BadFile, match="there is no playbook"):
            load_playbook(name)

    @pytest.mark.parametrize(
        ("old", "new", "field"),
        [
            ("    undo:", "    undoes:", "steps.0.undoes"),
            ("title:", "titel:", "title"),
            ("name: move\n", "name: move\nshell: ls\n", "shell"),
            ("timeout_s: 5", "timeout_s: soon", "steps.0.timeout_s"),
            ("timeout_s: 5", "timeout_s: 0", "steps.0.timeout_s"),
            ("timeout_s: 5", "timeout_s: -1", "steps.0.timeout_s"),
            ("timeout_s: 5", "timeout_s: .inf", "steps.0.timeout_s"),
            ("timeout_s: 5", "timeout_s: .nan", "steps.0.timeout_s"),
            ("timeout_s: 5", "timeout_s: [5]", "steps.0.timeout_s"),
            ("step: promote", "step: [promote]", "steps.1.step"),
            ("point_of_no_return: true", "point_of_no_return: perhaps", "steps.1.point_of_no_return"),
            (GOOD[GOOD.index("steps:") :], "steps: []\n", "steps"),
            (GOOD[GOOD.index("steps:") :], "steps: promote\n", "steps"),
        ],
    )
    def test_a_fault_names_file_and_field(self, old: str, new: str, field: str) -> None:
        assert old in GOOD
        assert fault(GOOD.replace(old, new, 1)).startswith(f"move.yaml: {field}: ")

    @pytest.mark.parametrize("text", ["", "~", "5", "a text", "[]", "- step: promote"])
    def test_what_is_no_playbook_at_all(self, text: str) -> None:
        assert fault(text).startswith("move.yaml: ")

    @pytest.mark.parametrize(
        "text",
        [
            "a: [",
            "\t",
            "a: b: c",
            "\0",
            "*nobody",
            "--- a\n--- b",
            "{a: 1",
            "'",
            "name: 2026-99-99",
            "[" * 5000,
        ],
    )
    def test_what_is_not_yaml(self, text: str) -> None:
        assert fault(text).startswith("move.yaml is not YAML: ")

    @pytest.mark.parametrize(
        "tagged",
        [
            "!!python/object/apply:os.system [id]",
            "!!python/name:os.system",
            "!!python/object/new:tuple [[]]",
            "!!python/tuple [1]",
            "!!python/module:os",
        ],
    )
    def test_yaml_makes_no_python_objects(self, tagged: str) -> None:
        said = fault(GOOD.replace("Moves something.", tagged))
        assert said.startswith("move.yaml is not YAML: ")
        assert "python" in said

    @settings(deadline=None)
    @given(st.text() | st.sampled_from(GOOD.splitlines()).map(lambda line: GOOD.replace(line, line[::-1])))
    def test_any_text_is_a_playbook_or_a_bad_file(self, text: str) -> None:
        with suppress(BadFile):
            parse_playbook(text, "move.yaml")


def test_a_step_has_a_time_limit_even_if_none_is_given() -> None:
    assert 0 < parse_playbook(GOOD, "move.yaml").steps[1].timeout_s < float("inf")
