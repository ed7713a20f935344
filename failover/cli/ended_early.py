"""What to do when an operation has ended before its end: by what is so then, and said last.

A failure says itself what failed. Whether the run is still unfinished, was undone, or never began is in the
registry, and decides which command comes next.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from chain.errors import Busy, ChainError
from failover.cli.common import talk

if TYPE_CHECKING:
    from chain.topology import Run, Topology
    from failover.fleet import Fleet
    from failover.runner import StepReport

LOOK_S: Final = 3.0
"""How long the registry is asked what has become of a run."""

Watcher = Callable[["StepReport"], None]


@asynccontextmanager
async def told_what_next(fleet: Fleet, say: Watcher, *, at: str = "") -> AsyncIterator[Watcher]:
    """Gives what is to watch the run. If the block fails, its error carries what to do next, as a note; if it
    is interrupted, that is said. `at` is what every further command needs to find this chain.
    """
    states: set[str] = set()

    def watch(report: StepReport) -> None:
        states.add(report.state)
        say(report)

    try:
        yield watch
    except Busy:
        raise  # what is under way is another's, and the error says whose
    except ChainError as error:
        if states or not error.hint:
            error.add_note(what_next(await _topology(fleet), states, at=at))
        raise
    except asyncio.CancelledError:
        talk("interrupted")
        talk(what_next(await _topology(fleet), states, at=at))
        raise


def what_next(topology: Topology | None, states: set[str], *, at: str = "") -> str:
    """By the chain as decided, None if that can't be read, and by what was reported of the run's steps."""
    if topology is None:
        return (
            "what has become of it is not known: the registry does not answer\n"
            f"next: chainctl status{at}; then the same command again: it carries on what was begun"
        )
    if topology.run is not None:
        return _unfinished(topology.run, at)
    if not states:
        return f"nothing was changed\nnext: chainctl status{at}"
    stands = f"{topology.head} is the head, in epoch {topology.epoch}, and nothing is under way"
    if "undone" in states:
        return f"it was undone: {stands}\nnext: chainctl status{at}; when all is well, the same command again"
    return f"{stands}\nnext: chainctl status{at}; if that is not what you wanted, the same command again"


def _unfinished(run: Run, at: str) -> str:
    from chain.commands import moves_the_head

    where = f"unfinished: {run.playbook}, at {run.steps[-1].name if run.steps else 'its start'}"
    if _is_past(run):
        where += ", past its point of no return: it is carried on, not undone"
        return f"{where}\nnext: chainctl playbook resume{at}"
    if moves_the_head(run):
        where += "; until it is carried on or taken back, the head takes no writes"
    return f"{where}\nnext: chainctl playbook resume{at}\nor take it back: chainctl playbook abort{at}"


def _is_past(run: Run) -> bool:
    from failover.playbook import Playbook

    if not run.text:
        return False
    playbook = Playbook.model_validate_json(run.text)
    return run.has_begun(playbook.steps[playbook.point_of_no_return].step)


async def _topology(fleet: Fleet) -> Topology | None:
    try:
        async with asyncio.timeout(LOOK_S):
            return await fleet.registry.topology()
    except (ChainError, TimeoutError):
        return None
