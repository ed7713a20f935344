"""Checks the model of the lease, `lease.pml`, exhaustively with spin.

Three kinds of checks, and each must come out as it says: the protocol as it is must hold; each variant that
is wrong on purpose must be caught by the property that it breaks; and each fault of the protocol that is
known must still be found, so that nobody forgets to say that it was repaired. `docs/model.md` explains all
of it.

    python -m tests.model.check [NAME …] [--trace]
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

MODEL: Final = Path(__file__).with_name("lease.pml")
MISSING: Final = "{0} is not installed (apt-get install {0})"
LIMIT_S: Final = 900
_JOBS: Final = 2
_MEMORY_MB: Final = 1800

PROPERTIES: Final = {
    "P1": "at most one node takes writes at any instant",
    "P2": "the epochs of the chain and of the lease record only grow",
    "P3": "an epoch is granted once",
    "P4": "no node is promoted in an epoch that it was not granted",
    "P5": "no grant before the old head's right has ended, or is sure to before its heir's promise",
    "P6": "a promise keeps promotion away",
    "P7": "a head whose server restarted takes no write before a new epoch",
    "P8": "a head that lost its lease never gets it back in that epoch",
    "P9": "only the node that was granted an epoch has its lease",
    "P10": "no node is promoted while the head of an older epoch may write",
    "L1": "if the faults stop, some node takes writes again",
}


@dataclass(frozen=True, slots=True)
class Check:
    """One run of spin. `breaks` is the property that must be found broken; empty if all must hold."""

    name: str
    what: str
    switches: tuple[str, ...]
    breaks: str = ""
    fault: bool = False
    """What is found is a fault of the protocol as it is, not of a variant."""

    @property
    def live(self) -> bool:
        return "LIVE" in self.switches


@dataclass(frozen=True, slots=True)
class Outcome:
    check: Check
    states: int
    seconds: float
    broken: str
    """The property that was found broken; empty for none."""
    steps: tuple[str, ...]
    """What happened until then, in sentences."""
    trouble: str = ""
    """Why the search did not come to an end."""

    @property
    def as_expected(self) -> bool:
        return not self.trouble and self.broken == self.check.breaks


_TWO: Final = ("CTLS=2", "MAXE=2")
_TWO_RUNNERS: Final = (*_TWO, "DAEMON_PROMOTES", "NO_SWITCHOVER")
_ONE: Final = ("CTLS=1", "MAXE=2")
_SMALL: Final = (*_ONE, "NO_SWITCHOVER", "DAEMON_PROMOTES")
_LIVE: Final = ("CTLS=1", "LIVE", "DAEMON_PROMOTES")

CHECKS: Final = (
    # As it is.
    Check("two-runners", "two runners at one chain, at any step, late or dead; failsafe", _TWO_RUNNERS),
    Check(
        "writes-again-after-restart",
        "the faults stop; a restart, two moves",
        (*_LIVE, "MAXE=3", "CRASHES=1", "NO_FAILSAFE"),
    ),
    Check(
        "urgent",
        "two runners, of which one ends the other's switchover for a failover",
        (*_TWO, "DAEMON_PROMOTES", "NO_FAILSAFE"),
    ),
    Check("clocks-and-restarts", "a clock that falls behind, a restart", (*_ONE, "SLIPS=1", "CRASHES=1")),
    Check("longer-lease", "a lease of three ticks, a clock that falls behind", (*_SMALL, "D=3", "SLIPS=1")),
    Check("two-moves", "two moves of the head, with promises", (*_SMALL, "MAXE=3")),
    Check(
        "two-moves-and-a-restart",
        "two moves of the head and a restart, without promises",
        ("CTLS=1", "MAXE=3", "CRASHES=1", "NO_FAILSAFE", "DAEMON_PROMOTES"),
    ),
    Check("clock-set-back", "a clock set back by no more than the margin", (*_SMALL, "STEP=2", "ONLY=1")),
    Check("writes-again", "the faults stop; failsafe", (*_LIVE, "MAXE=2")),
    Check("join", "a node joins", (*_SMALL, "JOIN")),
    Check(
        "fenced-head",
        "a move is taken back while its fenced head is out of reach; nobody runs a playbook then",
        (*_LIVE, "MAXE=2", "NO_FAILSAFE", "NO_AUTOMATION"),
    ),
    # Wrong on purpose.
    Check("no-margin", "no margin, and a clock that falls behind", (*_ONE, "M=0", "SLIPS=1"), "P1"),
    Check(
        "late-reading", "the deadline counts from a reading after the renewal", (*_ONE, "LATE_READING"), "P1"
    ),
    Check("no-wait", "end-lease does not wait for the lease to run out", (*_ONE, "NO_WAIT"), "P10"),
    Check("no-end", "grant and promote without end-lease", (*_ONE, "NO_END"), "P5"),
    Check("fence-believed", "a fence without an answer counts as done", (*_ONE, "FENCE_BELIEVED"), "P1"),
    Check("take-no-cas", "end-lease takes a record that was renewed since", (*_ONE, "TAKE_NO_CAS"), "P1"),
    Check("grant-no-cas", "the registry does not compare at a grant", (*_TWO, "GRANT_NO_CAS"), "P3"),
    Check("grant-goes-back", "the same; the chain's epoch", (*_TWO, "GRANT_NO_CAS"), "P2"),
    Check("promote-first", "promote before the grant", (*_ONE, "PROMOTE_FIRST"), "P4"),
    Check("lease-first", "the same; the lease is taken before the grant", (*_ONE, "PROMOTE_FIRST"), "P9"),
    Check("ignore-promises", "promote looks at no promise", (*_ONE, "IGNORE_PROMISES"), "P1"),
    Check("promise-broken", "the same; the promise itself", (*_ONE, "IGNORE_PROMISES"), "P6"),
    Check("one-promise", "one promise is enough for the head", (*_ONE, "ONE_PROMISE"), "P1"),
    Check("renew-any", "renew_lease does not compare epoch and holder", (*_ONE, "RENEW_ANY"), "P8"),
    Check(
        "restart-same-epoch",
        "a restarted head goes on in its epoch",
        (*_ONE, "CRASHES=1", "RESTART_SAME_EPOCH"),
        "P7",
    ),
    Check(
        "join-without-wait",
        "finish-join waits for no word of the head",
        (*_SMALL, "JOIN", "NO_JOIN_WAIT"),
        "P1",
    ),
    Check(
        "join-by-renewal",
        "finish-join takes a renewal for word that the head knows who joins",
        (*_SMALL, "JOIN", "JOIN_BY_RENEWAL"),
        "P1",
    ),
    Check(
        "join-at-once",
        "the head says that it knows who joins while its right may rest on fewer promises",
        (*_SMALL, "JOIN", "JOIN_AT_ONCE"),
        "P5",
    ),
    Check(
        "fence-left",
        "the same as fenced-head; a head that is fenced never asks for an epoch",
        (*_LIVE, "MAXE=2", "NO_FAILSAFE", "NO_AUTOMATION", "LEAVE_FENCED"),
        "L1",
    ),
    # Of the protocol as it is.
    Check(
        "fault-clock",
        "a clock set back by twice the margin, to where the store last looked at it; promises",
        (*_SMALL, "STEP=3"),
        "P1",
        True,
    ),
    Check(
        "fault-clock-registry",
        "the same by three times the margin, without promises",
        (*_SMALL, "STEP=4", "NO_FAILSAFE"),
        "P1",
        True,
    ),
)


def missing() -> str:
    """What has to be installed first; empty if all is there."""
    return next((MISSING.format(tool) for tool in ("spin", "gcc") if shutil.which(tool) is None), "")


def run(check: Check) -> Outcome:
    """Ends the program if the model can't be built. What breaks unexpectedly tells its shortest story."""
    outcome = _search(check, shortest=bool(check.breaks))
    if outcome.broken and not check.breaks and not check.live:
        return _search(check, shortest=True)
    return outcome


