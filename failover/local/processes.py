"""The processes of a local chain: started detached, found again by what they are, ended for good.

A process is known by the folder it works in and by its mark, never by a remembered pid: pids are
reused, and whoever started a server may be long gone. After `kill_all` or `stop` has returned,
nothing of ours is alive below the folder; what isn't ours (a shell that stands there) is untouched.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from chain.errors import BadInput, TimedOut

MARK = "GEOCHAIN_STATE"
"""The environment variable that makes a process ours; its value is the folder it was started in."""

_POSTGRES = frozenset({"postgres", "postmaster"})


@dataclass(frozen=True, slots=True)
class Proc:
    """A live process. `pid` and `started` together name it; a pid alone may be reused."""

    pid: int
    started: float
    parent: int
    name: str
    command: tuple[str, ...]

    @property
    def is_postgres(self) -> bool:
        """Postmaster or one of its children."""
        return self.name in _POSTGRES

    @property
    def is_postmaster(self) -> bool:
        """Children of a postmaster rename themselves to `postgres: what they do`."""
        return self.is_postgres and not " ".join(self.command).startswith("postgres:")


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a program runs as: as we are; behind a prefix such as `unshare`; or as another account."""

    prefix: tuple[str, ...] = ()
    uid: int | None = None
    gid: int | None = None

    @property
    def groups(self) -> tuple[int, ...] | None:
        """Another account keeps none of our groups."""
        return None if self.uid is None else ()

    def own(self, path: Path) -> None:
        """Give a file or a folder with all it holds to this identity. Only root can and needs to."""
        uid, gid = self.uid or 0, self.gid or 0
        for each in (str(path), *_below_it(path)) if os.geteuid() == 0 else ():
            if os.lstat(each).st_uid != uid:
                os.chown(each, uid, gid, follow_symlinks=False)

    async def run(
        self, *argv: str | Path, cwd: Path, env: Mapping[str, str] | None = None, wait_s: float = 60.0
    ) -> tuple[int, str]:
        """Run a program to its end: exit code and output; 127 and why if it can't be executed."""
        try:
            process = await asyncio.create_subprocess_exec(
                *self.prefix,
                *argv,
                cwd=cwd,
                env=_marked_env(cwd, env),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                user=self.uid,
                group=self.gid,
                extra_groups=self.groups,
            )
        except (OSError, subprocess.SubprocessError) as error:
            return 127, str(error)
        try:
            output, _ = await asyncio.wait_for(process.communicate(), wait_s)
        except TimeoutError as error:
            raise TimedOut(f"{argv[0]} did not end within {wait_s:g} s") from error
        finally:
            if process.returncode is None:
                process.kill()
            code = await process.wait()
        return code, output.decode(errors="replace")


