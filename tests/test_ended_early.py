"""What is said next when an operation has ended before its end: a command that is right in that state."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from uuid import uuid4

import pytest

from chain.event import EMPTY, Epoch
from chain.store import Ground
from chain.topology import Run, RunStep, Topology
from failover.cli.ended_early import what_next
from failover.playbook import load_playbook

AT = " -c east.yaml"
GROUND = Ground(EMPTY, datetime(2026, 1, 1, tzinfo=UTC))
CHAIN = Topology("shop", {"a": "east", "b": "west"}, "east", Epoch(4), uuid4(), ("a", "b"), GROUND)


def under_way(*steps: str) -> Topology:
    text = load_playbook("switchover").model_dump_json()
    run = Run(uuid4(), "switchover", {}, "Ada", Epoch(5), tuple(RunStep(s, None) for s in steps), text)
    return replace(CHAIN, run=run)


@pytest.mark.parametrize(
    ("topology", "states", "said"),
    [
        (
            None,
            {"begun"},
            ["the registry does not answer", "next: chainctl status", "the same command again"],
        ),
        (CHAIN, set(), ["nothing was changed", "next: chainctl status"]),
        (CHAIN, {"failed", "undone"}, ["it was undone: a is the head, in epoch 4", "the same command again"]),
        (CHAIN, {"done", "failed"}, ["a is the head, in epoch 4, and nothing is under way", "next: "]),
        (under_way(), {"failed"}, ["switchover, at its start", "playbook resume", "playbook abort"]),
        (under_way("choose-candidate"), {"failed"}, ["at choose-candidate", "resume", "abort"]),
        (under_way("fence-head"), set(), ["the head takes no writes", "playbook resume", "playbook abort"]),
        (under_way("grant-epoch"), {"done"}, ["past its point of no return", "playbook resume"]),
    ],
)
def test_what_comes_next_is_what_the_state_allows(
    topology: Topology | None, states: set[str], said: list[str]
) -> None:
    text = what_next(topology, states, at=AT)
    assert [each for each in said if each not in text] == []
    assert text.count("chainctl ") == text.count(AT), "a command that would not find this chain"
    assert ("abort" in text) == (said[-1].endswith("abort")), "what is past its point can't be taken back"
    assert "undone" not in text or "undone" in states or "not undone" in text
