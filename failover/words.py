"""Decisions and steps as sentences that an operator can read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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
)


def sentence(decision: Decision) -> str:
    """A decision, said in a line."""
    match decision:
        case ChainCreated():
            return f"chain {decision.chain} is {' ─▶ '.join(decision.regions)}"
        case EpochGranted():
            return f"epoch {decision.epoch} is {decision.order[0]}'s: {' ─▶ '.join(decision.order)}"
        case ReignBegan():
            return f"epoch {decision.epoch} begins at position {decision.position:,}"
        case JoinStarted():
            return f"{decision.node} ({decision.region}) begins to join"
        case JoinHeard():
            return f"the head of epoch {decision.epoch} has heard that {decision.node} joins"
        case JoinFinished():
            return f"{decision.node} is the tail"
        case NodeDetached():
            return (
                f"{decision.node} is outside the chain{', and is to stay there' if decision.keep_out else ''}"
            )
        case RunStarted():
            return f"{decision.playbook} begins{parameters(decision.parameters)}"
        case StepStarted():
            return f"  {decision.step} …"
        case StepFinished():
            return f"  {decision.step} done{parameters(decision.result)}"
        case RunFinished():
            return f"{decision.outcome}{': ' + decision.reason if decision.reason else ''}"
        case AutomationPaused():
            return f"automation is paused{': ' + decision.why if decision.why else ''}"
        case AutomationResumed():
            return "automation goes on"
        case FailoverAcknowledged():
            return "the last failover is acknowledged"
        case PlanApproved():
            return f"plan {decision.plan[:12]} is approved by {decision.by} for {decision.for_s:g} s"


def parameters(values: Mapping[str, Any]) -> str:
    """Parameters or results, behind a colon; nothing if there are none."""
    words = [f"{key.replace('_', ' ')} {_plain(value)}" for key, value in values.items() if value is not None]
    return ": " + ", ".join(words) if words else ""


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list):
        return " ".join(map(str, value)) or "none"
    return str(value)