def _search(check: Check, *, shortest: bool) -> Outcome:
    with tempfile.TemporaryDirectory(prefix="lease-") as made:
        folder = Path(made)
        shutil.copy(MODEL, folder)
        last = {switch.split("=")[0]: f"-D{switch}" for switch in check.switches}
        switches = list(last.values())
        if check.breaks.startswith("P"):
            switches.append(f"-DONLY={check.breaks[1:]}")
        _call(folder, "spin", *switches, "-a", MODEL.name)
        _call(folder, "gcc", *_how(check, shortest), "-w", "-o", "pan", "pan.c")
        start = time.monotonic()
        depth = () if "-DBFS" in _how(check, shortest) else ("-m3000000",)
        said = _call(folder, "./pan", *depth, "-w23", *(("-a", "-f") if check.live else ()), checked=False)
        seconds = time.monotonic() - start
        return _judge(check, folder, said, seconds)


def _how(check: Check, shortest: bool) -> tuple[str, ...]:
    """How pan is built: breadth first for the shortest story; in depth if nothing is to be found."""
    common = ("-O1", "-DNOREDUCE", f"-DMEMLIM={_MEMORY_MB}")
    if check.live:
        return (*common, "-DNFAIR=3")
    return (*common, "-DSAFETY", "-DNOFAIR", *(("-DBFS",) if shortest else ()))