def spawn(
    argv: Sequence[str],
    *,
    cwd: Path,
    log: Path,
    env: Mapping[str, str] | None = None,
    identity: Identity | None = None,
) -> int:
    """Start a process that outlives this one, and give its pid. Its output is appended to `log`.

    `env` replaces our environment; the mark is added. Raises BadInput if it can't be executed.
    """
    who = identity or Identity()
    with log.open("ab") as output:
        try:
            process = subprocess.Popen(
                [*who.prefix, *argv],
                cwd=cwd,
                env=_marked_env(cwd, env),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                user=who.uid,
                group=who.gid,
                extra_groups=who.groups,
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise BadInput(f"{argv[0]} can't be started in {cwd}: {error}") from error
    # While we live we are its parent, and a dead child stays a zombie until somebody waits for it.
    threading.Thread(target=process.wait, name=f"reap-{process.pid}", daemon=True).start()
    return process.pid


def find(folder: Path) -> tuple[Proc, ...]:
    """All live processes of ours that work in the folder or below it."""
    root = folder.resolve()
    ours: dict[int, Proc] = {}
    hidden: list[Proc] = []
    for pid in psutil.pids():
        proc, verdict = _judge(pid, root)
        if proc is not None and verdict:
            ours[pid] = proc
        elif proc is not None and verdict is None:
            hidden.append(proc)
    # Children of a server that runs under another account, where root may not look into it
    # (a container without CAP_SYS_PTRACE): they are told by their parent.
    while more := {p.pid: p for p in hidden if p.parent in ours and p.pid not in ours}:
        ours.update(more)
    return tuple(ours.values())


def look(pid: int, folder: Path) -> Proc | None:
    """The process with that pid, if it is alive, ours, and works in the folder or below it."""
    proc, verdict = _judge(pid, folder.resolve())
    return proc if verdict else None


def alive(pid: int) -> bool:
    """Whether a process with that pid runs; a zombie doesn't."""
    return _read(pid) is not None


def kill_all(folder: Path, *, wait_s: float = 10.0) -> None:
    """SIGKILL everything of ours below the folder at once, and whatever it still forks meanwhile.

    Raises TimedOut, naming what is left, if something outlives `wait_s` seconds.
    """
    left = _wait_gone(folder, find(folder), wait_s=wait_s, kill=True)
    if left:
        names = ", ".join(f"{proc.name} ({proc.pid})" for proc in left)
        raise TimedOut(
            f"still alive below {folder} {wait_s:g} s after SIGKILL: {names}",
            hint="a process that SIGKILL doesn't end waits for a disk or belongs to another user",
        )


def stop(folder: Path, *, wait_s: float = 15.0, postmaster_signal: signal.Signals = signal.SIGINT) -> None:
    """End everything of ours below the folder in good order; nothing is left when it returns.

    The daemons go first, for they may still want to tell their databases; then the postmasters,
    by a fast shutdown. What hasn't ended after `wait_s` seconds in all is killed. A process that
    was suspended is woken so that it can comply.
    """
    until = time.monotonic() + wait_s
    daemons = [proc for proc in find(folder) if not proc.is_postgres]
    _send(daemons, signal.SIGTERM, signal.SIGCONT)
    _wait_gone(folder, daemons, wait_s=wait_s / 2)
    servers = [proc for proc in find(folder) if proc.is_postgres]
    # Only the postmaster may be told: to its children the same signal means something else.
    _send([proc for proc in servers if proc.is_postmaster], postmaster_signal)
    _send(servers, signal.SIGCONT)
    _wait_gone(folder, servers, wait_s=until - time.monotonic())
    kill_all(folder)


def signal_all(folder: Path, sig: signal.Signals) -> None:
    """Send a signal, such as SIGSTOP or SIGCONT, to everything of ours below the folder."""
    _send(find(folder), sig)


_kept: Final[deque[int]] = deque(maxlen=256)
"""Sockets of the ports that were given out last: bound, so that the system gives them to nobody else."""


def free_port() -> int:
    """A port of 127.0.0.1 that is free, and is not given to anybody else who asks for any port.

    It is kept by a socket that does not listen. A server can take it all the same, with SO_REUSEADDR, as
    servers do. A socket that is the 257th behind is closed.
    """
    probe = socket.socket()
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    probe.bind(("127.0.0.1", 0))
    if len(_kept) == _kept.maxlen:
        os.close(_kept.popleft())
    port = int(probe.getsockname()[1])
    _kept.append(probe.detach())
    return port


def _below_it(folder: Path) -> Iterator[str]:
    """What the folder holds; a data folder has a thousand files, too many for Path.rglob."""
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            yield os.path.join(parent, name)


def _marked_env(cwd: Path, env: Mapping[str, str] | None) -> dict[str, str]:
    return {**(os.environ if env is None else env), MARK: str(cwd.resolve())}


def _wait_gone(folder: Path, procs: Iterable[Proc], *, wait_s: float, kill: bool = False) -> tuple[Proc, ...]:
    """Wait until the processes are gone; with `kill`, until killing finds nothing more to kill.

    Gives what is left after `wait_s` seconds. Known processes are followed by pid to their very
    end, for a dying process loses its mark before it closes its files and its port.
    """
    until, pause_s = time.monotonic() + wait_s, 0.005
    known = tuple(procs)
    while True:
        if kill:
            _send(known, signal.SIGKILL)
        left = tuple(proc for proc in known if _lives(proc))
        _reap(proc for proc in known if proc not in left)
        if kill:
            left = tuple({(p.pid, p.started): p for p in (*left, *find(folder))}.values())
        if not left or time.monotonic() >= until:
            return left
        known = left
        time.sleep(pause_s)
        pause_s = min(pause_s * 1.5, 0.1)


def _send(procs: Iterable[Proc], *signals: signal.Signals) -> None:
    for proc in procs:
        # Not permitted means it isn't ours to end; whoever waits for its end will name it.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            for sig in signals:
                os.kill(proc.pid, sig)


def _reap(procs: Iterable[Proc]) -> None:
    """Collect the dead among our own children: orphans fall to us if we are a container's init."""
    for proc in procs:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(proc.pid, os.WNOHANG)


def _lives(proc: Proc) -> bool:
    now = _read(proc.pid)
    return now is not None and now.started == proc.started


def _read(pid: int) -> Proc | None:
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            if process.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD):
                return None
            command = tuple(process.cmdline())
            return Proc(pid, process.create_time(), process.ppid(), process.name(), command)
    except psutil.Error:
        return None


def _judge(pid: int, root: Path) -> tuple[Proc | None, bool | None]:
    """The process and whether it is ours and below `root`; None if that can't be seen."""
    try:
        process = psutil.Process(pid)
        if not _below(root, process.cwd()):
            return None, False
        return (_read(pid), True) if _is_ours(process, root) else (None, False)
    except psutil.AccessDenied:
        proc = _read(pid)
        if proc is None or not proc.is_postgres:
            return None, False
        folder = dict(zip(proc.command, proc.command[1:], strict=False)).get("-D", "")
        return proc, True if _below(root, folder) else None
    except psutil.Error:
        return None, False


def _is_ours(process: psutil.Process, root: Path) -> bool:
    for _ in range(10):
        # Postgres writes its title over its environment, and the mark with it.
        if process.name() in _POSTGRES:
            return True
        if env := process.environ():
            # A mark counts for the folders above the one it names and for those below it.
            mark = env.get(MARK, "")
            return mark != "" and (_below(root, mark) or root.is_relative_to(mark))
        time.sleep(0.002)  # amid its exec a process shows no environment; it isn't a stranger yet
    return False


def _below(root: Path, folder: str) -> bool:
    return folder != "" and Path(folder).is_relative_to(root)
