"""Drills as data: what is shipped can be run, and what can't be run is refused when it is read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import failover
import failover.drills.faults
from chain.errors import Refused
from failover.drills.drill import Drill, drill_names, drill_text, lint, load_drill
from failover.drills.faults import FAULTS, kind_of
from failover.drills.faults.disks import ClockJump
from failover.drills.probes import PROBES
from failover.drills.stage import check_possible

SCHEMA = Path(failover.__file__).parent.parent / "playbooks" / "drill.schema.json"
GOOD = """\
name: good
title: Something goes wrong, and all is well.
hypothesis:
  after:
    - {probe: head-is, other_than: first-head}
method:
  - {fault: kill-node, target: head}
  - {until: {probe: writes-flow}, within_s: 5}
  - {end: kill-node}
  - {run: rejoin, given: {node: first-head}}
"""


def flaws(text: str) -> list[str]:
    return [str(flaw) for flaw in lint(text, "good.yaml")]


@pytest.mark.parametrize("name", drill_names())
def test_a_shipped_drill_can_be_run_and_bears_the_name_of_its_file(name: str) -> None:
    assert lint(*drill_text(name)) == ()
    assert load_drill(name)[0].name == name


def test_there_are_drills_for_every_kind_of_fault() -> None:
    drills = [load_drill(name)[0] for name in drill_names()]
    assert len(drills) >= 20
    assert {kind_of(fault) for drill in drills for fault in drill.faults} == set(FAULTS)
    assert len(FAULTS) >= 30


def test_the_quick_ones_are_few() -> None:
    assert 3 <= sum(load_drill(name)[0].quick for name in drill_names()) <= 5


def test_every_fault_and_probe_says_what_it_is() -> None:
    for kind in (*FAULTS.values(), *PROBES.values()):
        assert kind.__doc__
        assert kind.__doc__.strip().endswith(".")


def test_the_committed_schema_is_that_of_the_code() -> None:
    assert json.loads(SCHEMA.read_text()) == Drill.model_json_schema(), (
        "regenerate it: chainctl drill schema > playbooks/drill.schema.json"
    )


def test_a_good_drill_has_no_flaw() -> None:
    assert flaws(GOOD) == []


@pytest.mark.parametrize(
    ("old", "new", "line", "reason"),
    [
        ("kill-node, target", "kill-everything, target", 7, "kill-everything"),
        ("target: head}", "target: head, force: 9}", 7, "Extra inputs"),
        ("kill-node, target: head}", "kill-node}", 7, "Field required"),
        ("{end: kill-node}", "{end: other}", 9, "no fault before it is called 'other'"),
        ("{end: kill-node}", "{fault: kill-node, target: tail}", 9, "is there already"),
        ("probe: writes-flow", "probe: nothing-lost", 8, "known only at the end"),
        ("run: rejoin", "run: nothing", 10, "there is no playbook 'nothing'"),
        ("{node: first-head}}", "{nodes: first-head}}", 10, "takes no parameter 'nodes'"),
        ("first-head}}", "first-head}, killed_at: promote}", 10, "has no step 'promote'"),
        ("{end: kill-node}", "{stop: kill-node}", 9, "a step is one of"),
        ("name: good", "name: good\nname: again", 2, "is there twice"),
        ("title: Something", "title: &a Something", 2, "anchors"),
    ],
)
def test_what_is_wrong_is_said_with_file_and_line(old: str, new: str, line: int, reason: str) -> None:
    assert old in GOOD
    said = flaws(GOOD.replace(old, new, 1))
    assert any(each.startswith(f"good.yaml:{line}: ") and reason in each for each in said), said


def test_a_rollback_is_no_fault() -> None:
    said = flaws(GOOD + "rollbacks:\n  - {fault: kill-node, target: head}\n")
    assert any("a rollback is no fault" in each for each in said)


def test_a_drill_that_can_not_be_run_here_is_refused_and_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(failover.drills.faults, "faketime", lambda: None)
    jump = ClockJump(fault="clock-jump", target="head", by_s=60)
    with pytest.raises(Refused, match="clock-jump needs libfaketime"):
        check_possible((jump,), local=True, network=True)
    kill = load_drill("head-loss-under-load")[0].faults
    with pytest.raises(Refused, match="kill-node needs a local chain"):
        check_possible(kill, local=False, network=False)


def test_the_documentation_names_every_drill_and_every_fault() -> None:
    text = (SCHEMA.parent.parent / "docs" / "drills.md").read_text()
    assert [name for name in (*drill_names(), *FAULTS) if f"`{name}`" not in text] == []
