"""One Postgres server in a folder, for local chains and tests: loopback only, detached, disposable.

The folder holds `data`, `postgres.log` and a lock file. The server outlives the process that
started it; any later LocalPostgres on the same folder finds it again. Every step may be repeated,
and a crash at any point leaves a folder from which the next `init` or `start` goes on.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
import secrets
import shutil
import signal
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import asyncpg

from chain.errors import BadFile, BadInput, Busy, TimedOut, Unavailable
from failover.local import processes
from failover.local.programs import Programs, Way, environment, find_programs, last_lines

_POLL_S = 0.01

_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "60",
    "password_encryption": "scram-sha-256",
    "shared_buffers": "64MB",
    # A container's limit on huge pages shows only when they are touched, as a crash.
    "huge_pages": "off",
    # Segments in /dev/shm would outlive a server that is killed; files in its data folder are cleared.
    "dynamic_shared_memory_type": "mmap",
    "jit": "off",
    "wal_level": "replica",
    "max_wal_size": "1GB",
    "min_wal_size": "80MB",
    "max_wal_senders": "4",
    "max_prepared_transactions": "0",
    "log_destination": "stderr",
    "log_line_prefix": "%m [%p] %q%u@%d ",
    "log_checkpoints": "off",
    "log_autovacuum_min_duration": "-1",
    "lc_messages": "C",
    "timezone": "UTC",
    "log_timezone": "UTC",
}


class PortTaken(Unavailable):
    """Another process listens on the port; choose another one."""


class LocalPostgres:
    """A server with the superuser `geochain`, whose password is in `password_file`.

    Servers that share the file share the password. Two processes may use the same folder: `init`
    and `start` take turns, `stop` and `kill` don't wait for them.
    """

    def __init__(self, folder: Path, *, password_file: Path | None = None, _way: Way | None = None) -> None:
        self.folder = folder.resolve()
        self.data = self.folder / "data"
        self.log = self.folder / "postgres.log"
        self.password_file = password_file or self.folder / "password"
        self._way = _way
        self._programs: Programs | None = None

    async def init(self) -> None:
        """Make the data folder, unless there is one. Raises NoPostgres, BadFile."""
        async with self._turn():
            if await asyncio.to_thread(self._initialised):
                return
            programs = await self._choose()
            new, secret = await asyncio.to_thread(self._make_room, programs)
            options = "-U geochain -E UTF8 --locale=C -A scram-sha-256 --data-checksums --no-sync"
            argv = ("-D", str(new), *options.split(), "--no-instructions", f"--pwfile={secret}")
            try:
                code, output = await programs.identity.run(
                    programs.bin / "initdb", *argv, cwd=new, env=environment()
                )
            finally:
                secret.unlink(missing_ok=True)
            if code != 0:
                raise Unavailable(f"initdb failed in {self.folder}: {last_lines(output)}")
            with (new / "postgresql.conf").open("a") as conf:
                conf.write("\ninclude = 'geochain.conf'\n")
            new.rename(self.data)

    async def start(
        self,
        port: int,
        *,
        settings: Mapping[str, str] | None = None,
        env: Mapping[str, str] | None = None,
        wait_s: float = 30.0,
    ) -> None:
        """Start the server and wait until it takes connections. A running one is left as it is.

        `settings` go into its configuration; `env` is added to its environment.

        Raises PortTaken; Unavailable if the server dies, with the end of its log; TimedOut if it
        is still not ready after `wait_s` seconds (it may yet become so; `start` again to wait on).
        """
        async with self._turn():
            programs = await self._choose()
            log_start = self.log.stat().st_size if self.log.exists() else 0
            pid, status = self._postmaster()
            if pid is not None and status == "stopping":
                await self.stop()
                pid = None
            if pid is None:
                pid = await asyncio.to_thread(self._launch, programs, port, settings or {}, env or {})
            until = time.monotonic() + wait_s
            while self._postmaster() != (pid, "ready"):
                if not processes.alive(pid):
                    raise self._death(port, log_start)
                if time.monotonic() > until:
                    raise TimedOut(
                        f"the server in {self.folder} is not ready after {wait_s:g} s",
                        hint=f"it may be recovering; see {self.log}",
                    )
                await asyncio.sleep(_POLL_S)

    def running(self) -> bool:
        """Whether a postmaster of this folder is alive: ready, starting, stopping or suspended."""
        return self._postmaster()[0] is not None

    async def stop(self, mode: Literal["fast", "immediate"] = "fast", *, wait_s: float = 15.0) -> None:
        """Shut down, with a checkpoint (fast) or without (immediate, as in a crash)."""
        sig = signal.SIGINT if mode == "fast" else signal.SIGQUIT
        await asyncio.to_thread(processes.stop, self.data, wait_s=wait_s, postmaster_signal=sig)

    async def kill(self) -> None:
        """SIGKILL the postmaster and all its children at once."""
        await asyncio.to_thread(processes.kill_all, self.data)

    @property
    def port(self) -> int:
        """The port that the server was last started on. Raises BadInput if it never was."""
        with suppress(FileNotFoundError):
            if found := re.search(r"^port = '(\d+)'$", (self.data / "geochain.conf").read_text(), re.M):
                return int(found[1])
        raise BadInput(f"the server in {self.folder} was never started", hint="start it first")

    def dsn(self, database: str = "geochain") -> str:
        """Where the server is, without its password."""
        return f"postgresql://geochain@127.0.0.1:{self.port}/{quote(database, safe='')}"

    def password(self) -> str:
        """The superuser's password. Raises BadFile if the file is gone."""
        try:
            return self.password_file.read_text().strip()
        except OSError as error:
            raise BadFile(f"{self.password_file}: {error.strerror}") from error

    async def create_database(self, name: str = "geochain") -> None:
        """Create the database, in UTF8, unless it exists. Raises Unavailable if there is no server."""
        connection = await self._connect("postgres")
        try:
            # Two at once both see no such database; the second finds the first one's row.
            with suppress(asyncpg.DuplicateDatabaseError, asyncpg.UniqueViolationError):
                await connection.execute(
                    f"create database {_quoted(name)} template template0 encoding 'UTF8'"
                )
        finally:
            await connection.close(timeout=10)

    async def name_database(self, name: str) -> None:
        """Make the one database of a new server bear this name; nothing is done if there is such a database.

        What initdb made is UTF8 and empty, so it is given the name; a new one would be 300 files more.
        Raises Unavailable if there is no server.
        """
        try:
            connection = await self._connect(name)
        except asyncpg.InvalidCatalogNameError:
            connection = await self._connect("template1")
            # Two at once both see no such database; the second finds that the first has renamed it.
            with suppress(asyncpg.InvalidCatalogNameError, asyncpg.DuplicateDatabaseError):
                await connection.execute(f"alter database postgres rename to {_quoted(name)}")
        await connection.close(timeout=10)

    async def _connect(self, database: str) -> asyncpg.Connection[asyncpg.Record]:
        try:
            return await asyncpg.connect(self.dsn(database), password=self.password(), ssl=False, timeout=10)
        except (OSError, TimeoutError, asyncpg.CannotConnectNowError) as error:
            raise Unavailable(f"the server in {self.folder} doesn't answer: {error}") from error
        except asyncpg.InvalidPasswordError as error:
            raise BadFile(f"{self.password_file}: {error}") from error

    # --- blocking steps, run in a thread

    def _initialised(self) -> bool:
        if not (self.data / "PG_VERSION").exists():
            return False
        if not self.password_file.exists():
            raise BadFile(
                f"{self.password_file}: the password of the server in {self.folder} is gone",
                hint="bring the file back, or delete the folder and begin anew",
            )
        return True

    def _make_room(self, programs: Programs) -> tuple[Path, Path]:
        """An empty folder for initdb and a file with the password, both readable by the server."""
        new = self.folder / "data.new"
        processes.kill_all(new)
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(mode=0o700)
        _agree_on_password(self.password_file)
        secret = self.folder / "password.new"
        secret.unlink(missing_ok=True)
        _write_secret(secret, self.password())
        programs.identity.own(new)
        programs.identity.own(secret)
        return new, secret

    def _launch(
        self, programs: Programs, port: int, settings: Mapping[str, str], env: Mapping[str, str]
    ) -> int:
        if not (self.data / "PG_VERSION").exists():
            raise BadInput(f"there is no server in {self.folder}", hint="init it first")
        # Backends that outlived a killed postmaster hold its shared memory for a moment.
        processes.kill_all(self.data)
        # Nobody works in the folder now, so this pid is dead or somebody else's by now.
        (self.data / "postmaster.pid").unlink(missing_ok=True)
        conf = {**_SETTINGS, **settings, "port": str(port)}
        if programs.major >= 18:
            conf.setdefault("io_method", "sync")  # three worker processes less a server
        (self.data / "geochain.conf").write_text("".join(map(_line, conf, conf.values())))
        programs.identity.own(self.data)
        argv = (str(programs.bin / "postgres"), "-D", str(self.data))
        return processes.spawn(
            argv, cwd=self.data, log=self.log, env={**environment(), **env}, identity=programs.identity
        )

    # --- what the folder tells

    def _postmaster(self) -> tuple[int | None, str]:
        """The pid of the living postmaster and its status: starting, ready, stopping."""
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
            pid = int(lines[0])
        except (OSError, ValueError, IndexError):
            return None, ""
        proc = processes.look(pid, self.data)
        if proc is None or not proc.is_postgres:
            return None, ""
        return pid, lines[7].strip() if len(lines) > 7 else "starting"

    def _death(self, port: int, log_start: int) -> Unavailable:
        with self.log.open("rb") as log:
            log.seek(log_start)
            text = log.read().decode(errors="replace")
        if "could not bind" in text and "Address already in use" in text:
            return PortTaken(f"port {port} is taken", hint="choose another port")
        return Unavailable(
            f"the server in {self.folder} died while starting: {last_lines(text)}", hint=f"see {self.log}"
        )

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """One init or start a folder at a time, over all processes; Busy after 60 s of waiting.

        Without it a second starter could take the first one's fresh postmaster.pid for a stale one
        and put two servers on the same data.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            until = time.monotonic() + 60
            while not _try_lock(lock):
                if time.monotonic() > until:
                    raise Busy(f"somebody else is starting the server in {self.folder}")
                await asyncio.sleep(_POLL_S)
            yield
        finally:
            os.close(lock)

    async def _choose(self) -> Programs:
        if self._programs is None:
            self._programs = await find_programs(self.folder, self._way)
        return self._programs


def _line(name: str, value: str) -> str:
    if not re.fullmatch(r"[a-z_][a-z0-9_.]*", name):
        raise BadInput(f"{name!r} is no name of a Postgres setting")
    escaped = value.replace("\\", "\\\\").replace("'", "''").replace("\n", "\\n")
    return f"{name} = '{escaped}'\n"


def _quoted(name: str) -> str:
    escaped = name.replace('"', '""')
    return f'"{escaped}"'


def _agree_on_password(path: Path) -> None:
    """One password for all who share the file: the first link wins, and it is never seen half written."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    _write_secret(draft, secrets.token_urlsafe(24))
    with suppress(FileExistsError):
        os.link(draft, path)
    draft.unlink()


def _write_secret(path: Path, text: str) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text + "\n")


def _try_lock(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
