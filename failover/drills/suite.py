"""Runs many drills, some at a time, each in a folder and in a process of its own.

The files of one chain are made once for all of them. Whatever becomes of a drill's process, its chain ends.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import shutil
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from chain.config import load_config
from chain.errors import Busy, ChainError
from failover.drills.record import DrillRecord, read_record
from failover.drills.stage import clean_chain, clear_folder, surely
from failover.local.chain import LocalChain

DRILL_FILE: Final = "drill.yaml"
_TASK_FILE: Final = "task.json"
_PREPARED: Final = "prepared"


@dataclass(frozen=True, slots=True)
class Order:
    """A drill to be run."""

    name: str
    text: str
    seed: int
    on: Path | None = None
    """chain.yaml of a chain that is there already; else one is made for it."""


@dataclass(frozen=True, slots=True)
class Task:
    """What the process of a drill is told, beside the drill."""

    seed: int
    prepared: Path
    on: Path | None


@dataclass(frozen=True, slots=True)
class Ran:
    """What became of them."""

    records: tuple[DrillRecord, ...]
    """Of those that were begun, in the order in which they were given."""
    interrupted: bool


Watch = Callable[[str, DrillRecord | None], None]
"""Told of each drill when it begins, and with its record when it has ended."""


async def run_drills(
    orders: Sequence[Order], out: Path, *, parallel: int = 1, watch: Watch = lambda name, record: None
) -> Ran:
    """Runs them below `out`, an absolute path, `parallel` at a time.

    The first SIGINT or SIGTERM ends all that is under way in good order, and begins no other. What an earlier
    run left behind that was killed is ended and removed first. Raises Busy if another is at it in `out`;
    ChainError if the process of a drill died without a record, once the others have ended.
    """
    with _alone(out), _told() as suite:
        await _clear_left(out)
        prepared = LocalChain(out / _PREPARED)
        try:
            if any(order.on is None for order in orders):
                await prepared.prepare()
            gate = asyncio.Semaphore(parallel)

            async def run(order: Order) -> DrillRecord | None:
                async with gate:
                    if suite.stopped:
                        return None
                    watch(order.name, None)
                    folder = out / f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{order.name}"
                    record = await suite.run(folder, order, prepared.folder)
                    watch(order.name, record)
                    return record

            ended = await asyncio.gather(*(run(order) for order in orders), return_exceptions=True)
        finally:
            await asyncio.to_thread(shutil.rmtree, prepared.folder, ignore_errors=True)
    for each in ended:
        if isinstance(each, BaseException):
            raise each
    return Ran(tuple(each for each in ended if isinstance(each, DrillRecord)), suite.stopped)


async def clear(out: Path) -> None:
    """Ends and removes what a killed run left below `out`. Raises Busy if one is at it there."""
    with _alone(out):
        await _clear_left(out)


def left_in(out: Path) -> tuple[Path, ...]:
    """The folders of drills below `out` whose chains are there: under way, or left by a killed run."""
    return tuple(chain.parent for chain in sorted(out.glob("*/chain")))


async def _clear_left(out: Path) -> None:
    for folder in await asyncio.to_thread(left_in, out):
        await clear_folder(folder)


def read_task(folder: Path) -> Task:
    """What the process of the drill in `folder` is told."""
    content = json.loads((folder / _TASK_FILE).read_text())
    on = content["on"]
    return Task(content["seed"], Path(content["prepared"]), None if on is None else Path(on))


class _Suite:
    """The processes of the drills that are under way."""

    def __init__(self) -> None:
        self.stopped = False
        self._processes: set[Process] = set()

    def stop(self) -> None:
        """Tells them all to end; each takes back what it did."""
        self.stopped = True
        for process in self._processes:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)

    async def run(self, folder: Path, order: Order, prepared: Path) -> DrillRecord | None:
        """None if it was told to end before it could hear that."""
        await asyncio.to_thread(_write_task, folder, order, prepared)
        argv = (sys.executable, "-m", "failover.drills", str(folder))
        # A group of its own: Ctrl-C is for us to hear, and to tell. Its standard input ends when we do.
        process = await asyncio.create_subprocess_exec(*argv, process_group=0, stdin=asyncio.subprocess.PIPE)
        self._processes.add(process)
        try:
            if self.stopped:
                self.stop()
            await process.wait()
        except asyncio.CancelledError:
            self.stop()
            await surely(process.wait())
            raise
        finally:
            self._processes.discard(process)
            await surely(clear_folder(folder))
        try:
            return await asyncio.to_thread(read_record, folder / "record.json")
        except ChainError as error:
            left = "" if order.on is None else f"; {await surely(_clean(order.on))}"
            if self.stopped:
                return None
            raise ChainError(
                f"the process of {order.name} ended with {process.returncode}, and left no record{left}",
                hint=f"what it said is above; its folder is {folder}",
            ) from error


async def _clean(on: Path) -> str:
    """Takes back what a drill that was killed has left on the chain, and says so."""
    try:
        left = await clean_chain(load_config(on, os.environ))
    except ChainError as error:
        return f"what it left on the chain is there still ({error.message}): chainctl drill clean --on {on}"
    return f"taken back: {'; '.join(left.lines)}" if left else "on the chain it left nothing to be taken back"


def _write_task(folder: Path, order: Order, prepared: Path) -> None:
    folder.mkdir(parents=True)
    (folder / DRILL_FILE).write_text(order.text)
    on = None if order.on is None else str(order.on.resolve())
    task = {"seed": order.seed, "prepared": str(prepared), "on": on}
    (folder / _TASK_FILE).write_text(json.dumps(task))


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Holds a lock that ends with its process. Raises Busy."""
    out.mkdir(parents=True, exist_ok=True)
    lock = os.open(out / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            hint = "wait, or give another folder: --out"
            raise Busy(f"drills are run in {out} already", hint=hint) from None
        yield
    finally:
        os.close(lock)


@contextmanager
def _told() -> Iterator[_Suite]:
    """A suite that hears when this process is told to end."""
    suite, loop = _Suite(), asyncio.get_running_loop()
    for sig in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(sig, suite.stop)
    try:
        yield suite
    finally:
        for sig in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(sig)