def _judge(check: Check, folder: Path, said: str, seconds: float) -> Outcome:
    states, errors = re.search(r"(\d+) states, stored", said), re.search(r"errors: (\d+)", said)
    if states is None or errors is None:
        return Outcome(check, 0, seconds, "", (), said.strip()[-400:] or "pan said nothing")
    broken, trouble = "", ""
    steps: tuple[str, ...] = ()
    if int(errors[1]):
        steps = _story(folder, check)
        broken = "L1" if check.live else next((s.split()[1] for s in steps if s.startswith("BROKEN")), "")
        trouble = "" if broken else "an error that is none of the properties: " + said.strip()[:400]
    elif re.search(r"depth too small|not completed|out of memory|memory limit", said):
        trouble = "the search did not come to an end"
    return Outcome(check, int(states[1]), seconds, broken, steps, trouble)


def _story(folder: Path, check: Check) -> tuple[str, ...]:
    said = _call(folder, "./pan", "-r", "-n", checked=False)
    story = said.split("spin: trail ends")[0].splitlines()
    noise = ("MSC:", "pan:", "spin:", "warning", "#", "\t")
    return tuple(line.strip() for line in story if line.strip() and not line.startswith(noise))


def _call(folder: Path, *command: str, checked: bool = True) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    said = done.stdout + done.stderr
    if checked and (done.returncode or "syntax error" in said):
        raise SystemExit(f"{' '.join(command)}: {said.strip()}")
    return said


def _line(outcome: Outcome) -> str:
    check = outcome.check
    size = f"{outcome.states:>10,} states {outcome.seconds:6.1f} s"
    if outcome.trouble:
        word, told = "FAILED", outcome.trouble
    elif not outcome.as_expected and not check.breaks:
        word, told = "BROKEN", f"{outcome.broken}: {PROPERTIES[outcome.broken]}"
    elif not outcome.as_expected:
        gone = "no fault any more: tell docs/model.md" if check.fault else "the variant was not caught"
        word, told = "MISSED", f"{check.breaks}: {gone}"
    elif check.fault:
        word, told = "fault", f"breaks {check.breaks}"
    elif check.breaks:
        word, told = "caught", f"by {check.breaks}"
    else:
        word, told = "holds", "L1" if check.live else "P1" if "ONLY=1" in check.switches else "P1 to P10"
    return f"{word:<7} {check.name:<27} {size}  {told}: {check.what}"


def main() -> int:
    parser = argparse.ArgumentParser(description="Checks the model of the lease with spin.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="checks to do; all of them if none is named")
    parser.add_argument("--trace", action="store_true", help="tell how each property comes to be broken")
    given = parser.parse_args()
    if lacks := missing():
        sys.stderr.write(f"The model can't be checked: {lacks}\n")
        return 1
    chosen = [check for check in CHECKS if not given.names or check.name in given.names]
    if unknown := set(given.names) - {check.name for check in chosen}:
        sys.stderr.write(f"There is no check {', '.join(sorted(unknown))}.\n")
        return 2
    for name, what in PROPERTIES.items():
        sys.stdout.write(f"{name:<4} {what}\n")
    sys.stdout.write("\n")
    outcomes = []
    with ThreadPoolExecutor(_JOBS) as jobs:
        for outcome in jobs.map(run, chosen):
            outcomes.append(outcome)
            sys.stdout.write(_line(outcome) + "\n")
            if outcome.steps and (given.trace or not outcome.as_expected):
                sys.stdout.writelines(f"        {step}\n" for step in outcome.steps)
            sys.stdout.flush()
    failed = [o.check.name for o in outcomes if not o.as_expected]
    faults = [o.check.name for o in outcomes if o.check.fault]
    sys.stdout.write(
        f"\n{len(outcomes)} checks, {sum(o.states for o in outcomes):,} states: "
        f"{len(outcomes) - len(failed)} as expected, {len(failed)} not; "
        f"{len(faults)} of them show a fault that is known, see docs/model.md\n"
    )
    if failed:
        sys.stdout.write(f"not as expected: {', '.join(failed)}\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
