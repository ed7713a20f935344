"""Decide: the table of rules. The first that matches holds; each says in a sentence what is thought and done.

The table is dumped into `docs/rules.md`; a test holds it against that file, and shows that every rule can
match something that no rule before it does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from failover.diagnosis import Candidate, Diagnosis, Follower, Head, Signs, Unfinished


class Action(Enum):
    """What a rule leads to."""

    WAIT = "wait"
    """Nothing: what is awaited comes by itself, or all is well."""
    ASK = "ask"
    """Nothing by itself: a person has to decide."""
    RUN = "run"
    """A playbook is run."""
    RESUME = "resume"
    """The run that was left unfinished is carried on."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One row of the table."""

    name: str
    when: Callable[[Signs], bool]
    sentence: str
    """With the names of a `Diagnosis` in braces."""
    action: Action = Action.WAIT
    playbook: str = ""
    """What is run, if the action is to run one."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """The rule that holds now, and what is to be done."""

    number: int
    rule: Rule
    sentence: str
    playbook: str = ""
    parameters: tuple[tuple[str, Any], ...] = ()


def _lost(s: Signs) -> bool:
    return s.head is Head.LOST


RULES: Final[tuple[Rule, ...]] = (
    Rule(
        "registry-away",
        lambda s: not s.registry,
        "The registry can't be read, so nothing is decided. The head goes on while it may.",
    ),
    Rule(
        "paused", lambda s: s.paused, "Automation is paused {why}. chainctl resume lets it go on.", Action.ASK
    ),
    Rule(
        "move-unfinished",
        lambda s: s.unfinished is Unfinished.MOVE and s.automatic,
        "A move of the head is under way. If nobody is at it, it is carried on, or taken back.",
        Action.RESUME,
    ),
    Rule(
        "head-in-failsafe",
        lambda s: s.head is Head.FAILSAFE,
        "{head} does not renew its lease at the registry, but it lives and goes on by the promises of the"
        " others.",
    ),
    Rule(
        "head-lost-nobody-left",
        lambda s: _lost(s) and s.candidate is Candidate.NONE,
        "{head} is lost, and no node that may take over can be reached.",
        Action.ASK,
    ),
    Rule(
        "head-lost-by-hand",
        lambda s: _lost(s) and not s.automatic,
        "{head} is lost. {candidate} could take over: chainctl failover.",
        Action.ASK,
    ),
    Rule(
        "head-lost-again",
        lambda s: _lost(s) and s.cooling,
        "{head} is lost, so soon after the last failover that a person has to look: chainctl ack, or"
        " failover.",
        Action.ASK,
    ),
    Rule(
        "head-lost-over-budget",
        lambda s: _lost(s) and s.candidate is Candidate.BEHIND,
        "{head} is lost. {candidate} may lack {loss_events} events, or was cut off for {behind_s} s, which"
        " is more than may be given up without asking: chainctl failover.",
        Action.ASK,
    ),
    Rule(
        "head-lost",
        _lost,
        "{head} is lost: its lease has run out. {candidate} takes over.",
        Action.RUN,
        "failover",
    ),
    Rule(
        "head-waiting",
        lambda s: s.head is Head.WAITING,
        "{head} takes no writes, or can't be reached; its lease runs for {lease_left_s} s yet.",
    ),
    Rule(
        "head-unproven",
        lambda s: s.head is Head.UNPROVEN,
        "{head} takes no writes, or can't be reached, and the chain has no lease that would prove it lost:"
        " chainctl failover --head-is-dead, if you know.",
        Action.ASK,
    ),
    Rule(
        "run-unfinished-by-hand",
        lambda s: s.unfinished is not Unfinished.NOTHING and not s.automatic,
        "A run is under way. If nobody is at it: chainctl playbook resume, or abort.",
        Action.ASK,
    ),
    Rule(
        "run-unfinished",
        lambda s: s.unfinished is Unfinished.OTHER,
        "A run is under way. If nobody is at it, it is carried on.",
        Action.RESUME,
    ),
    Rule(
        "follower-lost-by-hand",
        lambda s: s.lost is not Follower.NONE and not s.automatic,
        "{lost} has been out of reach for too long. Without it the others go on: chainctl detach {lost}.",
        Action.ASK,
    ),
    Rule(
        "middle-lost",
        lambda s: s.lost is Follower.MIDDLE,
        "{lost} has been out of reach for too long. Who follows it goes on at the node before it.",
        Action.RUN,
        "failover-middle",
    ),
    Rule(
        "tail-lost",
        lambda s: s.lost is Follower.TAIL,
        "{lost} has been out of reach for too long. The chain goes on without it.",
        Action.RUN,
        "detach",
    ),
    Rule(
        "node-returns-by-hand",
        lambda s: s.returning and not s.automatic,
        "{returning} is up, outside the chain: chainctl rejoin {returning}, or bootstrap.",
        Action.ASK,
    ),
    Rule(
        "node-returns",
        lambda s: s.returning,
        "{returning} is up, outside the chain. It is brought in as the tail.",
        Action.RUN,
        "rejoin",
    ),
    Rule(
        "come-home-by-hand",
        lambda s: s.homesick and not s.automatic,
        "The chain is whole, and {head} is away from home: chainctl rotate.",
        Action.ASK,
    ),
    Rule(
        "come-home",
        lambda s: s.homesick,
        "The chain is whole, and {head} is away from home. The head goes back.",
        Action.RUN,
        "failback",
    ),
    Rule("steady", lambda s: True, "All is as decided."),
)


def judge(diagnosis: Diagnosis, never: tuple[str, ...] = ()) -> Judgement:
    """The first rule that matches, with what it leads to. A pure function."""
    number, rule = next((n, r) for n, r in enumerate(RULES, 1) if r.when(diagnosis.signs))
    names = {
        name: _plain(getattr(diagnosis, name))
        for name in (
            "head",
            "candidate",
            "loss_events",
            "behind_s",
            "lost",
            "returning",
            "lease_left_s",
            "why",
        )
    }
    playbook, parameters = _run(rule, diagnosis, never)
    return Judgement(number, rule, rule.sentence.format(**names), playbook, parameters)


def _run(rule: Rule, diagnosis: Diagnosis, never: tuple[str, ...]) -> tuple[str, tuple[tuple[str, Any], ...]]:
    match rule.name:
        case "head-lost" | "come-home":
            return rule.playbook, (("never", ",".join(never)),) if never else ()
        case "middle-lost" | "tail-lost":
            return rule.playbook, (("node", diagnosis.lost), ("returns", True))
        case "node-returns":
            playbook = "bootstrap-tail" if diagnosis.empty else rule.playbook
            return playbook, (("node", diagnosis.returning),)
    return rule.playbook, ()


def _plain(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.1f}"
    return "?" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def table() -> str:
    """The rules as a Markdown table."""
    rows = ["| nr | rule | what is thought | what is done |", "|---|---|---|---|"]
    for number, rule in enumerate(RULES, 1):
        done = f"run `{rule.playbook}`" if rule.playbook else rule.action.value
        rows.append(f"| {number} | `{rule.name}` | {rule.sentence} | {done} |")
    return "\n".join(rows) + "\n"
